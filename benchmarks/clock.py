"""Rates of a contender: steady, after the first batch of an epoch; and over whole epochs."""

from __future__ import annotations

import time
from statistics import median


class Clock:
    """Takes two rates, since each alone flatters somebody.

    *Steady*: the rows after the first batch of each epoch, by the time from the first batch to the
    last. What a contender read ahead before its first batch is a present to it, of a window or two.
    *Whole*: from the first batch of one epoch to the first batch of another, so that what is read
    ahead at the start is read ahead at the stop, too; a slow start is paid for, once an epoch.

    Epoch 0 is for the check and for compilation: the clock starts again at the first batch of
    epoch 1. A contender that is still in its first epoch at the bound is measured from its first
    batch to there: a part of an epoch, where both rates are the same.
    """

    def __init__(self, *, floor_s: float, bound_s: float) -> None:
        """Stop after whole epochs that take `floor_s` or more, or at `bound_s`."""
        self._floor_s = floor_s
        self._bound_s = bound_s
        self._epoch: int | None = None
        self._start = 0.0
        self._stop = 0.0
        self._steady_rows = 0
        self._starts_s: list[float] = []
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
            self.rows = self._steady_rows = 0
            self._epoch = epoch
            return False
        if is_first:
            self._starts_s.append(now - self._stop)
        else:
            self._steady_rows += rows
        self._epoch = epoch
        self._stop = now
        self.rows += rows
        return self.seconds >= self._bound_s or (is_first and self.seconds >= self._floor_s)

    def result(self) -> dict[str, object]:
        """The rates and what they rest on; `start_s` is from an epoch's last batch to the next."""
        steady_s = self.seconds - sum(self._starts_s)
        return {
            "rows_per_s": self._steady_rows / steady_s if steady_s > 0 else 0.0,
            "whole_rows_per_s": self.rows / self.seconds if self.seconds > 0 else 0.0,
            "start_s": median(self._starts_s) if self._starts_s else None,
            "timed_rows": self.rows,
            "timed_s": self.seconds,
            "whole_epoch": self.whole,
        }
