"""The steady rate of a contender, so taken that no buffer filled before the start flatters it."""

from __future__ import annotations

import time


class Clock:
    """Measures whole epochs, from the first batch of one to the first batch of another.

    What is read ahead at the start is read ahead at the stop, too. Epoch 0 is for the check and
    for compilation: the clock starts again at the first batch of epoch 1. A contender that is still
    in its first epoch at the bound is measured from its first batch to there: a part of an epoch.
    """

    def __init__(self, *, floor_s: float, bound_s: float) -> None:
        """Stop after whole epochs that take `floor_s` or more, or at `bound_s`."""
        self._floor_s = floor_s
        self._bound_s = bound_s
        self._epoch: int | None = None
        self._start = 0.0
        self._stop = 0.0
        self.rows = 0
        """Rows that came since the start."""

    @property
    def seconds(self) -> float:
        """Time since the start, at the last tick."""
        return self._stop - self._start

    @property
    def whole(self) -> bool:
        """Whether epoch 0 was over before the stop."""
        return bool(self._epoch)

    def tick(self, epoch: int, rows: int) -> bool:
        """Note that a batch of `rows` rows came; whether that is enough."""
        now = time.perf_counter()
        is_first = epoch != self._epoch
        if self._epoch is None or (is_first and self._epoch == 0):
            self._start = self._stop = now
            self.rows = 0
            self._epoch = epoch
            return False
        self._epoch = epoch
        self._stop = now
        self.rows += rows
        return self.seconds >= self._bound_s or (is_first and self.seconds >= self._floor_s)

    def result(self) -> dict[str, object]:
        """Rows/s and what it rests on."""
        return {
            "rows_per_s": self.rows / self.seconds if self.seconds else 0.0,
            "timed_rows": self.rows,
            "timed_s": self.seconds,
            "whole_epoch": self.whole,
        }
