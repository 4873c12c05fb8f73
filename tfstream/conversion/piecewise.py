"""Files that consist of numbered pieces: row groups of Parquet, Arrow's batches, ORC's stripes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from tfstream.conversion.reading import (
    Bad,
    Found,
    Rows,
    Source,
    Wish,
    first_line,
    is_unreached,
    sifted,
)
from tfstream.errors import DataError, StorageError


class Pieces(Protocol):
    """An open file."""

    schema: pa.Schema
    count: int
    """How many pieces there are."""

    def rows(self, piece: int) -> int:
        """The rows of one, which may take reading a column of it."""

    def sizes(self, rows: np.ndarray, wish: Wish) -> np.ndarray:
        """(pieces,) int64: bytes of each in memory, of the columns that matter; an estimate."""

    def read(self, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        """The rows of consecutive pieces."""

    def stream(self, piece: int, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
        """The rows of one piece, about so many at once."""

    def byte(self, piece: int) -> int | None:
        """Where in the file a piece begins, if that can be known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceStretch:
    """Consecutive pieces of a file."""

    source: Source
    kind: str
    open: Callable[[Source], Pieces]
    start: int
    """The first piece."""
    piece_rows: tuple[int, ...]
    """The rows of each piece."""
    first_row: int
    """0-based place of its first row in the file."""
    batch_rows: int | None
    """Rows to read at once, where a piece is larger than a partition should be."""
    lenient: bool
    """Whether a piece that cannot be read is told as a whole, before any of its rows."""

    @property
    def rows(self) -> int:
        """See `Stretch`."""
        return sum(self.piece_rows)

    def read(self, columns: Sequence[str]) -> Iterator[Iterable[Rows | Bad]]:
        """See `Stretch`."""
        with opened(self.kind, self.open, self.source) as pieces:
            if self.batch_rows is None or not columns:
                yield self._whole(pieces, columns)
                return
            for i in range(len(self.piece_rows)):
                yield from self._streamed(pieces, i, columns)

    def _whole(self, pieces: Pieces, columns: Sequence[str]) -> Iterator[Rows | Bad]:
        def read(start: int, stop: int) -> pa.Table:
            return pieces.read(self.start + start, self.start + stop, columns)

        for start, stop, table in sifted(0, len(self.piece_rows), read):
            if isinstance(table, str):
                yield self._bad(pieces, start, table)
            else:
                first_row, rows = self._first_row(start), sum(self.piece_rows[start:stop])
                yield Rows(first_row=first_row, rows=rows, table=table)

    def _streamed(
        self, pieces: Pieces, i: int, columns: Sequence[str]
    ) -> Iterator[Iterator[Rows | Bad]]:
        piece = self.start + i
        rows = self.batch_rows or 1
        try:
            if self.lenient:
                for _ in pieces.stream(piece, columns, rows):
                    pass
            row = self._first_row(i)
            stream = pieces.stream(piece, columns, rows)
            while (table := next(stream, None)) is not None:
                # An iterator lets go of what it gave; so the table is held by who works on it.
                found = iter([Rows(first_row=row, rows=table.num_rows, table=table)])
                row += table.num_rows
                del table
                yield found
        except (pa.ArrowInvalid, OSError) as error:
            if is_unreached(error):
                raise
            yield iter([self._bad(pieces, i, first_line(error))])

    def _first_row(self, i: int) -> int:
        return self.first_row + sum(self.piece_rows[:i])

    def _bad(self, pieces: Pieces, i: int, reason: str) -> Bad:
        return Bad(
            first_row=self._first_row(i),
            rows=self.piece_rows[i],
            reason=reason,
            byte=pieces.byte(self.start + i),
        )


@contextmanager
def opened(kind: str, open_: Callable[[Source], Pieces], source: Source) -> Iterator[Pieces]:
    """An open file.

    Raises:
        DataError: if it is not of this kind, or damaged.
        StorageError: if it cannot be read.
    """
    try:
        yield open_(source)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{source} is not a readable {kind} file: {first_line(error)}") from error
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        if error.errno is None:
            raise DataError(
                f"{source} is not a readable {kind} file: {first_line(error)}"
            ) from error
        raise StorageError(f"cannot read {source}: {error.strerror}") from error


def find(kind: str, open_: Callable[[Source], Pieces], source: Source, wish: Wish) -> Found:
    """The columns and stretches of a file.

    Raises:
        DataError: if it is not of this kind.
        StorageError: if it cannot be read.
    """
    with opened(kind, open_, source) as pieces:
        rows = np.array([pieces.rows(i) for i in range(pieces.count)], np.int64)
        sizes = np.maximum(pieces.sizes(rows, wish), 1)
        return Found(
            source=source,
            schema=pieces.schema,
            names=tuple(pieces.schema.names),
            stretches=tuple(
                PieceStretch(
                    source=source,
                    kind=kind,
                    open=open_,
                    start=start,
                    piece_rows=tuple(rows[start:stop].tolist()),
                    first_row=int(rows[:start].sum()),
                    batch_rows=batch_rows,
                    lenient=wish.lenient,
                )
                for start, stop, batch_rows in _cut(rows, sizes, wish.partition_bytes)
            ),
            size_bytes=int(sizes.sum()),
        )


def estimated_sizes(
    pieces: Pieces, rows: np.ndarray, columns: Sequence[str], file_bytes: int
) -> np.ndarray:
    """The bytes of the pieces in memory, from the first of them, or else from the file's length."""
    size, share = file_bytes, max(1, int(rows.sum()))
    if len(rows) and rows[0]:
        with suppress(pa.ArrowInvalid, OSError):
            size, share = pieces.read(0, 1, columns).nbytes, int(rows[0])
    return np.asarray(rows * size // share, np.int64)


def valid_texts(table: pa.Table) -> pa.Table:
    """The same table, of which the texts are UTF-8.

    Raises:
        pa.ArrowInvalid: if one is not.
    """
    texts = [
        i
        for i, field in enumerate(table.schema)
        if not (pa.types.is_primitive(field.type) or pa.types.is_null(field.type))
    ]
    table.select(texts).validate(full=True)
    return table


def sliced(table: pa.Table, rows: int) -> Iterator[pa.Table]:
    """A table in slices of so many rows, the last one shorter."""
    for start in range(0, table.num_rows, rows):
        yield table.slice(start, rows)


def count_rows(read: Callable[[str], int], names: Sequence[str]) -> int:
    """The rows of a piece, from the first column that can be read.

    Raises:
        OSError or pa.ArrowInvalid: if none can.
    """
    for name in names[:-1]:
        with suppress(pa.ArrowInvalid, OSError):
            return read(name)
    return read(names[-1])


def _cut(
    rows: np.ndarray, sizes: np.ndarray, partition_bytes: int
) -> Iterator[tuple[int, int, int | None]]:
    """Start and stop of near-equal stretches, and how many rows of them to read at once."""
    total = int(sizes.sum())
    if not rows.sum():
        return
    count = -(-total // partition_bytes)
    # Cut where the middle of a piece passes each share, so that the partitions are about equal.
    middles = np.cumsum(sizes) - sizes / 2
    shares = np.minimum((middles * count / total).astype(np.int64), count - 1)
    starts = np.flatnonzero(np.diff(shares, prepend=-1)).tolist()
    for start, stop in zip(starts, [*starts[1:], len(shares)], strict=True):
        held, size = int(rows[start:stop].sum()), int(sizes[start:stop].sum())
        if held:
            large = size > 2 * partition_bytes
            yield start, stop, max(1, held * partition_bytes // size) if large else None
