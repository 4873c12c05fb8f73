"""Damaged files of a data set, made again from its sources."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from tfstream import storage
from tfstream.conversion.convert import append, convert
from tfstream.conversion.options import ConvertOptions
from tfstream.conversion.progress import ProgressCallback
from tfstream.errors import DataError, UsageError
from tfstream.format.check import Finding, check_dataset, check_sources
from tfstream.format.manifest import Catalog, open_catalog

_PARTS = ("shards", "provenance", "quarantine", "index")


def repair(
    folder: str | os.PathLike[str],
    *,
    scheduler: Any = None,  # noqa: ANN401 - a name, an address or a distributed.Client
    progress: ProgressCallback | None = None,
) -> list[Finding]:
    """Make damaged files again; see `tfstream.repair`."""
    out = storage.local_path(folder).absolute()
    catalog = open_catalog(out)
    findings = list(check_dataset(catalog))
    if not findings:
        return []
    if catalog.manifest.forgotten:
        raise UsageError(
            f"rows of {out} were forgotten on {catalog.manifest.forgotten[-1].date}, so its "
            "sources make another data set; restore its files, or convert again and forget again"
        )
    paths = _sources(catalog)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.repair-", dir=out.parent) as name:
        again = Path(name) / "again"
        _convert(catalog, paths, again, scheduler, progress)
        made = open_catalog(again)
        if made.digest != catalog.digest:
            raise DataError(
                f"the sources of {out} make another data set today, {made.digest}, not "
                f"{catalog.digest}, so nothing was changed; convert them into a new folder"
            )
        for part in _PARTS:
            for path in sorted(again.rglob(f"{part}/**/*")):
                _replace(path, out / path.relative_to(again))
    return findings


def _sources(catalog: Catalog) -> list[Path]:
    """The files of the sources, checked.

    Raises:
        UsageError: if they were no files.
        DataError: if one is not there, or is not what was read then.
    """
    if not catalog.manifest.root:
        raise UsageError(
            f"the sources of {catalog.folder} were no files, so none can be read again"
        )
    root = Path(catalog.manifest.root)
    paths = [root / path for path in catalog.sources["path"].to_pylist()]
    for path in paths:
        if not path.is_file():
            raise DataError(f"the source {path} is not there any more; restore it")
    for finding in check_sources(catalog):
        raise DataError(f"the source {finding}; restore it")
    return paths


def _convert(
    catalog: Catalog,
    paths: Sequence[Path],
    again: Path,
    scheduler: Any,  # noqa: ANN401 - as above
    progress: ProgressCallback | None,
) -> None:
    """Convert the sources of each generation, as they were then."""
    kept = {field.name for field in fields(ConvertOptions)}
    told = {name: value for name, value in catalog.manifest.options.items() if name in kept}
    options = ConvertOptions(**told)
    ends = [*(parent.sources for parent in catalog.manifest.parents), len(paths)]
    convert(
        paths[: ends[0]],
        again,
        group_by=catalog.manifest.group_by,
        options=options,
        scheduler=scheduler,
        progress=progress,
    )
    for start, stop in pairwise(ends):
        append(paths[start:stop], again, options=options, scheduler=scheduler, progress=progress)


def _replace(made: Path, there: Path) -> None:
    """Put a file in the place of one that differs."""
    if not made.is_file() or (there.is_file() and storage.sha256(there) == storage.sha256(made)):
        return
    storage.publish(there, storage.read(made))
