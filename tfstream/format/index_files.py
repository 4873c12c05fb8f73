"""The files of the index: where they lie, and their bytes checked."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfstream import storage
from tfstream.errors import CorruptionError, DataError
from tfstream.remote_path import RemotePath
from tfstream.storage import Place, PlaceT

_GENERATIONS = "generations"


def generation_folder(folder: PlaceT, generation: int) -> PlaceT:
    """Where shards, provenance and index of a generation lie: those of the first in the folder."""
    return folder / _GENERATIONS / str(generation) if generation else folder


def check_paths(paths: list[str], where: Place) -> None:
    """Refuse a path that could lead out of the folder that it is relative to.

    Raises:
        DataError: with the path.
    """
    for text in paths:
        path = PurePosixPath(text)
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"{text!r} is not a path inside the data set. Where: {where}")


def refuse_links(folder: Place, path: Place) -> None:
    """Refuse a file of a data set that a link puts outside its folder; objects are no links.

    Raises:
        DataError: with where it leads.
    """
    if isinstance(path, RemotePath) or isinstance(folder, RemotePath):
        return
    real = os.path.realpath(path)
    if not Path(real).is_relative_to(os.path.realpath(folder)):
        raise DataError(f"{path} is a link to {real}, outside the data set; copy the file instead")


def path_of(folder: PlaceT, generation: int, name: str) -> PlaceT:
    """Where a table of the index lies."""
    return generation_folder(folder, generation) / "index" / f"{name}.parquet"


def read_table(path: Place, sha256: str) -> pa.Table:
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


def check_numbers(shards: pa.Table, blocks: pa.Table, folder: Place) -> None:
    """Refuse an index whose blocks do not tile its rows, or do not lie in their shards.

    Raises:
        DataError: with the first block that does not.
    """
    shard, offset, size, rows, first = (
        np.asarray(blocks[name].to_numpy(), np.int64)
        for name in ("shard", "offset", "size_bytes", "rows", "first_row")
    )
    lengths = np.asarray(shards["size_bytes"].to_numpy(), np.int64)
    is_known = (shard >= 0) & (shard < len(lengths))
    length = lengths[np.where(is_known, shard, 0)] if len(lengths) else np.zeros(len(shard), int)
    right = is_known & (rows > 0) & (first == np.cumsum(rows) - rows)
    # Differences, since sums may overflow.
    right &= (offset >= 0) & (size > 0) & (offset <= length) & (size <= length - offset)
    if not right.all():
        block = int(np.argmin(right))
        raise DataError(
            f"block {block} does not follow on the one before, or lies outside its shard. "
            f"Where: {folder}: index/blocks.parquet"
        )
