"""Files, read in ranges and published all or nothing."""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

import pyarrow as pa

from tfstream import remote
from tfstream.errors import StorageError, UsageError
from tfstream.remote_path import RemotePath

Place = Path | RemotePath
"""Where something lies: a local path, or a URL."""

PlaceT = TypeVar("PlaceT", Path, Place)
"""What lies below a local path has one too."""

_HASH_CHUNK = 1 << 20
_FLUSHES = 32
_REQUESTS = 16
"""Questions to a store at the same time."""
_LISTED = 8
"""So many objects in a folder are rather listed than asked for one by one."""
DRAFT = ".draft"
"""How the names of files end that are being written."""


def place(text: str | os.PathLike[str] | RemotePath) -> Place:
    """The place that a path or a URL means; `file://` is a local path.

    Raises:
        UsageError: if the URL's scheme is unknown, or its driver is not installed.
    """
    if isinstance(text, RemotePath):
        return text
    found = os.fspath(text)
    if not remote.is_url(found):
        return Path(found)
    if remote.scheme(found) == "file":
        return Path(found.split("://", 1)[1])
    remote.check(found)
    return RemotePath(found.rstrip("/"))


def local_path(path: str | os.PathLike[str] | RemotePath) -> Path:
    """The path, if it is a local one.

    Raises:
        UsageError: for a URL.
    """
    found = place(path)
    if isinstance(found, RemotePath):
        raise UsageError(f"{found} must lie on this machine; give a local path")
    return found


@contextmanager
def publishing(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """A draft beside `path`, open for writing, that takes its place when all went well.

    Args:
        path: the final name; its folders are made.
        durable: whether the bytes are on the disk before the name is. Where one file makes many
            count, `flush` before that one does it for all of them at once.

    Raises:
        StorageError: if it cannot be written; what was at `path` stays.
    """
    # No other attempt has this name, on another host or in another thread neither.
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}{DRAFT}")
    try:
        with _created(draft) as file:
            try:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
                draft.replace(path)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def _created(path: Path) -> IO[bytes]:
    try:
        return path.open("wb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")


def publish(path: Path, data: bytes) -> None:
    """Write a whole file, or leave what was there.

    Raises:
        StorageError: if it cannot be written.
    """
    with publishing(path) as file:
        file.write(data)


def create(path: Path, data: bytes) -> None:
    """Write a whole file that must be new: at no time is there a part of it.

    Raises:
        StorageError: if there is one already, or it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}{DRAFT}")
    publish(draft, data)
    try:
        # Unlike a rename, a link takes nobody's place.
        os.link(draft, path)
    except OSError as error:
        raise StorageError(f"cannot create {path}: {error.strerror or error}") from error
    finally:
        draft.unlink()


def flush(folder: Path) -> None:
    """Wait until all that was published in a folder and below is on the disk.

    Raises:
        StorageError: if it cannot be.
    """
    # Many at once: the disk then writes them together.
    with ThreadPoolExecutor(_FLUSHES) as pool:
        for _ in pool.map(_sync, [folder, *folder.rglob("*")]):
            pass


def _sync(path: Path) -> None:
    try:
        place = os.open(path, os.O_RDONLY)
        try:
            os.fsync(place)
        finally:
            os.close(place)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def read(path: Place) -> bytes:
    """A whole file.

    Raises:
        StorageError: if it cannot be read.
    """
    with _told(path):
        return path.read_bytes()


def read_range(path: Place, offset: int, size_bytes: int) -> bytes:
    """A stretch of a file; less where a local file ends before.

    Raises:
        StorageError: if it cannot be read, or an object ends before.
    """
    if isinstance(path, RemotePath):
        return remote.read_range(path.url, offset, size_bytes)
    with _told(path), path.open("rb") as file:
        file.seek(offset)
        # The number may be a stranger's: no room for more bytes than there are.
        return file.read(min(size_bytes, os.fstat(file.fileno()).st_size))


def is_file(path: Place) -> bool:
    """Whether there is a file.

    Raises:
        StorageError: if that cannot be asked for, as of a name that is too long.
    """
    with _told(path):
        return path.is_file()


def size(path: Place) -> int:
    """Number of bytes of a file.

    Raises:
        StorageError: if it cannot be asked for.
    """
    if isinstance(path, RemotePath):
        return remote.size(path.url)
    with _told(path):
        return path.stat().st_size


def sizes(folder: Place, names: Sequence[str]) -> list[int]:
    """Numbers of bytes of files in a folder and below; of objects many at once.

    Args:
        folder: where they lie.
        names: the way to each from there, with slashes.

    Raises:
        StorageError: if one cannot be asked for; of several, the first.
    """
    if not isinstance(folder, RemotePath):
        return [size(folder / name) for name in names]
    homes = Counter(PurePosixPath(name).parent for name in names)
    listed: dict[str, int] = {}
    with ThreadPoolExecutor(_REQUESTS) as pool:
        many = [home for home, count in homes.items() if count >= _LISTED]
        for home, found in zip(many, pool.map(_listed, [folder / h for h in many]), strict=True):
            listed |= {(home / name).as_posix(): number for name, number in found.items()}
        # What is not in a list is asked for by its name, which tells why if it cannot be had.
        asked = pool.map(lambda n: listed[n] if n in listed else size(folder / n), names)
        return list(asked)


def _listed(folder: RemotePath) -> dict[str, int]:
    """What a store tells of the objects in a folder; nothing if it does not list them."""
    if remote.scheme(folder.url) in {"http", "https"}:
        return {}
    try:
        return remote.below(folder.url)
    except StorageError:
        # Who may read objects may not always list them.
        return {}


def relative(path: Place, start: Place) -> str:
    """The way from a folder to what lies in it, with slashes.

    Raises:
        ValueError: if it does not lie there.
    """
    if isinstance(path, RemotePath):
        return path.relative_to(start).as_posix()
    return path.relative_to(str(start)).as_posix()


def lies_in(path: Place, folder: Place) -> bool:
    """Whether it is called so that it lies in the folder or below."""
    try:
        relative(path, folder)
    except ValueError:
        return False
    return True


def below(folder: Place) -> list[str]:
    """The files in a folder and below, sorted: the way to each from there, with slashes.

    Raises:
        StorageError: if a URL cannot be listed.
    """
    if isinstance(folder, RemotePath):
        return list(remote.below(folder.url))
    return sorted(relative(path, folder) for path in folder.rglob("*") if not path.is_dir())


@contextmanager
def mapped(path: Place) -> Iterator[mmap.mmap]:
    """The bytes of a file that has some, as they are needed.

    An object is copied to the folder for temporary files, and gone at the end.

    Raises:
        StorageError: if it cannot be read or copied.
    """
    with _told(path), ExitStack() as stack:
        if isinstance(path, RemotePath):
            file: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
            file.writelines(remote.parts(path.url))
            file.flush()
        else:
            file = stack.enter_context(path.open("rb"))
        yield stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def state(path: Place) -> tuple[int, int] | None:
    """Number of bytes, and a number that changes with the content; None if it is not there.

    The number is the time of change in nanoseconds since 1970, or of an object see `remote.state`.

    Raises:
        StorageError: if that cannot be seen.
    """
    if isinstance(path, RemotePath):
        return remote.state(path.url)
    with _told(path):
        try:
            found = path.stat()
        except FileNotFoundError:
            return None
        return found.st_size, found.st_mtime_ns


def for_arrow(path: Place) -> Any:  # noqa: ANN401 - whatever pyarrow takes
    """A file as pyarrow's readers take it: they read the ranges that they need."""
    return path.open(buffering=0) if isinstance(path, RemotePath) else path


@contextmanager
def told_by_store(file: Any) -> Iterator[None]:  # noqa: ANN401 - as `for_arrow` gives it
    """Raise what a store answered, where pyarrow makes another error of it.

    Raises:
        StorageError: the store's.
    """
    try:
        yield
    except (pa.ArrowException, OSError):
        if failure := getattr(file, "failure", None):
            raise failure from None
        raise


def sha256(path: Place) -> str:
    """SHA-256 of a file's bytes, in hex.

    Raises:
        StorageError: if it cannot be read.
    """
    if isinstance(path, RemotePath):
        return remote.sha256(path.url)
    digest = hashlib.sha256()
    with _told(path), path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _told(path: Place) -> Iterator[None]:
    """Tell what fails with the name of the file; what names it already passes."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
