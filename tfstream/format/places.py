"""Rows of steps and steps of rows: `order` put to use on a subset. Nothing here reads a shard."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tfstream import order
from tfstream.errors import UsageError
from tfstream.format.subset import Subset
from tfstream.order import NUMPY, Spec
from tfstream.share import WHOLE, Share

_KEPT_WINDOWS = 4
"""Windows whose rows are held, so that the steps of a window are not computed one by one."""
_KEPT_EPOCHS = 8


def windows_of(spec: Spec, positions: np.ndarray) -> np.ndarray:
    """The window that has each place of an epoch's sequence.

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
        self._sequence = lru_cache(_KEPT_EPOCHS)(self._compute_sequence)
        self._window = lru_cache(_KEPT_WINDOWS)(self._compute_window)

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
        return rows if step < self._spec.full_steps else rows[: self._share.tail_rows(self._spec)]

    def steps_of(self, epoch: int, row_ids: np.ndarray) -> np.ndarray:
        """The step of an epoch that has each row.

        Args:
            epoch: 0-based.
            row_ids: (n,) int64, rows of the data set.

        Returns:
            (n,) int64; -1 where the row is not in the subset, dropped as a remainder, or another
            share's.
        """
        row_ids = np.asarray(row_ids, np.int64)
        index, rank = self._subset.place_of(row_ids)
        _, starts = self._sequence(epoch)
        windows = np.where(index >= 0, windows_of(self._spec, starts[index] + rank), -1)
        steps = np.full(len(row_ids), -1, np.int64)
        for window in np.unique(windows[windows >= 0]):
            wanted = np.flatnonzero(windows == window)
            rows = self.window_rows(epoch, int(window))
            wanted = wanted[np.isin(row_ids[wanted], rows)]
            found = np.flatnonzero(np.isin(rows, row_ids[wanted]))
            ids = rows.reshape(-1)[found]
            by_id = np.argsort(ids)
            place = by_id[np.searchsorted(ids[by_id], row_ids[wanted])]
            steps[wanted] = self._spec.first_step(int(window)) + found[place] // rows.shape[1]
        return steps

    def _compute_sequence(self, epoch: int) -> tuple[order.Epoch, np.ndarray]:
        """The epoch's sequence, and where the kept rows of each block of the subset begin in it."""
        sequence = order.epoch_of(NUMPY, self._spec, self._subset.kept, epoch)
        starts = np.empty_like(sequence.ends)
        starts[sequence.blocks] = sequence.ends - self._subset.kept[sequence.blocks]
        return sequence, starts

    def _compute_window(self, epoch: int, window: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        sequence, _ = self._sequence(epoch)
        found = order.window_of(NUMPY, self._spec, sequence, epoch, window, share=self._share)
        kept = [self._subset.row_ids_in(int(block)) for block in self._subset.blocks[found.blocks]]
        return found.blocks, found.picks, np.concatenate(kept)[found.picks]
