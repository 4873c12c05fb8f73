"""Parquet files: their pieces are row groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfstream import storage
from tfstream.conversion import parquet_footer, piecewise
from tfstream.conversion.reading import Found, Source, Wish
from tfstream.remote_path import RemotePath

_PAGE_BUFFER_BYTES = 1 << 20
"""Read-ahead per column where a row group is too large to be read at once."""
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8}
"""Bytes of a value of each physical type of a fixed width."""

_CODE_BYTES = 4
"""Bytes of a code, of a column that has less than 2^32 different texts."""
_MOST_BYTES = 1 << 50
"""More than a row group has, however much it says; sums of it are numbers of 64 bits."""


def find(source: Source, wish: Wish) -> Found:
    """The columns and row groups of a Parquet file, from its footer; see `piecewise.find`."""
    return piecewise.find("Parquet", _RowGroups, source, wish)


class _RowGroups:
    """See `Pieces`."""

    def __init__(self, source: Source) -> None:
        self._path = source.path
        self._tail = parquet_footer.tail(source.path)
        with pq.ParquetFile(pa.BufferReader(self._tail)) as file:
            self.schema: pa.Schema = file.schema_arrow
            self._metadata = file.metadata
        self._leaves: int = self._metadata.num_columns
        self.count: int = self._metadata.num_row_groups
        for piece in range(self.count):
            columns = self._metadata.row_group(piece).num_columns
            if columns != self._leaves:
                raise pa.ArrowInvalid(
                    f"row group {piece} has {columns} columns, the schema {self._leaves}"
                )

    def rows(self, piece: int) -> int:
        return int(self._metadata.row_group(piece).num_rows)

    def sizes(self, rows: np.ndarray, wish: Wish) -> np.ndarray:
        # A column of lists or structs is one column or several of the file, named by a path.
        roots = [name for name in self.schema.names if wish.wants(name)]
        leaves = {
            i: leaf
            for i, leaf in enumerate(self._schema())
            if leaf.path in roots or leaf.path.split(".")[0] in roots
        }
        # Values of a column that is neither a list nor text take their width, however well encoded.
        widths = {
            i: 0 if leaf.max_repetition_level else _WIDTHS.get(leaf.physical_type, 0)
            for i, leaf in leaves.items()
        }
        wide = [i for i, width in widths.items() if not width]
        fixed = np.asarray(rows * (sum(widths.values()) + 8 * len(wide)), np.int64)
        found: np.ndarray = fixed + self._wide_bytes(wide, wish.partition_bytes - int(fixed.sum()))
        return found

    def _wide_bytes(self, wide: Sequence[int], most: int) -> np.ndarray:
        """(pieces,) int64: bytes of some columns in each, before compression.

        If those of all columns are `most` at most, only the first piece is looked at: in so small a
        file nothing is cut, and it may be one of thousands.
        """
        if not wide or not self.count:
            return np.zeros(self.count, np.int64)
        groups = map(self._metadata.row_group, range(self.count))
        totals = np.array([group.total_byte_size for group in groups], np.int64)
        if totals[0] > 0 and totals.min() >= 0 and totals.sum() <= most:
            share = _bytes_of(self._chunks(0), wide) / int(totals[0])
            return (totals * min(share, 1)).astype(np.int64)
        found = [_bytes_of(chunks, wide) for chunks in parquet_footer.row_groups(self._tail)]
        if len(found) != self.count:
            raise _unclear()
        return np.array(found, np.int64)

    def read(self, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        with _told_null_lists(), self._opened(encoded=self._encoded(start, columns)) as file:
            table = file.read_row_groups(
                range(start, stop), columns=list(columns), use_threads=False
            )
            return piecewise.valid_texts(table)

    def stream(self, piece: int, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
        with _told_null_lists(), self._opened(_PAGE_BUFFER_BYTES) as file:
            batches = file.iter_batches(
                rows, row_groups=[piece], columns=list(columns), use_threads=False
            )
            for batch in batches:
                yield piecewise.valid_texts(pa.Table.from_batches([batch]))

    def byte(self, piece: int) -> int | None:
        # It may be the footer why a piece cannot be read.
        with suppress(pa.ArrowInvalid):
            return self._chunks(piece)[0].byte
        return None

    def _encoded(self, piece: int, columns: Sequence[str]) -> list[str]:
        """The columns of text whose values are so short in the file that they are mostly codes.

        To read these as a dictionary takes a quarter of the time of reading and encoding texts.
        """
        texts = {name for name in columns if self.schema.field(name).type == pa.string()}
        if not texts:
            return []
        rows, chunks = self.rows(piece), self._chunks(piece)
        return [
            leaf.path
            for leaf, chunk in zip(self._schema(), chunks, strict=True)
            if leaf.path in texts and chunk.size_bytes < _CODE_BYTES * rows
        ]

    def _schema(self) -> Iterator[pq.ColumnSchema]:
        return map(self._metadata.schema.column, range(self._leaves))

    def _chunks(self, piece: int) -> list[parquet_footer.Chunk]:
        """The column chunks of a row group, as many as there are leaves."""
        found = next(islice(parquet_footer.row_groups(self._tail), piece, None), [])
        if len(found) != self._leaves:
            raise _unclear()
        return found

    def _opened(self, buffer_size: int = 0, encoded: Sequence[str] = ()) -> pq.ParquetFile:
        return pq.ParquetFile(
            storage.for_arrow(self._path),
            read_dictionary=list(encoded),
            metadata=self._metadata,
            buffer_size=buffer_size,
            # Few large requests where each takes its time.
            pre_buffer=isinstance(self._path, RemotePath) and not buffer_size,
            page_checksum_verification=True,
        )


def _bytes_of(chunks: Sequence[parquet_footer.Chunk], columns: Sequence[int]) -> int:
    if columns[-1] >= len(chunks):
        raise _unclear()
    return min(sum(chunks[i].size_bytes for i in columns), _MOST_BYTES)


def _unclear() -> pa.ArrowInvalid:
    return pa.ArrowInvalid("the footer has other row groups for us than for pyarrow")


@contextmanager
def _told_null_lists() -> Iterator[None]:
    """What to do where pyarrow below 26 stumbles over a null among lists of a fixed size."""
    try:
        yield
    except pa.ArrowInvalid as error:
        if "Expected all lists to be of size" not in str(error):
            raise
        raise pa.ArrowInvalid(
            f"pyarrow {pa.__version__} cannot read a null among lists of a fixed size; "
            "install pyarrow 26, or write the column as lists of any length"
        ) from error
