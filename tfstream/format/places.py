"""Rows of steps and steps of rows: `order` put to use on a subset. Nothing here reads a shard."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tfstream import order
from tfstream.entries import Layout, Parts
from tfstream.errors import UsageError
from tfstream.format.layout import layout_of, rows_of
from tfstream.format.subset import Subset
from tfstream.order import NUMPY, Spec
from tfstream.share import WHOLE, Share

_KEPT_WINDOWS = 4
"""Windows whose rows are held, so that the steps of a window are not computed one by one."""
_KEPT_EPOCHS = 8
_EPOCHS = 1 << 62
_ENTRIES = 4096
"""Entries whose keyed ranks are looked through at the same time."""


def windows_of(spec: Spec, positions: np.ndarray) -> np.ndarray:
    """The window that has each place of an epoch's sequence, if batches are mixed.

    Args:
        spec: the order's numbers.
        positions: (n,) int64, places in the sequence, below `spec.rows`.

    Returns:
        (n,) int64; -1 where the row is dropped as a remainder.
    """
    full_rows = spec.full_steps * spec.batch_size
    share = spec.batch_size // spec.stretches
    within = positions % max(spec.full_steps * share, 1)
    tail = spec.full_windows if spec.tail_rows else -1
    return np.where(positions < full_rows, within // (spec.window_steps * share), tail)


class Places:
    """Where the rows of a subset come in the epochs of a spec, or in a worker's part of them."""

    def __init__(self, subset: Subset, spec: Spec, share: Share = WHOLE) -> None:
        """Refuse a spec of another subset.

        Raises:
            UsageError: if the spec was made for other rows, or has no such share.
        """
        share.check(spec)
        if subset.digest != spec.subset:
            raise UsageError(
                f"the spec belongs to the subset {spec.subset}, not to {subset.digest}"
            )
        self._subset, self._spec, self._share = subset, spec, share
        self._layout = layout_of(
            subset,
            shuffle=spec.shuffle,
            batches=spec.batches,
            weights=spec.weights,
            cut=(spec.batch_size, spec.remainder),
        )
        self._check_numbers()
        self._sequence = lru_cache(_KEPT_EPOCHS)(self._compute_sequence)
        self._entries = lru_cache(1)(self._by_block)
        self._window = lru_cache(_KEPT_WINDOWS)(self._compute_window)

    def _check_numbers(self) -> None:
        """Refuse a spec that tells other sizes of its subset than it has."""
        spec, layout = self._spec, self._layout
        here = {"rows": self._subset.rows, "blocks": len(self._subset.blocks)}
        if layout is not None:
            here["rows"] = rows_of(layout)
        found = {name: getattr(spec, name) for name in here}
        if spec.batches == "group" and layout is not None and layout.sizes is not None:
            full = int(np.count_nonzero(layout.sizes == spec.batch_size))
            here["full_batches"], found["full_batches"] = full, spec.full_batches
            if layout.sizes[full:].tolist() != list(spec.tails):
                raise UsageError("the spec has other tails than its groups")
        if found != here:
            raise UsageError(f"the spec has {found}, its subset {here}")

    def reads(self, epoch: int, window: int) -> np.ndarray:
        """Ordinals of the blocks that a window reads, in this order; (reads,) int64."""
        blocks: np.ndarray = self._subset.blocks[self._window(epoch, window)[0]]
        return blocks

    def picks(self, epoch: int, window: int) -> np.ndarray:
        """Places among the kept rows of `reads` of the rows of each step; (steps, rows) int64."""
        picks: np.ndarray = self._window(epoch, window)[1]
        return picks

    def window_rows(self, epoch: int, window: int) -> np.ndarray:
        """Row ids of each step of a window, (steps, rows) int64; a share's filling counted in."""
        rows: np.ndarray = self._window(epoch, window)[2]
        return rows

    def rows_of(self, epoch: int, step: int) -> np.ndarray:
        """Row ids of a step of an epoch, in the order of the batch; (rows,) int64.

        Rows that only fill a share up are left out.

        Raises:
            UsageError: if the epoch has no such step.
        """
        if not 0 <= step < self._spec.steps_per_epoch or epoch < 0:
            raise UsageError(
                f"an epoch has steps 0 to {self._spec.steps_per_epoch - 1}, "
                f"there is no step {step} in epoch {epoch}"
            )
        window, place = self._spec.window_of(step)
        rows: np.ndarray = self.window_rows(epoch, window)[place]
        if self._share.count == 1 or step < self._spec.full_steps:
            return rows
        return rows[: self._share.tail_rows(self._spec)]

    def steps_of(self, epoch: int, row_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The steps of an epoch that have some rows: none, one, or by weights several for each.

        Args:
            epoch: 0-based.
            row_ids: (n,) int64, rows of the data set.

        Returns:
            The index into `row_ids` and the step, (m,) int64 each, ascending. A step that has a row
            twice comes twice.
        """
        index, rank = self._subset.place_of(np.asarray(row_ids, np.int64))
        inside = np.flatnonzero(index >= 0)
        found, places = self._sequence_places(epoch, index[inside], rank[inside])
        which = inside[found]
        if self._spec.batches == "group":
            steps = self._group_steps(epoch, places)
        else:
            steps = self._mixed_steps(epoch, places)
        which, steps = which[steps >= 0], steps[steps >= 0]
        if self._share.count > 1:
            own = [
                row in self.rows_of(epoch, step)
                for row, step in zip(np.asarray(row_ids)[which], steps.tolist(), strict=True)
            ]
            which, steps = which[own], steps[own]
        by_row = np.lexsort((steps, which))
        return which[by_row], steps[by_row]

    def _sequence_places(
        self, epoch: int, index: np.ndarray, rank: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where kept rows, by block and rank, are in the sequence: which of them, and the place."""
        sequence, starts = self._sequence(epoch)
        layout = self._layout
        if layout is None:
            return np.arange(len(index)), starts[index] + rank
        by_block, counts = self._entries(layout)
        first, count = (np.cumsum(counts) - counts)[index], counts[index]
        which = np.repeat(np.arange(len(index)), count)
        turn = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
        entry = by_block[np.repeat(first, count) + turn]
        offset = rank[which] - layout.low[entry]
        there = (offset >= 0) & (offset < layout.rows[entry]) & (starts[entry] >= 0)
        which, entry, offset = which[there], entry[there], offset[there]
        if layout.parts is not None:
            size = np.zeros(len(layout.rows), np.int64)
            size[sequence.blocks] = np.diff(sequence.ends, prepend=0)
            offset = self._keyed_offsets(layout, layout.parts, epoch, (entry, offset))
            which, entry, offset = (a[offset < size[entry]] for a in (which, entry, offset))
        return which, starts[entry] + offset

    def _keyed_offsets(
        self, layout: Layout, parts: Parts, epoch: int, values: tuple[np.ndarray, np.ndarray]
    ) -> np.ndarray:
        """Where rows of the ranges of entries come in their keyed order, (n,) int64."""
        entry, value = values
        unique, line = np.unique(entry, return_inverse=True)
        found = np.empty(len(entry), np.int64)
        by_line = np.argsort(line, kind="stable")
        for first in range(0, len(unique), _ENTRIES):
            some = unique[first : first + _ENTRIES]
            ranks = order.keyed_ranks(NUMPY, self._spec, parts, some, epoch)
            inside = ranks < layout.rows[some][:, None]
            place = np.cumsum(inside, axis=1) - 1
            of_value = np.empty_like(ranks)
            np.put_along_axis(of_value, ranks, place, axis=1)
            low, high = np.searchsorted(line[by_line], [first, first + len(some)])
            chosen = by_line[low:high]
            found[chosen] = of_value[line[chosen] - first, value[chosen]]
        return found

    def _group_steps(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """The step that has each place of the sequence, where batches are of one group; else -1."""
        sequence, _ = self._sequence(epoch)
        by_start = np.argsort(sequence.starts)
        starts = sequence.starts[by_start]
        found = np.searchsorted(starts, places, side="right") - 1
        steps = by_start[np.maximum(found, 0)]
        inside = (found >= 0) & (places < sequence.starts[steps] + sequence.sizes[steps])
        return np.where(inside, steps, -1)

    def _mixed_steps(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """The step that has each place of the sequence, where batches are mixed; else -1."""
        spec = self._spec
        windows = windows_of(spec, places)
        share = spec.batch_size // spec.stretches
        length = spec.full_steps * share
        steps = np.where(windows == spec.full_windows, spec.full_steps, -1)
        full = np.flatnonzero((windows >= 0) & (windows < spec.full_windows))
        if not len(full):
            return steps
        stretch, within = np.divmod(places[full], length)
        first = windows[full] * spec.window_steps
        value = within - first * share
        if spec.shuffle == "none":
            steps[full] = within // share
            return steps
        pair = windows[full] * spec.stretches + stretch
        by_pair = np.argsort(pair, kind="stable")
        for some in np.split(by_pair, np.flatnonzero(np.diff(pair[by_pair])) + 1):
            window, index = divmod(int(pair[some[0]]), spec.stretches)
            order_ = order.rows_permuted(NUMPY, spec, epoch, window, index)
            of_value = np.empty(len(order_), np.int64)
            of_value[order_] = np.arange(len(order_))
            steps[full[some]] = first[some] + of_value[value[some]] // share
        return steps

    def _by_block(self, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
        """The entries, by the block that each is of, and how many those of each block are."""
        counts = np.bincount(layout.block, minlength=len(self._subset.blocks))
        return np.argsort(layout.block, kind="stable"), counts

    def _compute_sequence(self, epoch: int) -> tuple[order.Epoch, np.ndarray]:
        """The epoch's sequence, and where each block, or entry, begins in it; -1 if it does not."""
        kept = self._subset.kept
        sequence = order.epoch_of(NUMPY, self._spec, kept, epoch, layout=self._layout)
        starts = np.full(len(kept if self._layout is None else self._layout.rows), -1)
        starts[sequence.blocks] = sequence.ends - np.diff(sequence.ends, prepend=0)
        return sequence, starts

    def _compute_window(self, epoch: int, window: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if not 0 <= window < self._spec.windows_per_epoch or not 0 <= epoch < _EPOCHS:
            raise UsageError(f"there is no window {window} in epoch {epoch}")
        sequence, _ = self._sequence(epoch)
        found = order.window_of(
            NUMPY, self._spec, sequence, epoch, window, layout=self._layout, share=self._share
        )
        kept = [self._subset.row_ids_in(int(block)) for block in self._subset.blocks[found.blocks]]
        return found.blocks, found.picks, np.concatenate(kept)[found.picks]
