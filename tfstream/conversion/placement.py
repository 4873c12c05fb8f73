"""Where the rows of run files stand among all rows, by (group, source, row of the source)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tfstream.conversion.keys import grouped
from tfstream.conversion.runs import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Consecutive rows of a run file, which lie in stretches among some consecutive row ids."""

    run: int
    """Index of the run."""
    start: int
    """First row in the file."""
    stop: int
    """Behind the last."""
    begins: np.ndarray
    """(stretches,) int64: where each stretch begins, counted from the first of the row ids."""
    counts: np.ndarray
    """(stretches,) int64: rows of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The stretches of equal (group, run), in the order of the row ids."""

    keys: pa.Table
    """The key of each group, in order."""
    rows_per_group: np.ndarray
    """(groups,) int64, each at least 1."""
    ends: np.ndarray
    """(stretches,) int64: row id behind the last row of each."""
    runs: np.ndarray
    """(stretches,) int64: run of each."""
    offsets: np.ndarray
    """(stretches,) int64: where each begins in its run file."""

    def slices(self, first_row: int, rows: int) -> list[Slice]:
        """Where consecutive row ids lie, one slice a run: its file too has the groups in order."""
        low = int(np.searchsorted(self.ends, first_row, side="right"))
        high = int(np.searchsorted(self.ends, first_row + rows, side="left")) + 1
        starts = np.concatenate(
            [self.ends[low - 1 : low] if low else [0], self.ends[low : high - 1]]
        )
        begins = np.maximum(starts, first_row)
        counts = np.minimum(self.ends[low:high], first_row + rows) - begins
        places = self.offsets[low:high] + begins - starts
        order = np.argsort(self.runs[low:high], kind="stable")
        runs = self.runs[low:high][order]
        found = []
        for piece in np.split(order, np.flatnonzero(np.diff(runs)) + 1):
            start, last = int(places[piece[0]]), piece[-1]
            found.append(
                Slice(
                    run=int(self.runs[low + piece[0]]),
                    start=start,
                    stop=int(places[last] + counts[last]),
                    begins=begins[piece] - first_row,
                    counts=counts[piece],
                )
            )
        return found

    def stretches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """First row id and rows of each stretch of each run, in the order of its file."""
        counts = np.diff(self.ends, prepend=0)
        order = np.lexsort((self.offsets, self.runs))
        runs = int(self.runs.max(initial=-1)) + 1
        cuts = np.searchsorted(self.runs[order], np.arange(1, runs))
        firsts = np.split((self.ends - counts)[order], cuts)
        return list(zip(firsts, np.split(counts[order], cuts), strict=True))


def place(runs: Sequence[Run]) -> Placement:
    """The placement of the rows of all runs, given in the order of (source, row)."""
    keys = pa.concat_tables([run.keys for run in runs])
    groups = grouped(keys)
    counts = np.concatenate([run.counts for run in runs])
    offsets = np.concatenate([np.cumsum(run.counts) - run.counts for run in runs])
    owners = np.repeat(np.arange(len(runs)), [len(run.counts) for run in runs])
    order = np.argsort(groups.codes, kind="stable")
    return Placement(
        keys=keys.take(pa.array(groups.first)).combine_chunks(),
        rows_per_group=np.bincount(groups.codes, weights=counts).astype(np.int64),
        ends=np.cumsum(counts[order]),
        runs=owners[order],
        offsets=offsets[order],
    )


def row_ids(
    source_rows: np.ndarray,
    stretches: tuple[np.ndarray, np.ndarray],
    first_row: int,
    rows: int,
) -> np.ndarray:
    """The row ids of consecutive rows of a source; -1 for those that are not in the run.

    Args:
        source_rows: (rows,) int64, as the run file has them.
        stretches: first row id and rows of each, an entry of `Placement.stretches`.
        first_row: the first of the rows of the source.
        rows: how many they are.
    """
    firsts, counts = stretches
    before = np.cumsum(counts) - counts
    ids = np.repeat(firsts - before, counts) + np.arange(len(source_rows))
    by_source = np.full(rows, -1, np.int64)
    by_source[source_rows - first_row] = ids
    return by_source
