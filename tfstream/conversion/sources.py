"""Which files a conversion reads, and what each is called.

A new kind of file is a line in `KINDS` and a module that says `find(source, wish)`.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

import pyarrow as pa

from tfstream import remote, storage
from tfstream.conversion import (
    csv_source,
    ipc_source,
    json_source,
    orc_source,
    parquet_source,
)
from tfstream.conversion.reading import FindOut, Found, Source, Wish
from tfstream.errors import DataError, StorageError, UsageError
from tfstream.remote_path import RemotePath
from tfstream.storage import Place

SourceArgument = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A file, a glob, a folder, or a list of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of file."""

    name: str
    """What people call it."""
    suffixes: tuple[str, ...]
    find: Callable[[Sequence[Source], Wish, FindOut], list[Found]]
    """The columns and stretches of files, which it may run tasks to find out."""


def _each(find: Callable[[Source, Wish], Found]) -> Callable[..., list[Found]]:
    """A task a file, for kinds whose files tell their types."""

    def find_all(files: Sequence[Source], wish: Wish, run: FindOut) -> list[Found]:
        return run("read footers", find, [(source, wish) for source in files])

    return find_all


KINDS = (
    Kind(name="Parquet", suffixes=(".parquet", ".pq"), find=_each(parquet_source.find)),
    Kind(name="CSV", suffixes=(".csv",), find=csv_source.find),
    Kind(name="JSON lines", suffixes=(".jsonl", ".ndjson"), find=json_source.find),
    Kind(name="Arrow IPC", suffixes=(".arrow", ".feather", ".ipc"), find=_each(ipc_source.find)),
    Kind(name="ORC", suffixes=(".orc",), find=_each(orc_source.find)),
)
_BY_SUFFIX: Mapping[str, Kind] = {suffix: kind for kind in KINDS for suffix in kind.suffixes}
_SUFFIXES = ", ".join(_BY_SUFFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """All files of a conversion, sorted by name."""

    root: Place | None
    """The deepest folder that holds all of them; None for what is no file."""
    kind: Kind
    """What they are, by their suffix."""
    files: tuple[Source, ...] = field(default_factory=tuple)


def discover(source: SourceArgument) -> Sources:
    """The files that a file, a glob, a folder or a list of them means; each once.

    In a folder and below, every file counts that has one of the suffixes, but for names that begin
    with a dot or an underscore. The names of folders are names: columns come of them in a
    `pyarrow.dataset.Dataset` only.

    Raises:
        UsageError: if one names nothing, has another suffix, or kinds are mixed.
    """
    listed = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    if not listed:
        raise UsageError("the list of sources is empty; name at least one file, glob or folder")
    return named({path: {} for one in listed for path in _files(storage.place(one))})


def named(found: Mapping[Place, Mapping[str, pa.Scalar]]) -> Sources:
    """The sources that these files are.

    Args:
        found: the columns that each file's folders tell, by its path.

    Raises:
        UsageError: if one has another suffix, or kinds or places without a common root are mixed.
    """
    columns = {_absolute(path): told for path, told in found.items()}
    kinds: dict[str, tuple[Kind, Place]] = {}
    for path in sorted(columns, key=str):
        kind = _kind(path)
        kinds.setdefault(kind.name, (kind, path))
    if len(kinds) > 1:
        listed = " and ".join(f"{name} ({path})" for name, (_, path) in sorted(kinds.items()))
        raise UsageError(f"the sources mix {listed}; convert them one after the other")
    root = _root(list(columns))
    names = sorted((storage.relative(path, root), path) for path in columns)
    files = tuple(
        Source(
            ordinal=i,
            path=path,
            name=name,
            size_bytes=size_bytes,
            mtime_ns=mtime_ns,
            folder_columns=columns[path],
        )
        for i, (name, path) in enumerate(names)
        for size_bytes, mtime_ns in [_state(path)]
    )
    return Sources(root=root, kind=next(iter(kinds.values()))[0], files=files)


def _absolute(path: Place) -> Place:
    # Links stay what they are called.
    return path if isinstance(path, RemotePath) else Path(os.path.abspath(path))  # noqa: PTH100


def _root(paths: Sequence[Place]) -> Place:
    """The deepest folder that holds all of them."""
    local = [path.parent for path in paths if isinstance(path, Path)]
    if len(local) == len(paths):
        return Path(os.path.commonpath(local))
    root = paths[0].parent
    while not all(storage.lies_in(path, root) for path in paths):
        if root.parent == root:
            other = next(path for path in paths if not storage.lies_in(path, root))
            raise UsageError(
                f"{paths[0]} and {other} have no folder in common, which their names would begin "
                "at; convert them one after the other"
            )
        root = root.parent
    return root


def _state(path: Place) -> tuple[int, int]:
    found = storage.state(path)
    if found is None:
        what = "went; it"
        if isinstance(path, Path) and path.is_symlink():
            what = f"is a link to {path.readlink()}, which"
        raise UsageError(f"{path} {what} is not there; name a file that is")
    return found


def refuse_changed(sources: Sources) -> None:
    """Nothing, if all files are still those that `discover` found.

    Raises:
        DataError: if one has changed or gone, naming it.
    """
    for source in sources.files:
        if source.sha256:
            continue
        found = storage.state(source.path)
        if found is None:
            raise DataError(f"{source.path} went while it was converted")
        if found != (source.size_bytes, source.mtime_ns):
            raise DataError(f"{source.path} was changed while it was converted; convert again")


def _kind(path: Place) -> Kind:
    kind = _BY_SUFFIX.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"{path} has none of the suffixes {_SUFFIXES}; name files that do")
    return kind


def _files(path: Place) -> Iterable[Place]:
    if path.is_file():
        return [path]
    if path.is_dir():
        files = _below(path)
        if not files:
            raise UsageError(f"the folder {path} has no file with a suffix {_SUFFIXES}")
        return files
    files = _matching(path)
    if not files:
        raise UsageError(
            f"there is no source {path}; name a file, a glob that matches one, or a folder"
        )
    return files


def _matching(pattern: Place) -> Sequence[Place]:
    """The files that a glob matches; what lies below the folders, if they are local."""
    if isinstance(pattern, RemotePath):
        return [RemotePath(url) for url in remote.matching(pattern.url)]
    matches = [Path(match) for match in glob.glob(str(pattern), recursive=True)]  # noqa: PTH207 - absolute patterns too
    return [file for match in matches for file in (_below(match) if match.is_dir() else [match])]


def _below(folder: Place) -> Sequence[Place]:
    if isinstance(folder, RemotePath):
        names = [PurePosixPath(name) for name in remote.below(folder.url)]
        return [folder / name for name in names if _counts(name)]

    def refuse(error: OSError) -> None:
        # A folder that is passed over would be rows that are missing in silence.
        raise StorageError(f"cannot look into {error.filename}: {error.strerror}") from error

    return [
        file
        for at, _, names in os.walk(folder, onerror=refuse)
        for file in (Path(at, name) for name in names)
        if _counts(file.relative_to(folder)) and not file.is_dir()
    ]


def _counts(path: PurePath) -> bool:
    """Whether a file of this name in a folder is a source."""
    is_hidden = any(part.startswith((".", "_")) for part in path.parts)
    return path.suffix.lower() in _BY_SUFFIX and not is_hidden
