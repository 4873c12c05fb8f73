"""Files, read in ranges and published all or nothing."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tfstream.errors import StorageError, UsageError

_HASH_CHUNK = 1 << 20
_FLUSHES = 32
DRAFT = ".draft"
"""How the names of files end that are being written."""


def local_path(path: str | os.PathLike[str]) -> Path:
    """The path, if it is a local one.

    Raises:
        UsageError: for a URL.
    """
    text = os.fspath(path)
    if "://" in text:
        raise UsageError(f"{text.split('://')[0]}:// is not supported yet; give a local path")
    return Path(text)


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


def read(path: Path) -> bytes:
    """A whole file.

    Raises:
        StorageError: if it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex.

    Raises:
        StorageError: if it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_HASH_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()
