"""Readers of the source's Parquet files: pyarrow, Ray Data, petastorm, tensorflow-io; job read.

Each is imported where it is used, since most of them live in environments of their own.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.dataset as pds

from benchmarks import data
from benchmarks.workload import SEED, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from benchmarks.contenders import Contender

_COLUMNS = [*data.FEATURES, "id", "label"]


def prepare(place: Path, task: Task, contender: Contender) -> None:
    """Nothing: they read the source as it is."""


class ParquetRows:
    """Rows by column, as a function makes them for each epoch; for reading only."""

    def __init__(self, epoch: Callable[[], Iterator[tuple[Any, Any]]]) -> None:
        """Over that function."""
        self.epoch = epoch


def open_source(place: Path, task: Task, contender: Contender) -> ParquetRows:  # noqa: ARG001 - one signature for all
    """Open the source."""
    makers = {
        "pyarrow-batches": _pyarrow,
        "ray-batches": _ray,
        "petastorm-dataset": _petastorm,
        "tfio-parquet": _tensorflow_io,
    }
    return ParquetRows(makers[contender.name](task))


def _pyarrow(task: Task) -> Callable[[], Iterator[tuple[Any, Any]]]:
    dataset = pds.dataset(task.source)

    def epoch() -> Iterator[tuple[Any, Any]]:
        for batch in dataset.to_batches(columns=_COLUMNS, batch_size=task.workload.batch):
            if batch.num_rows:
                yield _parted({name: batch[name].to_numpy() for name in _COLUMNS})

    return epoch


def _ray(task: Task) -> Callable[[], Iterator[tuple[Any, Any]]]:
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Sockets lie there, whose names must be short.
    ray.init(include_dashboard=False, log_to_driver=False, _temp_dir=tempfile.gettempdir())
    ray.data.DataContext.get_current().enable_progress_bars = False
    dataset = ray.data.read_parquet(str(task.source), columns=_COLUMNS, shuffle="files")

    def epoch() -> Iterator[tuple[Any, Any]]:
        for batch in dataset.iter_batches(
            batch_size=task.workload.batch,
            batch_format="numpy",
            local_shuffle_buffer_size=task.workload.buffer,
            local_shuffle_seed=SEED,
        ):
            yield _parted(batch)

    return epoch


def _petastorm(task: Task) -> Callable[[], Iterator[tuple[Any, Any]]]:
    from petastorm import make_batch_reader
    from petastorm.tf_utils import make_petastorm_dataset

    def epoch() -> Iterator[tuple[Any, Any]]:
        with make_batch_reader(
            task.source.as_uri(), schema_fields=_COLUMNS, num_epochs=1, seed=SEED
        ) as reader:
            dataset = make_petastorm_dataset(reader).unbatch().shuffle(task.workload.buffer)
            for row in dataset.batch(task.workload.batch):
                yield _parted(row._asdict())

    return epoch


def _tensorflow_io(task: Task) -> Callable[[], Iterator[tuple[Any, Any]]]:
    import tensorflow as tf
    import tensorflow_io as tfio

    paths = sorted(map(str, task.source.glob("*.parquet")))
    parts = [tfio.IODataset.from_parquet(path, columns=_COLUMNS) for path in paths]
    dataset = parts[0]
    for part in parts[1:]:
        dataset = dataset.concatenate(part)
    tf.random.set_seed(SEED)
    dataset = dataset.shuffle(task.workload.buffer).batch(task.workload.batch).prefetch(2)

    def epoch() -> Iterator[tuple[Any, Any]]:
        for batch in dataset:
            yield _parted({_plain(name): values for name, values in batch.items()})

    return epoch


def _plain(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _parted(batch: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """Features with the id, and the label."""
    return {name: batch[name] for name in _COLUMNS[:-1]}, np.asarray(batch["label"])
