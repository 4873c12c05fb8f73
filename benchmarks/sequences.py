"""The classic DataGenerator: a keras Sequence over one .npy file per observation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

from benchmarks import data
from benchmarks.workload import SEED, Task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.contenders import Contender

_PER_FOLDER = 1_000
"""Files of a folder; all in one would be slower, and nobody's fault but the file system's."""


def prepare(place: Path, task: Task, contender: Contender) -> None:
    """Write the features of every row into a file of its own; the labels, as ever, into one."""
    for ids, features in data.chunks(contender.rows, task.workload.columns):
        for id_, row in zip(ids, features, strict=True):
            path = _path(place, int(id_))
            if id_ % _PER_FOLDER == 0:
                path.parent.mkdir()
            np.save(path, row)
    np.save(place / "labels.npy", data.labels_of(np.arange(contender.rows)))


def _path(place: Path, id_: int) -> Path:
    return place / f"{id_ // _PER_FOLDER:05d}" / f"{id_}.npy"


class DataGenerator(keras.utils.PyDataset):
    """Shuffles the list of ids at the end of an epoch; loads a file per row."""

    def __init__(
        self, place: Path, batch_size: int, *, workers: int, use_multiprocessing: bool
    ) -> None:
        """Over the files of `place`, whose labels fit in memory."""
        super().__init__(workers=workers, use_multiprocessing=use_multiprocessing)
        self._folder = str(place)
        self._labels = np.load(place / "labels.npy")
        self._columns = np.load(_path(place, 0)).size
        self._batch_size = batch_size
        self._ids = np.arange(len(self._labels))
        self._random = np.random.default_rng(SEED)
        self.on_epoch_end()

    def __len__(self) -> int:
        """Batches of an epoch, the last one shorter."""
        return math.ceil(len(self._ids) / self._batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch `index`: (n, columns) float32, (n,) int8."""
        ids = self._ids[index * self._batch_size : (index + 1) * self._batch_size]
        features = np.empty((len(ids), self._columns), np.float32)
        for row, id_ in enumerate(ids):
            features[row] = np.load(f"{self._folder}/{id_ // _PER_FOLDER:05d}/{id_}.npy")
        return features, self._labels[ids]

    def on_epoch_end(self) -> None:
        """Shuffle."""
        self._random.shuffle(self._ids)


class SequenceSource:
    """Any keras Sequence, read the way that `model.fit` reads it."""

    def __init__(self, sequence: keras.utils.PyDataset) -> None:
        """Over a Sequence that shuffles itself."""
        self._sequence = sequence
        self._adapter: Any = None

    def epoch(self) -> Iterator[tuple[Any, Any]]:
        """One pass through the adapter of `fit`: Keras has no public way to its workers."""
        if self._adapter is None:
            self._adapter = PyDatasetAdapter(self._sequence, shuffle=False)
        dataset = self._adapter.get_tf_dataset()
        self._adapter.on_epoch_begin()
        try:
            yield from dataset
        finally:
            self._adapter.on_epoch_end()

    def fit_arguments(self) -> dict[str, Any]:
        """The Sequence; Keras must not shuffle it again."""
        return {"x": self._sequence, "shuffle": False}


def open_source(place: Path, task: Task, contender: Contender) -> SequenceSource:
    """Open the files."""
    generator = DataGenerator(
        place,
        task.workload.batch,
        workers=contender.workers,
        use_multiprocessing=contender.processes,
    )
    return SequenceSource(generator)
