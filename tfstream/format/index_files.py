"""The files of the index: where they lie, and their bytes checked."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pyarrow as pa

from tfstream import storage
from tfstream.errors import CorruptionError, DataError
from tfstream.format import parquet
from tfstream.remote_path import RemotePath
from tfstream.storage import Place, PlaceT

_GENERATIONS = "generations"

PARENT = "parent.json"
"""In the folder of a generation, the manifest that it followed."""


def generation_folder(folder: PlaceT, generation: int) -> PlaceT:
    """Where shards, provenance and index of a generation lie: those of the first in the folder."""
    return folder / _GENERATIONS / str(generation) if generation else folder


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


EVERY = "index*"
"""What the folders match that `name_of` gives."""


def name_of(revision: int) -> str:
    """The folder of an index inside its generation's, after so many forgettings."""
    return f"index-{revision}" if revision else "index"


def path_of(folder: PlaceT, generation: int, name: str, revision: int = 0) -> PlaceT:
    """Where a table of the index lies."""
    return generation_folder(folder, generation) / name_of(revision) / f"{name}.parquet"


def read_inside(folder: Place, path: Place) -> bytes:
    """A whole file of a data set.

    Raises:
        DataError: if a link puts it outside the folder.
        StorageError: if it cannot be read.
    """
    refuse_links(folder, path)
    return storage.read(path)


def read_table(folder: Place, path: Place, sha256: str) -> pa.Table:
    """A table, whose bytes are checked before anything of them is read.

    Raises:
        DataError: if a link puts it outside the folder.
        StorageError: if it cannot be read.
        CorruptionError: if it is not what was written.
    """
    data = read_inside(folder, path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CorruptionError(
            f"{path} is damaged: its SHA-256 differs; restore it or convert again"
        )
    return parquet.read(data, str(path))
