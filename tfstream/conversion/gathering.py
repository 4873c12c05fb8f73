"""What may be given as a source, and the sources that it means."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Union

import pyarrow.dataset as ds

from tfstream import storage
from tfstream.conversion import dataset_source, frame_source, sources
from tfstream.conversion.reading import Source
from tfstream.conversion.sources import Sources
from tfstream.conversion.workspace import PARTITIONS
from tfstream.errors import StorageError
from tfstream.format.manifest import UNFINISHED

if TYPE_CHECKING:
    import dask.dataframe as dd

SourceArgument = Union[
    str, os.PathLike[str], Sequence[str | os.PathLike[str]], ds.Dataset, "dd.DataFrame"
]
"""A file, a glob, a folder, or a list of them; a dataset of pyarrow; a DataFrame of Dask."""


@contextmanager
def gathered(
    source: SourceArgument, out: Path, temp: str | None, compute: frame_source.Compute
) -> Iterator[Sources]:
    """The sources that are meant; what had to be computed for them goes at the end.

    Args:
        source: what was given.
        out: the folder of the data set; locked; files for the partitions of a DataFrame lie in it.
        temp: another folder for them.
        compute: `Scheduler.compute`.

    Raises:
        UsageError: if it means nothing that can be converted.
        DataError: if a partition of a DataFrame is no table.
        StorageError: if it cannot be written.
    """
    if isinstance(source, ds.Dataset):
        yield dataset_source.discover(source)
    elif _is_frame(source):
        # The same at each call: what a dead one left is written over.
        name = hashlib.sha256(str(out).encode()).hexdigest()[:16]
        folder = (
            out / UNFINISHED / PARTITIONS
            if temp is None
            else Path(temp) / f"tfstream-partitions-{name}"
        )
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise StorageError(
                f"cannot make the folder {error.filename}: {error.strerror}"
            ) from error
        try:
            yield frame_source.discover(source, folder, compute)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    else:
        yield sources.discover(source)


def sha256(source: Source) -> str:
    """SHA-256 of a file, in hex; of the values of what is no file.

    Raises:
        StorageError: if it cannot be read.
    """
    return source.sha256 or storage.sha256(source.path)


def _is_frame(source: SourceArgument) -> bool:
    # Who has one has loaded this module; for others it is not worth its time.
    frames = sys.modules.get("dask.dataframe")
    return frames is not None and isinstance(source, frames.DataFrame)
