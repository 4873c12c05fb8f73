"""The textbook tf.data pipeline: one tf.train.Example a row; shuffle, batch, then parse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from benchmarks import data
from benchmarks.workload import SEED, Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import numpy as np

    from benchmarks.contenders import Contender

_SHARDS = 16


def prepare(place: Path, task: Task, contender: Contender) -> None:
    """Write TFRecord shards, rows dealt out to them in turn."""
    writers = [
        tf.io.TFRecordWriter(str(place / f"{number:03d}.tfrecord")) for number in range(_SHARDS)
    ]
    example = _packed_example if contender.form == "packed" else _column_example
    for ids, features in data.chunks(contender.rows, task.workload.columns):
        for id_, row, label in zip(ids, features, data.labels_of(ids), strict=True):
            writers[id_ % _SHARDS].write(example(int(id_), row, int(label)))
    for writer in writers:
        writer.close()


def _packed_example(id_: int, row: np.ndarray, label: int) -> bytes:
    features = {"x": _floats(row), "id": _integer(id_), "label": _integer(label)}
    return _serialized(features)


def _column_example(id_: int, row: np.ndarray, label: int) -> bytes:
    features = {
        name: _floats([value]) for name, value in zip(data.names(len(row)), row, strict=True)
    }
    return _serialized(features | {"id": _integer(id_), "label": _integer(label)})


def _serialized(features: dict[str, tf.train.Feature]) -> bytes:
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def _floats(values: Iterable[float]) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def _integer(value: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


class Examples:
    """The pipeline, reshuffled each epoch."""

    def __init__(self, place: Path, task: Task, contender: Contender) -> None:
        """Build it over the shards of `place`."""
        with_id = contender.with_id and task.action == "read"
        self._packed = contender.form == "packed"
        self._specs = {"label": tf.io.FixedLenFeature([], tf.int64)}
        if self._packed:
            self._specs["x"] = tf.io.FixedLenFeature([task.workload.columns], tf.float32)
        else:
            names = {
                name: tf.io.FixedLenFeature([], tf.float32)
                for name in data.names(task.workload.columns)
            }
            self._specs |= names
        if with_id:
            self._specs["id"] = tf.io.FixedLenFeature([], tf.int64)
        tf.random.set_seed(SEED)
        self._dataset = (
            tf.data.Dataset.list_files(str(place / "*.tfrecord"), shuffle=True)
            .interleave(
                tf.data.TFRecordDataset,
                cycle_length=_SHARDS,
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=False,
            )
            .shuffle(task.workload.buffer)
            .batch(task.workload.batch)
            .map(self._parse, num_parallel_calls=tf.data.AUTOTUNE)
            .prefetch(tf.data.AUTOTUNE)
        )

    def _parse(self, records: tf.Tensor) -> tuple[Any, Any]:
        parsed = tf.io.parse_example(records, self._specs)
        label = parsed.pop("label")
        return (parsed["x"] if self._packed else parsed), label

    def epoch(self) -> Iterator[tuple[Any, Any]]:
        """One pass, newly shuffled: eager tensors."""
        return iter(self._dataset)

    def fit_arguments(self) -> dict[str, Any]:
        """The dataset."""
        return {"x": self._dataset}


def open_source(place: Path, task: Task, contender: Contender) -> Examples:
    """Open the shards."""
    return Examples(place, task, contender)
