"""The limit: numpy gathers the rows from a memory map, permuted inside each window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import data
from benchmarks.workload import SEED, Task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.contenders import Contender


def prepare(place: Path, task: Task, contender: Contender) -> None:
    """Write features, ids and labels as .npy files."""
    rows = contender.rows
    shape = (rows, task.workload.columns)
    features = np.lib.format.open_memmap(place / "x.npy", "w+", dtype=np.float32, shape=shape)
    ids = np.arange(rows, dtype=np.int64)
    for chunk_ids, chunk in data.chunks(rows, task.workload.columns):
        features[chunk_ids] = chunk
    features.flush()
    np.save(place / "id.npy", ids)
    np.save(place / "label.npy", data.labels_of(ids))


class MappedRows:
    """Rows in a memory map, gathered in windows."""

    def __init__(self, place: Path, task: Task, *, with_id: bool) -> None:
        """Map the files of `place`."""
        # A plain array over the map: numpy's memmap class costs a Python call per result.
        self._features = np.asarray(np.load(place / "x.npy", mmap_mode="r"))
        self._ids = np.asarray(np.load(place / "id.npy", mmap_mode="r"))
        self._labels = np.asarray(np.load(place / "label.npy", mmap_mode="r"))
        self._with_id = with_id
        self._batch = task.workload.batch
        # Whole batches, since no batch straddles two windows here.
        self._window = max(task.workload.window // self._batch, 1) * self._batch
        self._random = np.random.default_rng(SEED)

    def epoch(self) -> Iterator[tuple[Any, Any]]:
        """One pass, newly shuffled: ((n, columns) float32, or that and the ids; labels int8)."""
        rows = len(self._labels)
        for start in range(0, rows, self._window):
            order = start + self._random.permutation(min(self._window, rows - start))
            for first in range(0, len(order), self._batch):
                taken = order[first : first + self._batch]
                features = self._features.take(taken, axis=0)
                labels = self._labels.take(taken)
                yield ((features, self._ids.take(taken)) if self._with_id else features), labels

    def fit_arguments(self) -> dict[str, Any]:
        """An endless generator, and the length of an epoch."""

        def endless() -> Iterator[tuple[Any, Any]]:
            while True:
                yield from self.epoch()

        return {"x": endless(), "steps_per_epoch": -(-len(self._labels) // self._batch)}


def open_source(place: Path, task: Task, contender: Contender) -> MappedRows:
    """Open the memory map."""
    return MappedRows(place, task, with_id=contender.with_id and task.action == "read")
