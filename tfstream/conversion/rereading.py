"""Rows of source files read once more, as they were when the data set was made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from tfstream import storage
from tfstream.conversion.options import ConvertOptions
from tfstream.conversion.sources import Sources, named
from tfstream.conversion.survey import survey
from tfstream.errors import DataError, UsageError
from tfstream.format.manifest import Catalog

T = TypeVar("T")


def source_rows(catalog: Catalog, source: int, rows: np.ndarray) -> pa.Table:
    """Rows of a source file, with the columns of the data set that the file itself has.

    What the names of folders told, and what a file lacks, is left out. A CSV or JSON file is read
    from its beginning, a Parquet, Arrow or ORC file where the rows are.

    Args:
        catalog: the data set.
        source: ordinal of the source.
        rows: (n,) int64, rows there, each readable.

    Returns:
        The rows, in the order of `rows`.

    Raises:
        UsageError: if there is no file, since the source was a partition of a DataFrame, or it is
            not where it was.
        DataError: if the file has another length than it had, or cannot be read.
    """
    sources = _file(catalog, source)
    options = replace(ConvertOptions(), **catalog.manifest.options)
    surveyed = survey(sources, options, _run)
    there = surveyed.schema.names
    schema = pa.schema([(c.name, c.arrow) for c in catalog.schema.columns if c.name in there])
    found, places, first = [schema.empty_table()], [np.empty(0, np.int64)], 0
    for partition, count in zip(surveyed.partitions, surveyed.partition_rows, strict=True):
        if ((rows >= first) & (rows < first + count)).any():
            typed = partition.retyped(schema) if sources.kind.name == "CSV" else partition
            for piece in typed.read(schema):
                wanted = np.isin(piece.source_rows, rows)
                # Text that a file holds as a dictionary is still one here.
                found.append(piece.table.filter(pa.array(wanted)).cast(schema))
                places.append(piece.source_rows[wanted])
        first += count
    ordered = np.concatenate(places)
    return pa.concat_tables(found).take(pa.array(np.searchsorted(ordered, rows))).combine_chunks()


def _file(catalog: Catalog, source: int) -> Sources:
    name, size = (catalog.sources[column][source].as_py() for column in ("path", "size_bytes"))
    if not catalog.manifest.root:
        raise UsageError(f"{name} was a partition of a DataFrame, of which no file is kept")
    path = storage.place(catalog.manifest.root) / name
    if not path.is_file():
        raise UsageError(f"the source {path} is not there any more; bring it back")
    sources = named({path: {}})
    if sources.files[0].size_bytes != size:
        raise DataError(
            f"the source {path} has {sources.files[0].size_bytes} bytes, but had {size} when it "
            "was converted; bring back the file of then"
        )
    return sources


def _run(
    stage: str,
    function: Callable[..., T],
    calls: Iterable[Sequence[Any]],
    *,
    size_bytes: int | None = None,
) -> list[T]:
    """In this thread."""
    del stage, size_bytes
    return [function(*arguments) for arguments in calls]
