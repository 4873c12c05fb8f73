"""Which files a conversion reads, what each is called, and how they are cut into partitions."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import pyarrow as pa

from tfstream.errors import DataError, UsageError
from tfstream.storage import local_path

Kind = Literal["parquet", "csv"]
SourceArgument = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A file, a glob, a folder, or a list of them."""

_KINDS: Mapping[str, Kind] = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file."""

    ordinal: int
    """Its place among the sources, from 0."""
    path: Path
    """Where it lies now."""
    name: str
    """Its path relative to the common root, with slashes: what provenance calls it."""
    size_bytes: int
    """Length of the file."""
    mtime_ns: int
    """When it was last changed, in nanoseconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """All files of a conversion, sorted by name."""

    root: Path
    """The deepest folder that holds all of them."""
    kind: Kind
    """What they are, by their suffix."""
    files: tuple[Source, ...]


class Partition(Protocol):
    """Consecutive rows of one source that one task reads."""

    @property
    def source(self) -> Source:
        """The file."""

    @property
    def first_row(self) -> int:
        """0-based place of its first row in the file."""

    def read(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """Its rows in order, in pieces that fit in memory, with the columns and types of `schema`.

        Raises:
            DataError: if the file cannot be read, naming it.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is known of the sources before their rows are read for good."""

    schema: pa.Schema
    """The columns, with the types under which they are kept."""
    rows: tuple[int, ...]
    """Rows of each source."""
    partitions: tuple[Partition, ...]
    """In the order of (source, row)."""
    size_bytes: int
    """Bytes of all rows, uncompressed; an estimate."""

    @property
    def partition_rows(self) -> list[int]:
        """Rows of each partition: up to the next one of its source, or to the source's end."""
        rows = []
        for one, after in zip(self.partitions, [*self.partitions[1:], None], strict=True):
            if after is None or after.source.ordinal != one.source.ordinal:
                rows.append(self.rows[one.source.ordinal] - one.first_row)
            else:
                rows.append(after.first_row - one.first_row)
        return rows


def discover(source: SourceArgument) -> Sources:
    """The files that a file, a glob, a folder or a list of them means; each once.

    In a folder and below, every .parquet, .pq and .csv counts, but for names that begin with a dot
    or an underscore.

    Raises:
        UsageError: if one names nothing, has another suffix, or Parquet and CSV are mixed.
    """
    listed = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    if not listed:
        raise UsageError("the list of sources is empty; name at least one file, glob or folder")
    paths = [path for one in listed for path in _files(local_path(one))]
    found = sorted({Path(os.path.abspath(path)) for path in paths})  # noqa: PTH100 - links stay
    kinds: dict[Kind, Path] = {}
    for path in found:
        kinds.setdefault(_kind(path), path)
    if len(kinds) > 1:
        parquet, csv = kinds["parquet"], kinds["csv"]
        raise UsageError(
            f"the sources mix Parquet ({parquet}) and CSV ({csv}); convert them one after the other"
        )
    root = Path(os.path.commonpath([path.parent for path in found]))
    named = sorted((path.relative_to(root).as_posix(), path) for path in found)
    files = tuple(
        Source(
            ordinal=i, path=path, name=name, size_bytes=state.st_size, mtime_ns=state.st_mtime_ns
        )
        for i, (name, path) in enumerate(named)
        for state in [path.stat()]
    )
    return Sources(root=root, kind=next(iter(kinds)), files=files)


def refuse_differences(first: tuple[Source, pa.Schema], other: tuple[Source, pa.Schema]) -> None:
    """Nothing, if both sources have the same columns; their order may differ.

    Raises:
        DataError: if not, with both files and the first difference.
    """
    (a, left), (b, right) = first, other
    for name in (*left.names, *(name for name in right.names if name not in left.names)):
        types = [s.field(name).type if name in s.names else None for s in (left, right)]
        if types[0] != types[1]:
            has = [
                f"{f.path} has {'no such column' if t is None else t}"
                for f, t in zip((a, b), types, strict=True)
            ]
            raise DataError(
                f"the sources differ in column {name!r}: {', but '.join(has)}; "
                "give all of them the same columns and types"
            )


def refuse_changed(sources: Sources) -> None:
    """Nothing, if all files are still those that `discover` found.

    Raises:
        DataError: if one has changed or gone, naming it.
    """
    for source in sources.files:
        try:
            state = source.path.stat()
        except OSError as error:
            raise DataError(f"{source.path} went while it was converted") from error
        if (state.st_size, state.st_mtime_ns) != (source.size_bytes, source.mtime_ns):
            raise DataError(f"{source.path} was changed while it was converted; convert again")


def _kind(path: Path) -> Kind:
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise UsageError(
            f"{path} is neither .parquet, .pq nor .csv; name files of one of these kinds"
        )
    return kind


def _files(path: Path) -> Iterable[Path]:
    if path.is_dir():
        files = _below(path)
        if not files:
            raise UsageError(f"the folder {path} has no .parquet, .pq or .csv file")
        return files
    if path.is_file():
        return [path]
    matches = [Path(match) for match in glob.glob(str(path), recursive=True)]  # noqa: PTH207 - absolute patterns too
    files = [file for match in matches for file in (_below(match) if match.is_dir() else [match])]
    if not files:
        raise UsageError(
            f"there is no source {path}; name a file, a glob that matches one, or a folder"
        )
    return files


def _below(folder: Path) -> list[Path]:
    return [
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in _KINDS
        and not any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)
        and file.is_file()
    ]
