"""Arrow IPC files, also called Feather: their pieces are record batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from tfstream import storage
from tfstream.conversion import piecewise
from tfstream.conversion.reading import Found, Source, Wish
from tfstream.remote_path import RemotePath


def find(source: Source, wish: Wish) -> Found:
    """The columns and record batches of an Arrow file; see `piecewise.find`."""
    return piecewise.find("Arrow IPC", _Batches, source, wish)


class _Batches:
    """See `Pieces`."""

    def __init__(self, source: Source) -> None:
        self._file = (
            pa.PythonFile(storage.for_arrow(source.path), "r")
            if isinstance(source.path, RemotePath)
            else pa.memory_map(str(source.path))
        )
        reader = pa.ipc.open_file(self._file)
        self.schema: pa.Schema = reader.schema
        self.count: int = reader.num_record_batches

    def rows(self, piece: int) -> int:
        def count(name: str) -> int:
            return int(self.read(piece, piece + 1, [name]).num_rows)

        return piecewise.count_rows(count, self.schema.names)

    def sizes(self, rows: np.ndarray, wish: Wish) -> np.ndarray:
        columns = [name for name in self.schema.names if wish.wants(name)]
        return piecewise.estimated_sizes(self, rows, columns, self._file.size())

    def read(self, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        wanted = [self.schema.get_field_index(name) for name in columns]
        options = pa.ipc.IpcReadOptions(included_fields=wanted, use_threads=False)
        reader = pa.ipc.open_file(self._file, options=options)
        table = pa.Table.from_batches(
            [reader.get_batch(i) for i in range(start, stop)], reader.schema
        )
        # Bytes are mapped as they lie there, so that offsets may lead anywhere.
        table.validate(full=True)
        return table.select(columns)

    def stream(self, piece: int, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
        yield from piecewise.sliced(self.read(piece, piece + 1, columns), rows)

    def byte(self, piece: int) -> int | None:  # noqa: ARG002 - pyarrow does not tell
        return None
