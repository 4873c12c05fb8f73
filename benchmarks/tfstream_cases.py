"""tfstream, with its defaults: features packed into one tensor, or a dict by column."""

from __future__ import annotations

import importlib
import shutil
from typing import TYPE_CHECKING, Any, cast

import tfstream
from benchmarks import data
from benchmarks.workload import SEED, Task
from tfstream.errors import TfstreamError
from tfstream.format import reader
from tfstream.format.manifest import open_catalog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pyarrow as pa

    from benchmarks.contenders import Contender


def prepare(place: Path, task: Task, contender: Contender) -> None:  # noqa: ARG001 - one signature for all
    """Convert the source."""
    converter(["month", "day"])(task.source, place)


def converter(group_by: list[str]) -> Callable[[Path, Path], object]:
    """A function that converts the Parquet files of a folder into shards by groups.

    tfstream loads its parts when they are first used: here, and not on the time of the conversion.
    """
    importlib.import_module("tfstream.conversion.convert")

    def by_group(source: Path, place: Path) -> object:
        return tfstream.convert(str(source / "*.parquet"), str(place), group_by=group_by)

    return by_group


def tables(place: Path, column: str) -> Iterator[pa.Table]:
    """A column of the shards, block by block, read without TensorFlow."""
    catalog = open_catalog(place)
    for block in range(len(catalog.block_rows)):
        yield reader.read_block(catalog, block, [column])


def open_stream(place: Path, task: Task, *, packed: bool, with_id: bool) -> tfstream.Stream:
    """The stream over all rows."""
    names = data.names(task.workload.columns)
    return tfstream.open(str(place)).stream(
        batch_size=task.workload.batch,
        features=[*names, "id"] if with_id else list(names),
        label="label",
        seed=SEED,
        options=tfstream.StreamOptions(packed=packed),
    )


def kept_shards(task: Task) -> Path:
    """The shards of the source, written now if they are not there."""
    source = data.keep(task.source, lambda p: data.write_source(p, task.workload.rows))
    convert = converter(["month", "day"])
    return keep(task.folder / "shards", lambda place: convert(source, place))


def keep(place: Path, write: Callable[[Path], object]) -> Path:
    """As `data.keep`, for a data set: one that today's tfstream does not read is written anew."""
    if place.exists():
        try:
            tfstream.open(str(place))
        except TfstreamError:
            shutil.rmtree(place)
    return data.keep(place, lambda draft: cast("None", write(draft)))


def window_rows(place: Path, task: Task) -> int:
    """Rows of tfstream's window."""
    stream = open_stream(place, task, packed=True, with_id=False)
    return stream.spec.window_steps * task.workload.batch


class StreamSource:
    """A stream, one dataset for all epochs."""

    def __init__(self, stream: tfstream.Stream) -> None:
        """Over a stream; without a callback, each new iterator takes the next epoch."""
        self.stream = stream
        self._dataset = stream.dataset()

    def epoch(self) -> Iterator[tuple[Any, Any]]:
        """One pass, newly shuffled: eager tensors."""
        return iter(self._dataset)

    def fit_arguments(self) -> dict[str, Any]:
        """The dataset."""
        return {"x": self._dataset}


def open_source(place: Path, task: Task, contender: Contender) -> StreamSource:
    """Open the shards."""
    with_id = contender.with_id and task.action == "read"
    return StreamSource(
        open_stream(place, task, packed=contender.form == "packed", with_id=with_id)
    )
