"""What every kind of source has in common: files, stretches of their rows, and rows that are bad.

A kind of source is a module that finds, for each file, its columns, its rows, and the stretches
that one task reads at once. It tells rows that it cannot read from those that it can; whether that
ends the conversion is not its business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from tfstream.errors import DataError, StorageError
from tfstream.storage import Place

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file, or one partition of a DataFrame."""

    ordinal: int
    """Its place among the sources, from 0."""
    path: Place
    """Where it lies now."""
    name: str
    """Its path relative to the common root, with slashes: what provenance calls it."""
    size_bytes: int
    """Length of the file."""
    mtime_ns: int = 0
    """When it was last changed, in nanoseconds since 1970; of an object see `remote.state`."""
    folder_columns: Mapping[str, pa.Scalar] = field(default_factory=dict)
    """Columns that the names of its folders tell, with the value that all of its rows have."""
    sha256: str | None = None
    """Hash of its values, where no file stays whose bytes could be hashed."""

    def __str__(self) -> str:
        """What an error calls it."""
        return self.name if self.sha256 else str(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Consecutive rows of a source that could be read."""

    first_row: int
    """0-based place of the first one in the source."""
    rows: int
    """How many; the table may have no column."""
    table: pa.Table
    line: Callable[[int], tuple[int, bytes]] | None = None
    """For text: the byte and the bytes of the i-th of these rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """Consecutive rows of a source that cannot be read; several if read as one."""

    first_row: int
    rows: int
    reason: str
    byte: int | None = None
    """Where in the file they begin, if that is known."""
    raw: bytes | None = None
    """The bytes themselves, for text."""

    def error(self, source: Source) -> DataError:
        """What to raise if they may not be left out."""
        last = self.first_row + self.rows - 1
        which = f"row {last}" if self.rows == 1 else f"rows {self.first_row} to {last}"
        where = "" if self.byte is None else f" at byte {self.byte}"
        return DataError(
            f"{source}: {which}{where} cannot be read: {self.reason}; "
            "mend the source, or leave such rows out by on_bad_rows='quarantine'"
        )


class FindOut(Protocol):
    """Runs tasks, as `Scheduler.run` does."""

    def __call__(
        self,
        stage: str,
        function: Callable[..., T],
        calls: Iterable[Sequence[Any]],
        *,
        size_bytes: int | None = None,
    ) -> list[T]:
        """The results of the function for each list of arguments, in order."""


class Stretch(Protocol):
    """Consecutive rows of one source that one task reads."""

    @property
    def source(self) -> Source:
        """The file."""

    @property
    def rows(self) -> int:
        """How many, those that cannot be read included."""

    def read(self, columns: Sequence[str]) -> Iterator[Iterable[Rows | Bad]]:
        """All of its rows in order, in pieces that fit in memory.

        Args:
            columns: which of the columns to read.

        Raises:
            StorageError: if the file cannot be read at all.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a kind of source knows of one file before its rows are read for good."""

    source: Source
    schema: pa.Schema
    """The columns that matter, or more, with the types that they have in the file."""
    names: tuple[str, ...]
    """All columns of the file, those too that do not matter."""
    stretches: tuple[Stretch, ...]
    """All of its rows, in order."""
    size_bytes: int
    """Bytes of its rows in memory; an estimate."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(stretch.rows for stretch in self.stretches)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How the files shall be cut and read."""

    partition_bytes: int
    columns: tuple[str, ...] | None
    """The columns that matter; all if None."""
    types: Mapping[str, pa.DataType]
    """Types to read columns of text as, by their names there, in place of those that are found."""
    lenient: bool
    """Whether rows that cannot be read are left out."""

    def wants(self, name: str) -> bool:
        """Whether a column is chosen, or one of its fields, which are chosen by dotted names."""
        return self.columns is None or any(
            chosen == name or chosen.startswith(f"{name}.") for chosen in self.columns
        )


def sifted(
    start: int, stop: int, read: Callable[[int, int], pa.Table]
) -> Iterator[tuple[int, int, pa.Table | str]]:
    """What can be read of [start, stop), found by halving what cannot.

    Yields:
        Start and stop of consecutive parts, with their table; of single ones with the reason why
        there is none.
    """
    try:
        table = read(start, stop)
    except (pa.ArrowInvalid, OSError) as error:
        if is_unreached(error):
            raise
        reason = first_line(error)
    else:
        yield start, stop, table
        return
    if stop - start == 1:
        yield start, stop, reason
        return
    middle = (start + stop) // 2
    yield from sifted(start, middle, read)
    yield from sifted(middle, stop, read)


def is_unreached(error: Exception) -> bool:
    """Whether bytes could not be had, which is no row that cannot be read.

    pyarrow also raises OSError, without a number, for bytes that do not decode.
    """
    has_number = isinstance(error, OSError) and error.errno is not None
    return has_number or isinstance(error, StorageError)


def first_line(error: Exception) -> str:
    """What an error says, without what follows on other lines."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
