"""Who takes part in reading and fitting, in which form, and what its shuffle means."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from benchmarks import data

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.workload import Task, Workload


SHARDS = "shards"
"""Layout of tfstream's data set."""


class Source(Protocol):
    """A contender, opened on what it keeps on disk."""

    def epoch(self) -> Iterator[tuple[Any, Any]]:
        """One pass over the rows, newly shuffled: batches of (features, label)."""


class FitSource(Source, Protocol):
    """One that takes part in fitting, too."""

    def fit_arguments(self) -> dict[str, Any]:
        """What `model.fit` takes: `x`, and whatever else this source needs."""


class Module(Protocol):
    """What the module of a contender offers."""

    def prepare(self, place: Path, task: Task, contender: Contender) -> None:
        """Write what the contender reads into an empty folder."""

    def open_source(self, place: Path, task: Task, contender: Contender) -> Source:
        """Open it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One way to deliver the rows."""

    name: str
    module: str
    """Module of this package that knows how."""
    layout: str
    """Folder of what it keeps on disk; contenders may share one."""
    rows: int
    """Rows that it has."""
    form: Literal["packed", "columns", "bytes"]
    """Features as one (n, 32) tensor, a dict by column, or not decoded at all."""
    with_id: bool
    """Whether it delivers the id beside, when it only reads; a model never gets it."""
    shuffle: str
    """What its shuffle reaches."""
    columns: int = data.COLUMNS
    """Features of a row."""
    workers: int = 1
    """Workers of a Sequence."""
    processes: bool = False
    """Whether those are processes; else threads."""
    fits: bool = True
    """Whether it takes part in job fit, too."""
    link: str | None = None
    """The document that its configuration follows."""

    @property
    def bytes_per_row(self) -> int:
        """Bytes of a row as it is delivered when only read."""
        if self.form == "bytes":
            return data.stored_bytes(self.columns)
        return data.packed_bytes(self.columns) + (data.ID_BYTES if self.with_id else 0)

    def load(self) -> Module:
        """The module, imported now: it may bring TensorFlow with it."""
        return cast("Module", importlib.import_module(f"benchmarks.{self.module}"))


def contenders(workload: Workload) -> tuple[Contender, ...]:
    """All contenders, tfstream first."""
    found = (
        *_tfstream(workload),
        *_limits(workload),
        *_textbook(workload),
        Contender(
            name="dask-groups",
            module="grouped",
            layout="groups",
            rows=workload.rows,
            form="packed",
            with_id=False,
            shuffle="inside a group only",
            workers=workload.workers or 1,
        ),
        *_observations(workload),
        *_peers(workload),
    )
    return tuple(replace(one, columns=workload.columns) for one in found)


def find(workload: Workload, name: str) -> Contender:
    """The contender of that name."""
    return next(contender for contender in contenders(workload) if contender.name == name)


def _tfstream(workload: Workload) -> Iterator[Contender]:
    forms: tuple[tuple[str, Literal["packed", "columns"]], ...] = (
        ("tfstream-packed", "packed"),
        ("tfstream-dict", "columns"),
    )
    for name, form in forms:
        yield Contender(
            name=name,
            module="tfstream_cases",
            layout=SHARDS,
            rows=workload.rows,
            form=form,
            with_id=form == "columns",
            shuffle=f"blocks + windows of {workload.window:,} rows",
        )


def _limits(workload: Workload) -> Iterator[Contender]:
    for name, with_id in (("numpy-limit", False), ("numpy-limit-id", True)):
        yield Contender(
            name=name,
            module="limit",
            layout="memmap",
            rows=workload.rows,
            form="packed",
            with_id=with_id,
            shuffle=f"inside windows of {workload.window:,} rows",
        )
    yield Contender(
        name="file-read",
        module="file_read",
        layout=SHARDS,
        rows=workload.rows,
        form="bytes",
        with_id=False,
        shuffle="nothing: the files of tfstream's shards, not decoded; bytes checked only",
        fits=False,
    )


def _textbook(workload: Workload) -> Iterator[Contender]:
    forms: tuple[tuple[str, Literal["packed", "columns"]], ...] = (
        ("textbook-packed", "packed"),
        ("textbook-columns", "columns"),
    )
    rows = min(workload.examples, workload.rows)
    for name, form in forms:
        yield Contender(
            name=name,
            module="textbook",
            layout=f"examples-{form}-{rows}",
            rows=rows,
            form=form,
            with_id=form == "columns",
            shuffle=f"shards + buffer of {workload.buffer:,}",
        )


def _observations(workload: Workload) -> Iterator[Contender]:
    kinds = ((1, False, "w1"), (2, False, "w2-threads"), (2, True, "w2-processes"))
    for rows in sorted({min(count, workload.rows) for count in workload.files}):
        for workers, processes, suffix in kinds:
            yield Contender(
                name=f"npy-{rows}-{suffix}",
                module="sequences",
                layout=f"npy-{rows}",
                rows=rows,
                form="packed",
                with_id=False,
                shuffle="whole",
                workers=workers,
                processes=processes,
            )


def _peers(workload: Workload) -> Iterator[Contender]:
    """Other tools, as their documents use them; most are installed by `setup`."""
    yield Contender(
        name="saved-blocks",
        module="saved_blocks",
        layout="saved-blocks",
        rows=workload.rows,
        form="packed",
        with_id=False,
        shuffle=f"shards + windows of {workload.window:,} rows",
        link="https://www.tensorflow.org/api_docs/python/tf/data/Dataset#save",
    )
    for name, shuffle, link in (
        (
            "pyarrow-batches",
            "nothing: a limit",
            "https://arrow.apache.org/docs/python/dataset.html",
        ),
        (
            "ray-batches",
            f"files + buffer of {workload.buffer:,}",
            "https://docs.ray.io/en/latest/data/shuffling-data.html",
        ),
        (
            "petastorm-dataset",
            f"row groups + buffer of {workload.buffer:,}",
            "https://petastorm.readthedocs.io/en/latest/readme_include.html",
        ),
        (
            "tfio-parquet",
            f"buffer of {workload.buffer:,}",
            "https://www.tensorflow.org/io/api_docs/python/tfio/IODataset#from_parquet",
        ),
    ):
        yield Contender(
            name=name,
            module="parquet_peers",
            layout="source",
            rows=workload.rows,
            form="columns",
            with_id=True,
            shuffle=shuffle,
            fits=False,
            link=link,
        )
    rows = min(workload.examples, workload.rows)
    for name, shuffle, link in (
        (
            "grain-arrayrecord",
            "whole",
            "https://google-grain.readthedocs.io/en/latest/data_sources/arrayrecord.html",
        ),
        (
            "mosaic-loader",
            "py1e",
            "https://docs.mosaicml.com/projects/streaming/en/stable/getting_started/main_concepts.html",
        ),
    ):
        yield Contender(
            name=name,
            module="row_peers",
            layout=f"{name}-{rows}",
            rows=rows,
            form="packed",
            with_id=False,
            shuffle=shuffle,
            fits=False,
            link=link,
        )
