"""The proof that a contender delivered the rows it was asked for, and how well it mixed them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import data

if TYPE_CHECKING:
    from collections.abc import Iterable

Array = Any
"""A numpy array, or an eager tensor that numpy can look into."""

Features = Any
"""An (n, 32) `Array`, a dict of them by column, or a pair of matrix and ids."""


class Ledger:
    """What came in one epoch: of every row its id, label and last feature, in the order they came.

    Recording is three short copies a batch; everything else waits until the clock has stopped. It
    holds at most 13 bytes a row.
    """

    def __init__(
        self, rows: int, *, columns: int = data.COLUMNS, groups: int = data.GROUPS
    ) -> None:
        """A ledger for an epoch of `rows` rows of so many features, in so many groups."""
        self._expected = rows
        self._names = data.names(columns)
        self._groups = groups
        self._keys: np.ndarray | None = None
        self._labels = np.empty(rows, np.int8)
        self._last = np.empty(rows, np.float32)
        self._first_batch: tuple[np.ndarray, np.ndarray] | None = None
        self._has_ids = False
        self.rows = 0
        """Rows recorded."""

    def record(self, features: Features, label: Array) -> int:
        """Note a batch; its number of rows."""
        labels = np.asarray(label)
        count = len(labels)
        keys, last = self._columns(features)
        if self._keys is None:
            self._keys = np.empty(self._expected, keys.dtype)
            self._first_batch = _copied(features, self._names)
        start, stop = self.rows, min(self.rows + count, self._expected)
        self._keys[start:stop] = keys[: stop - start]
        self._labels[start:stop] = labels[: stop - start]
        self._last[start:stop] = last[: stop - start]
        self.rows += count
        return count

    def _columns(self, features: Features) -> tuple[np.ndarray, np.ndarray]:
        """The keys (ids, or the first feature) and the last feature of a batch."""
        if isinstance(features, dict):
            self._has_ids = "id" in features
            return (
                np.asarray(features["id" if self._has_ids else self._names[0]]),
                np.asarray(features[self._names[-1]]),
            )
        if isinstance(features, tuple):
            self._has_ids = True
            matrix, ids = features
            return ids, matrix[:, -1]
        matrix = np.asarray(features)
        return matrix[:, 0], matrix[:, -1]

    def ids(self) -> np.ndarray:
        """The ids of the recorded rows, in order."""
        if self._keys is None:
            return np.empty(0, np.int64)
        keys = self._keys[: self.rows]
        return keys if self._has_ids else data.ids_of(keys)

    def findings(self, *, whole: bool) -> list[str]:
        """What is wrong with the delivery; empty means proven.

        Args:
            whole: the epoch was over, so every row must have come; else none may have come twice.
        """
        if self.rows > self._expected:
            return [f"{self.rows} rows came, {self._expected} were there"]
        ids = self.ids()
        found = _id_findings(ids, self._expected, whole=whole)
        if not found:
            wrong = int((self._labels[: self.rows] != data.labels_of(ids)).sum())
            wrong += int((self._last[: self.rows] != data.last_of(ids)).sum())
            found = [f"{wrong} labels or last features belong to other rows"] if wrong else []
        if not found and self._first_batch is not None:
            found = _feature_findings(*self._first_batch)
        return found

    def totals(self) -> dict[str, int]:
        """Rows, the sum of their ids, and the sum of their mixed ids modulo 2^64."""
        ids = self.ids()
        mixed = int(data.mixed(ids).sum(dtype=np.uint64))
        return {"rows": self.rows, "ids": int(ids.sum()), "mixed_ids": mixed}

    def quality(self, batch: int) -> float | None:
        """How unevenly the batches drew from the groups; 1 is uniform.

        None without a full batch, or with one group.

        The standard deviation over batches of the batch mean of a group effect, divided by the same
        under uniform draws, in the mean over all group effects: which is the square root of
        Pearson's chi-square over its degrees of freedom.
        """
        batches = self.rows // batch
        if batches == 0 or self._groups == 1:
            return None
        ids = self.ids()[: batches * batch]
        everyone = data.groups_of(np.arange(self._expected), self._groups)
        share = np.bincount(everyone, minlength=self._groups) / self._expected
        drawn = data.groups_of(ids, self._groups)
        cells, counts = np.unique(
            np.repeat(np.arange(batches), batch) * self._groups + drawn, return_counts=True
        )
        # The sum over a batch's groups of (count - expected)^2 / expected, which is that of
        # count^2 / expected less the batch: groups that it did not draw from need no cell.
        squares = (counts**2 / (batch * share[cells % self._groups])).sum() / batches - batch
        return float(np.sqrt(max(squares, 0.0) / max((share > 0).sum() - 1, 1)))


def covered(ids: np.ndarray, rows: int) -> list[str]:
    """What keeps `ids` from being each of 0 to `rows` once, in any order; empty means nothing."""
    return _id_findings(ids, rows, whole=True)


def summed(parts: Iterable[np.ndarray], rows: int) -> list[str]:
    """What rows, sum, and sum of mixed ids say against `covered`; without all ids at once."""
    stretches = (
        np.arange(start, min(start + data.CHUNK, rows)) for start in range(0, rows, data.CHUNK)
    )
    names = ("rows", "sum of ids", "sum of mixed ids")
    return [
        f"{name}: {found} came, {expected} should"
        for name, found, expected in zip(names, _sums(parts), _sums(stretches), strict=True)
        if found != expected
    ]


def _sums(parts: Iterable[np.ndarray]) -> tuple[int, int, int]:
    rows = ids = mixed = 0
    for part in parts:
        rows += len(part)
        ids += int(part.sum())
        mixed += int(data.mixed(part).sum(dtype=np.uint64))
    return rows, ids, mixed % 2**64


def _id_findings(ids: np.ndarray, rows: int, *, whole: bool) -> list[str]:
    if len(ids) == 0:
        return ["no row came"]
    if ids.min() < 0 or ids.max() >= rows:
        return [f"ids from {ids.min()} to {ids.max()} came, of {rows} rows"]
    times = np.bincount(ids, minlength=rows)
    found = []
    if twice := int((times > 1).sum()):
        found.append(f"{twice} rows came more than once")
    if whole and (missing := int((times == 0).sum())):
        found.append(f"{missing} rows did not come")
    return found


def _copied(features: Features, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The ids and the whole feature matrix of a batch."""
    if isinstance(features, dict):
        matrix = np.stack([np.asarray(features[name]) for name in names], axis=1)
    else:
        matrix = np.array(features[0] if isinstance(features, tuple) else features)
    return data.ids_of(matrix[:, 0]), matrix


def _feature_findings(ids: np.ndarray, matrix: np.ndarray) -> list[str]:
    """Compare every feature of the rows of the first chunk; all others would cost a pass."""
    first_ids, first_chunk = next(data.chunks(data.CHUNK, matrix.shape[1]))
    inside = ids < len(first_ids)
    wrong = int((matrix[inside] != first_chunk[ids[inside]]).any(axis=1).sum())
    return [f"{wrong} rows of the first batch have wrong features"] if wrong else []
