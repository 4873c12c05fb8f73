"""The files of the index: where they lie, and their bytes checked."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from tfstream import storage
from tfstream.errors import CorruptionError, DataError

_GENERATIONS = "generations"


def generation_folder(folder: Path, generation: int) -> Path:
    """Where shards, provenance and index of a generation lie: those of the first in the folder."""
    return folder / _GENERATIONS / str(generation) if generation else folder


def check_paths(paths: list[str], where: Path) -> None:
    """Refuse a path that could lead out of the folder that it is relative to.

    Raises:
        DataError: with the path.
    """
    for text in paths:
        path = PurePosixPath(text)
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"{text!r} is not a path inside the data set. Where: {where}")


def path_of(folder: Path, generation: int, name: str) -> Path:
    """Where a table of the index lies."""
    return generation_folder(folder, generation) / "index" / f"{name}.parquet"


def read_table(path: Path, sha256: str) -> pa.Table:
    """A table, whose bytes are checked before anything of them is read.

    Raises:
        StorageError: if it cannot be read.
        CorruptionError: if it is not what was written.
    """
    data = storage.read(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CorruptionError(
            f"{path} is damaged: its SHA-256 differs; restore it or convert again"
        )
    try:
        # In this thread: Arrow's own may still hold the bytes when Python ends, which aborts it.
        return pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise CorruptionError(f"{path} is damaged: {error}; restore it or convert again") from error
