"""Which runs have seen some rows: what models may know although the data set has forgotten it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from tfstream.errors import TfstreamError
from tfstream.format.manifest import Catalog
from tfstream.lineage import description
from tfstream.lineage.run import open_run

_MODELS = (".keras", ".h5", ".hdf5", ".ckpt", ".index", "checkpoint")
"""How files end that may hold weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """A run that has seen some of the rows."""

    folder: Path
    rows: int
    """How many of them."""
    steps: int
    """Steps that had one of them."""
    first_step: int
    """The first of these: weights from then on have seen it."""
    files: tuple[Path, ...]
    """Files in the folder that may hold weights, or show values."""

    def __str__(self) -> str:
        """As a line for people."""
        files = f"; look at {', '.join(map(str, self.files))}" if self.files else ""
        return (
            f"{self.folder}: {self.steps:,} steps from {self.first_step} on saw {self.rows:,} of "
            f"these rows, and so have all weights since{files}"
        )


def witnesses(
    folders: Iterable[Path], catalog: Catalog, row_ids: np.ndarray
) -> Iterator[Witness | str]:
    """The runs in some folders and below that have seen rows of a data set.

    Args:
        folders: where runs lie.
        catalog: the data set.
        row_ids: (rows,) int64, ascending.

    Yields:
        A witness, or a sentence about a run that cannot be asked.
    """
    manifest = catalog.manifest
    digests = {catalog.digest, *(parent.digest for parent in manifest.parents)}
    digests |= {forgotten.digest for forgotten in manifest.forgotten}
    for folder in folders:
        for path in sorted(folder.rglob(description.NAME)):
            try:
                found = _witness(path.parent, catalog, digests, row_ids)
            except TfstreamError as error:
                yield f"{path.parent}: cannot be asked: {error}"
                continue
            if found is not None:
                yield found


def _witness(
    folder: Path, catalog: Catalog, digests: Collection[str], row_ids: np.ndarray
) -> Witness | None:
    run = open_run(folder, shards=str(catalog.folder))
    if run.description.training.dataset not in digests:
        return None
    own = row_ids[row_ids < run.catalog.rows]
    if not len(own):
        return None
    steps = run.steps_of(row_ids=own)
    if not steps.num_rows:
        return None
    return Witness(
        folder=folder,
        rows=len(pc.unique(steps["row_id"])),
        steps=len(pc.unique(steps["step"])),
        first_step=int(pc.min(steps["step"]).as_py()),
        files=tuple(
            path
            for path in sorted(folder.rglob("*"))
            if path.name.endswith((*_MODELS, ".html")) and path.is_file()
        ),
    )
