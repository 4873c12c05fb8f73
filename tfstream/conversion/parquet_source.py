"""Parquet files: their columns, and partitions made of row groups."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfstream.conversion.sources import Source, Sources, Survey, refuse_differences
from tfstream.conversion.types import kept_schema, kept_table
from tfstream.errors import DataError, StorageError

_PAGE_BUFFER_BYTES = 1 << 20
"""Read-ahead per column where a row group is too large to be read at once."""
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8}
"""Bytes of a value of each physical type of a fixed width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetPartition:
    """Consecutive row groups of a file."""

    source: Source
    first_row: int
    row_groups: tuple[int, ...]
    batch_rows: int | None
    """Rows to read at once, where the row groups are larger than a partition should be."""

    def read(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """See `Partition`."""
        with _opened(self.source, buffer_size=_PAGE_BUFFER_BYTES if self.batch_rows else 0) as file:
            if self.batch_rows is None:
                yield self._kept(file.read_row_groups(self.row_groups, use_threads=False), schema)
                return
            batches = file.iter_batches(
                self.batch_rows, row_groups=self.row_groups, use_threads=False
            )
            for batch in batches:
                yield self._kept(pa.Table.from_batches([batch]), schema)

    def _kept(self, table: pa.Table, schema: pa.Schema) -> pa.Table:
        try:
            return kept_table(table, schema)
        except DataError as error:
            raise DataError(f"{self.source.path}: {error}") from error


def survey(sources: Sources, partition_bytes: int) -> Survey:
    """The columns and partitions of Parquet files, from their footers.

    Raises:
        DataError: if a file is not Parquet or two have different columns.
    """
    partitions: list[ParquetPartition] = []
    rows, size_bytes = [], 0
    first: tuple[Source, pa.Schema] | None = None
    for source in sources.files:
        with _opened(source) as file:
            schema = kept_schema(file.schema_arrow, str(source.path))
            group_rows, group_bytes = _row_groups(file.metadata)
        first = first or (source, schema)
        refuse_differences(first, (source, schema))
        partitions += _partitions(source, group_rows, group_bytes, partition_bytes)
        rows.append(int(group_rows.sum()))
        size_bytes += int(group_bytes.sum())
    return Survey(
        schema=first[1] if first else pa.schema([]),
        rows=tuple(rows),
        partitions=tuple(partitions),
        size_bytes=size_bytes,
    )


def _partitions(
    source: Source, group_rows: np.ndarray, group_bytes: np.ndarray, partition_bytes: int
) -> Iterator[ParquetPartition]:
    total = int(group_bytes.sum())
    if total == 0:
        return
    count = -(-total // partition_bytes)
    # Cut where the middle of a row group passes each share, so that the partitions are about equal.
    middles = np.cumsum(group_bytes) - group_bytes / 2
    shares = np.minimum((middles * count / total).astype(np.int64), count - 1)
    starts = np.flatnonzero(np.diff(shares, prepend=-1))
    first_rows = np.cumsum(group_rows) - group_rows
    for start, stop in zip(starts, [*starts[1:], len(shares)], strict=True):
        rows, size = int(group_rows[start:stop].sum()), int(group_bytes[start:stop].sum())
        if rows == 0:
            continue
        large = size > 2 * partition_bytes
        yield ParquetPartition(
            source=source,
            first_row=int(first_rows[start]),
            row_groups=tuple(range(start, stop)),
            batch_rows=max(1, rows * partition_bytes // size) if large else None,
        )


def _row_groups(metadata: pq.FileMetaData) -> tuple[np.ndarray, np.ndarray]:
    """Rows and estimated bytes in memory of each row group."""
    leaves = [metadata.schema.column(i) for i in range(metadata.num_columns)]
    # Values of a column that is neither a list nor text take their width, however well encoded.
    widths = [0 if c.max_repetition_level else _WIDTHS.get(c.physical_type, 0) for c in leaves]
    width, texts = sum(widths), [i for i, width in enumerate(widths) if not width]
    rows, size = [], []
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        rows.append(group.num_rows)
        size.append(
            group.num_rows * (width + 8 * len(texts))
            + sum(group.column(j).total_uncompressed_size for j in texts)
        )
    return np.array(rows, np.int64), np.array(size, np.int64)


@contextmanager
def _opened(source: Source, buffer_size: int = 0) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(source.path, buffer_size=buffer_size, pre_buffer=False) as file:
            yield file
    except pa.ArrowException as error:
        raise DataError(
            f"{source.path} is not a readable Parquet file: {_first_line(error)}"
        ) from error
    except OSError as error:
        # pyarrow also raises OSError, without a number, for pages that do not decode.
        if error.errno is None:
            raise DataError(
                f"{source.path} is not a readable Parquet file: {_first_line(error)}"
            ) from error
        raise StorageError(f"cannot read {source.path}: {error.strerror}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
