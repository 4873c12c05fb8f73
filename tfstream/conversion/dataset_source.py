"""A `pyarrow.dataset.Dataset`: its files, with the columns that the names of its folders tell."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow import fs

from tfstream.conversion.sources import Sources, named
from tfstream.errors import UsageError
from tfstream.storage import Place

_FORMATS = (
    ds.ParquetFileFormat,
    ds.CsvFileFormat,
    ds.JsonFileFormat,
    ds.IpcFileFormat,
    ds.OrcFileFormat,
)


def discover(dataset: ds.Dataset) -> Sources:
    """The files of a dataset, each with the columns of its partition.

    Types come from the files, as for files that are named by their paths; a column of the
    partition takes the place of one of the same name in the file.

    Raises:
        UsageError: if it is filtered, not made of local files, or its format has options.
    """
    if dataset._scan_options.get("filter") is not None:  # noqa: SLF001 - nothing else tells
        raise UsageError(
            "the dataset is filtered; convert all of it, and use where() on what comes of it"
        )
    found: dict[Place, dict[str, pa.Scalar]] = {}
    for fragment in dataset.get_fragments():
        if not isinstance(fragment, ds.FileFragment) or not isinstance(
            fragment.filesystem, fs.LocalFileSystem
        ):
            raise UsageError(
                "the dataset is not made of local files alone; write it to files, and convert these"
            )
        if not any(fragment.format == plain() for plain in _FORMATS):
            raise UsageError(
                f"the dataset reads {fragment.path} by options of its own, which a conversion does "
                "not know; leave them out, or write it to Parquet first"
            )
        told = ds.get_partition_keys(fragment.partition_expression)
        found[Path(fragment.path)] = {
            name: pa.scalar(value, dataset.schema.field(name).type) for name, value in told.items()
        }
    if not found:
        raise UsageError("the dataset has no files")
    return named(found)
