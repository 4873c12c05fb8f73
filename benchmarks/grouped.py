"""The grouped Dask Sequence: a Parquet file per day, loaded through Dask, group after group."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import dask
import keras
import numpy as np
import pyarrow.dataset as pds
import pyarrow.parquet as pq

from benchmarks import data
from benchmarks.sequences import SequenceSource
from benchmarks.workload import SEED, Task

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.contenders import Contender

_CACHED_GROUPS = 4


def prepare(place: Path, task: Task, contender: Contender) -> None:  # noqa: ARG001 - one signature for all
    """Write a file per group, as hive partitions, in one row group each.

    Not by `write_dataset`: of more groups than it keeps files open, it makes several files each.
    """
    keys = ["month", "day"]
    table = pds.dataset(task.source).to_table().sort_by([(key, "ascending") for key in keys])
    month, day = (table[key].to_numpy() for key in keys)
    starts = np.flatnonzero((np.diff(month) != 0) | (np.diff(day) != 0)) + 1
    rows = table.drop_columns(keys)
    for start, stop in pairwise([0, *starts.tolist(), len(rows)]):
        folder = place / f"month={month[start]}" / f"day={day[start]}"
        folder.mkdir(parents=True)
        pq.write_table(rows.slice(start, stop - start), folder / "part-0.parquet")


@lru_cache(maxsize=_CACHED_GROUPS)
def _load_group(path: str, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The features and labels of a group."""
    frame = dask.delayed(pq.read_table)(path, columns=[*names, "label"], partitioning=None)
    table = frame.compute(scheduler="synchronous")
    features = np.empty((len(table), len(names)), np.float32)
    for column, name in enumerate(names):
        features[:, column] = table.column(name).to_numpy()
    return features, table.column("label").to_numpy()


class GroupedGenerator(keras.utils.PyDataset):
    """Shuffles the groups, and the rows inside each; a batch is what comes next."""

    def __init__(self, place: Path, batch_size: int, columns: int, workers: int) -> None:
        """Over the hive partitions of `place`, whose rows have so many features."""
        super().__init__(workers=workers)
        self._names = data.names(columns)
        self._paths = [str(path) for path in sorted(place.glob("*/*/*.parquet"))]
        self._counts = [pq.read_metadata(path).num_rows for path in self._paths]
        self._batch_size = batch_size
        self._random = np.random.default_rng(SEED)
        self.on_epoch_end()

    def __len__(self) -> int:
        """Batches of an epoch, the last one shorter."""
        return math.ceil(sum(self._counts) / self._batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch `index`: (n, columns) float32, (n,) int8."""
        wanted = slice(index * self._batch_size, (index + 1) * self._batch_size)
        groups, rows = self._groups[wanted], self._rows[wanted]
        parts = []
        for group in dict.fromkeys(groups.tolist()):
            features, labels = _load_group(self._paths[group], self._names)
            taken = rows[groups == group]
            parts.append((features[taken], labels[taken]))
        features, labels = zip(*parts, strict=True)
        return np.concatenate(features), np.concatenate(labels)

    def on_epoch_end(self) -> None:
        """Shuffle the groups, and the rows inside each."""
        order = self._random.permutation(len(self._paths))
        counts = [self._counts[group] for group in order]
        self._groups = np.repeat(order, counts)
        self._rows = np.concatenate([self._random.permutation(count) for count in counts])


def open_source(place: Path, task: Task, contender: Contender) -> SequenceSource:
    """Open the partitions."""
    workload = task.workload
    return SequenceSource(
        GroupedGenerator(place, workload.batch, workload.columns, contender.workers)
    )
