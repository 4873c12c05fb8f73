"""The values of traced rows, from the shards and once more from their sources, checked equal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tfstream.conversion.rereading import source_rows
from tfstream.errors import DataError, UsageError
from tfstream.format import provenance, reader
from tfstream.format.manifest import Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Values of rows, and what they were compared with."""

    values: pa.Table
    """The rows as the shards have them."""
    compared: int
    """Rows that were read again from their source and are equal to it."""
    missing: tuple[str, ...]
    """For each source that could not be compared: why."""


def evidence(catalog: Catalog, row_ids: np.ndarray) -> Evidence:
    """Read rows from the shards, and from the sources as far as those are still there.

    Raises:
        DataError: if a value differs, naming source, row and column, or a source cannot be read.
        CorruptionError: if a block is not what was written.
    """
    values = reader.take(catalog, row_ids)
    sources, rows = provenance.rows_of_sources(catalog, row_ids)
    compared, missing = 0, []
    for source in np.unique(sources).tolist():
        mine = np.flatnonzero(sources == source)
        try:
            original = source_rows(catalog, source, rows[mine])
        except UsageError as error:
            missing.append(str(error))
            continue
        _compare(values.take(pa.array(mine)), original, catalog, source, rows[mine])
        compared += len(mine)
    return Evidence(values=values, compared=compared, missing=tuple(missing))


def _compare(
    stored: pa.Table, original: pa.Table, catalog: Catalog, source: int, rows: np.ndarray
) -> None:
    for name in original.column_names:
        if stored[name].combine_chunks().equals(original[name].combine_chunks()):
            continue
        pairs = zip(stored[name].to_pylist(), original[name].to_pylist(), strict=True)
        for row, (left, right) in zip(rows.tolist(), pairs, strict=True):
            # By what they print, for NaN equals NaN then.
            if repr(left) != repr(right):
                path = catalog.sources["path"][source].as_py()
                raise DataError(
                    f"the shards have {left!r}, but the source has {right!r}. "
                    f"Where: {path} row {row}, column {name!r}; `tfstream verify` tells which of "
                    "both was changed"
                )
