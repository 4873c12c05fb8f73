"""Parquet files: their pieces are row groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfstream import storage
from tfstream.conversion import piecewise
from tfstream.conversion.reading import Found, Source, Wish
from tfstream.remote_path import RemotePath

_PAGE_BUFFER_BYTES = 1 << 20
"""Read-ahead per column where a row group is too large to be read at once."""
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8}
"""Bytes of a value of each physical type of a fixed width."""

_CODE_BYTES = 4
"""Bytes of a code, of a column that has less than 2^32 different texts."""


def find(source: Source, wish: Wish) -> Found:
    """The columns and row groups of a Parquet file, from its footer; see `piecewise.find`."""
    return piecewise.find("Parquet", _RowGroups, source, wish)


class _RowGroups:
    """See `Pieces`."""

    def __init__(self, source: Source) -> None:
        self._path = source.path
        with pq.ParquetFile(storage.for_arrow(source.path)) as file:
            self.schema: pa.Schema = file.schema_arrow
            self._metadata = file.metadata
        self._leaves: int = self._metadata.num_columns
        self.count: int = self._metadata.num_row_groups

    def rows(self, piece: int) -> int:
        return int(self._metadata.row_group(piece).num_rows)

    def sizes(self, rows: np.ndarray, wish: Wish) -> np.ndarray:
        # A column of lists or structs is one column or several of the file, named by a path.
        roots = [name for name in self.schema.names if wish.wants(name)]
        leaves = {
            i: leaf
            for i, leaf in enumerate(map(self._metadata.schema.column, range(self._leaves)))
            if leaf.path in roots or leaf.path.split(".")[0] in roots
        }
        # Values of a column that is neither a list nor text take their width, however well encoded.
        widths = {
            i: 0 if leaf.max_repetition_level else _WIDTHS.get(leaf.physical_type, 0)
            for i, leaf in leaves.items()
        }
        wide = [i for i, width in widths.items() if not width]
        wide_bytes = [
            sum(group.column(i).total_uncompressed_size for i in wide)
            for group in map(self._metadata.row_group, range(self.count))
        ]
        return rows * (sum(widths.values()) + 8 * len(wide)) + np.array(wide_bytes, np.int64)

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
        column = self._metadata.row_group(piece).column(0)
        return int(column.dictionary_page_offset or column.data_page_offset)

    def _encoded(self, piece: int, columns: Sequence[str]) -> list[str]:
        """The columns of text whose values are so short in the file that they are mostly codes.

        To read these as a dictionary takes a quarter of the time of reading and encoding texts.
        """
        group = self._metadata.row_group(piece)
        chunks = {c.path_in_schema: c for c in map(group.column, range(self._leaves))}
        return [
            name
            for name in columns
            if name in chunks
            and self.schema.field(name).type == pa.string()
            and chunks[name].total_uncompressed_size < _CODE_BYTES * group.num_rows
        ]

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
