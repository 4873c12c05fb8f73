"""Tables too large for memory, streamed to Keras, every step traceable to its source rows.

The floors, from the ground up:

- `errors`, `remote`, `remote_path`, `storage`, `arrays`, `spec`, `entries`, `share`, `order`,
  `fingerprint`, `cursor`, `skips`: what every room may use.
- `format`: what lies on disk. No TensorFlow, no Dask.
- `conversion`: sources → shards, by Dask. No TensorFlow.
- `pipeline`: shards → tf.data.Dataset. No Dask.
- `lineage`: callback, run log, trace.
- `arguments`, `cells`, `cli`, `demo`, `display`, `evidence`, `questions`, `screen`: the roof.

Importing the package loads neither TensorFlow nor Dask; each public name loads what it needs when
first used.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfstream.conversion.gathering import SourceArgument
    from tfstream.conversion.options import ConvertOptions
    from tfstream.conversion.progress import Progress, ProgressCallback
    from tfstream.cursor import Cursor
    from tfstream.lineage.callback import LineageCallback
    from tfstream.lineage.run import Run, open_run
    from tfstream.pipeline.checkpoint import CheckpointCallback
    from tfstream.pipeline.options import StreamOptions
    from tfstream.pipeline.padding import Padded
    from tfstream.pipeline.shards import Shards
    from tfstream.pipeline.stream import Stream

    __version__: str

__all__ = [
    "CheckpointCallback",
    "ConvertOptions",
    "Cursor",
    "LineageCallback",
    "Padded",
    "Progress",
    "Run",
    "Shards",
    "Stream",
    "StreamOptions",
    "__version__",
    "append",
    "convert",
    "forget",
    "open",
    "open_run",
    "repair",
]

_HOMES = {
    "CheckpointCallback": "tfstream.pipeline.checkpoint",
    "ConvertOptions": "tfstream.conversion.options",
    "Cursor": "tfstream.cursor",
    "LineageCallback": "tfstream.lineage.callback",
    "Padded": "tfstream.pipeline.padding",
    "Progress": "tfstream.conversion.progress",
    "Run": "tfstream.lineage.run",
    "Shards": "tfstream.pipeline.shards",
    "Stream": "tfstream.pipeline.stream",
    "StreamOptions": "tfstream.pipeline.options",
    "open_run": "tfstream.lineage.run",
}


def convert(  # noqa: PLR0913 - a source, a place, and what Dask runs on
    source: SourceArgument,
    out: str | os.PathLike[str],
    *,
    group_by: Sequence[str],
    options: ConvertOptions | None = None,
    scheduler: Any = None,  # noqa: ANN401 - a name, an address or a distributed.Client
    progress: ProgressCallback | None = None,
) -> Shards:
    """Convert tables into grouped TFRecord shards with Dask.

    If a conversion was stopped, the same call goes on where it was.

    Args:
        source: Parquet, CSV, JSON lines, Arrow IPC or ORC files: a path, a glob, a folder, or a
            list of them, also as URLs; or a `pyarrow.dataset.Dataset` of such local files, whose
            folders may tell columns; or a `dask.dataframe.DataFrame`, each partition of which is a
            source.
        out: the folder of the data set, which must not exist, be empty, or hold what an equal call
            left unfinished; or a URL, to which it is delivered from below `options.temp`.
        group_by: columns, or year, month, day, hour, date or weekday of a timestamp column, in a
        zone if one is
            given: `month(ts, 'America/New_York')`, with `AS name` for another name.
        options: columns and their types, what becomes of bad rows, sizes.
        scheduler: None for threads, "processes", or a `distributed.Client` or its address.
        progress: called with a `Progress` when a stage begins, and as its tasks end.

    Returns:
        The open data set.

    Raises:
        UsageError: if the call asks for what cannot be, such as a column that is not there.
        DataError: if a source cannot be read or has a type that is not supported.
        ResumeError: if the output folder holds something else, another conversion is at work
            there, or a source has changed since one was stopped.
        StorageError: if there is no space or a file cannot be written.
    """
    run = importlib.import_module("tfstream.conversion.convert").convert
    run(source, out, group_by=group_by, options=options, scheduler=scheduler, progress=progress)
    return open(out)


def append(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    shards: str | os.PathLike[str],
    *,
    options: ConvertOptions | None = None,
    scheduler: Any = None,  # noqa: ANN401 - a name, an address or a distributed.Client
    progress: ProgressCallback | None = None,
) -> Shards:
    """Add new source files to a data set: a new generation of shards, with row ids at the end.

    No written block and no row id changes. The data set gets a new digest, which names that of its
    parent; `open(folder, digest=...)` opens it as it was, and runs on it stay traceable. A group
    whose key was there before gets a second entry in `groups`, with its new rows.

    Args:
        source: files with the columns and types of the data set, below the folder at which the
            names of its sources begin.
        shards: the folder of the data set.
        options: as for `convert`; sizes of blocks and shards stay those of the data set.
        scheduler: as for `convert`.
        progress: as for `convert`.

    Returns:
        The open data set.

    Raises:
        UsageError: if there is no data set, or a file is a source of it already or lies elsewhere.
        DataError: if a source cannot be read, has other columns or types, has nulls where the data
            set has room for none, or would make a vocabulary too large.
        ResumeError: if another conversion is at work there, or a source has changed since one was
            stopped.
        StorageError: if there is no space or a file cannot be written.
    """
    run = importlib.import_module("tfstream.conversion.convert").append
    run(source, shards, options=options, scheduler=scheduler, progress=progress)
    return open(shards)


def repair(
    shards: str | os.PathLike[str],
    *,
    scheduler: Any = None,  # noqa: ANN401 - a name, an address or a distributed.Client
    progress: ProgressCallback | None = None,
) -> list[Any]:
    """Make the damaged files of a data set again from its sources.

    All sources are converted again, beside the data set, by the options that it keeps. Only if the
    result has the data set's digest are files replaced, and only those that differ. Files that the
    data set does not know stay.

    Args:
        shards: the folder of the data set, whose manifest and index must be whole.
        scheduler: as for `convert`.
        progress: as for `convert`.

    Returns:
        The findings of `verify` before, empty if there was nothing to do.

    Raises:
        UsageError: if there is no data set, or its sources were no files.
        DataError: if a source is missing or has changed, or makes other rows; nothing is changed.
        StorageError: if there is no space or a file cannot be written.
    """
    run = importlib.import_module("tfstream.conversion.repair").repair
    found: list[Any] = run(shards, scheduler=scheduler, progress=progress)
    return found


def forget(
    shards: str | os.PathLike[str],
    *,
    where: str | None = None,
    row_ids: Sequence[int] | None = None,
) -> Shards:
    """Remove the values of some rows from all files of a data set, for good.

    The shards with these rows are written again, the values zero, null or empty; so are statistics
    and vocabularies, whose other codes stay. No subset has the rows any more, their ids stay theirs
    and the data set has a new digest that names the one before. What held the values is removed
    then; as it was before nobody can open the data set, and `verify` of a run on that says when
    its rows were forgotten. A call that is killed leaves one or the other, and the same call again
    comes to the end. Copies behind URLs are not touched, but blocks of them are removed from this
    machine's folder for blocks (TFSTREAM_CACHE). `tfstream forget --dry-run` tells which runs saw
    the rows, and where else values may be: sources, rows that could not be read, checkpoints.

    Args:
        shards: the folder of the data set, on this machine. Nothing else may read it meanwhile.
        where: a condition, such as "tailnum = 'N14228'".
        row_ids: row ids instead.

    Returns:
        The open data set.

    Raises:
        UsageError: if there is no data set, no such column or row, or not one of the two is given.
        ResumeError: if a conversion is at work there, or has not come to its end.
        CorruptionError: if a shard that holds such a row is damaged; nothing is changed.
        StorageError: if a file cannot be written; nothing is changed.
    """
    run = importlib.import_module("tfstream.conversion.forget")
    chosen = None if row_ids is None else [int(row) for row in row_ids]
    run.forget(run.planned(shards, where=where, row_ids=chosen))
    return open(shards)


def open(folder: str | os.PathLike[str], *, digest: str | None = None) -> Shards:  # noqa: A001 - `tfstream.open` reads as it is meant
    """Open a data set that `convert` made.

    Args:
        folder: where it lies; a path or a URL.
        digest: that of the data set before an append, to open it as it was then.

    Raises:
        UsageError: if there is none, or none of this digest.
        DataError: if it is damaged or of another format.
    """
    home = importlib.import_module("tfstream.pipeline.shards")
    shards: Shards = home.open_shards(folder, digest)
    return shards


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the public names, whatever they are
    if name == "__version__":
        return version("tfstream")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tfstream' has no attribute {name!r}")
