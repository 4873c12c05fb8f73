"""ORC files: their pieces are stripes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from pyarrow import orc

from tfstream import storage
from tfstream.conversion import piecewise
from tfstream.conversion.reading import Found, Source, Wish


def find(source: Source, wish: Wish) -> Found:
    """The columns and stripes of an ORC file; see `piecewise.find`."""
    return piecewise.find("ORC", _Stripes, source, wish)


class _Stripes:
    """See `Pieces`."""

    def __init__(self, source: Source) -> None:
        self._bytes = storage.for_arrow(source.path)
        with storage.told_by_store(self._bytes):
            self._file = orc.ORCFile(self._bytes)
        self._size_bytes = source.size_bytes
        self.schema: pa.Schema = self._file.schema
        self.count: int = self._file.nstripes

    def rows(self, piece: int) -> int:
        # pyarrow does not tell the rows of a stripe but by reading a column of it.
        def count(name: str) -> int:
            return int(self._stripe(piece, [name]).num_rows)

        return piecewise.count_rows(count, self.schema.names)

    def sizes(self, rows: np.ndarray, wish: Wish) -> np.ndarray:
        columns = [name for name in self.schema.names if wish.wants(name)]
        return piecewise.estimated_sizes(self, rows, columns, self._size_bytes)

    def read(self, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        schema = pa.schema([self.schema.field(name) for name in columns])
        batches = [self._stripe(i, columns) for i in range(start, stop)]
        table = pa.Table.from_batches(batches, batches[0].schema if batches else schema)
        return piecewise.valid_texts(table)

    def stream(self, piece: int, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
        yield from piecewise.sliced(self.read(piece, piece + 1, columns), rows)

    def _stripe(self, piece: int, columns: Sequence[str]) -> pa.RecordBatch:
        try:
            with storage.told_by_store(self._bytes):
                return self._file.read_stripe(piece, columns=list(columns))
        except pa.ArrowException as error:
            # For bytes that do not decode it has no error but "unknown".
            raise pa.ArrowInvalid(str(error).removeprefix("Unknown error: ")) from error

    def byte(self, piece: int) -> int | None:  # noqa: ARG002 - pyarrow does not tell
        return None
