"""Steps that are left out, and how many of the others lie before one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from tfstream.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Skips:
    """Steps of the run that are left out; the others keep their numbers."""

    ranges: tuple[tuple[int, int], ...] = ()
    """Half-open, ascending, not empty, none touching the next."""

    @classmethod
    def of(cls, steps: Iterable[int | range]) -> Skips:
        """From steps and ranges of steps, in any order.

        Raises:
            UsageError: for anything else than an integer from 0 on or a range of them, step 1.
        """
        found: list[tuple[int, int]] = []
        for item in steps:
            part = range(item, item + 1) if isinstance(item, int) else item
            if not isinstance(part, range) or part.step != 1 or part.start < 0:
                raise UsageError(
                    "skip_steps takes steps of the run, counted from 0, and ranges of them with "
                    f"step 1; got {item!r}"
                )
            if part:
                found.append((part.start, part.stop))
        merged: list[tuple[int, int]] = []
        for start, stop in sorted(found):
            if merged and start <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(stop, merged[-1][1])
            else:
                merged.append((start, stop))
        return cls(ranges=tuple(merged))

    def __bool__(self) -> bool:
        """Whether any step is left out."""
        return bool(self.ranges)

    def count(self, start: int, stop: int) -> int:
        """How many steps from `start` on and below `stop` are left out."""
        return self._below(stop) - self._below(start)

    def first_from(self, step: int) -> int | None:
        """The first step from `step` on that is left out."""
        i = bisect_right(self._stops, step)
        return max(step, self.ranges[i][0]) if i < len(self.ranges) else None

    def after(self, start: int, steps: int) -> int:
        """The first step from `start` on that has `steps` kept ones between, and is kept itself."""
        rank = start - self._below(start) + steps
        return rank + self._totals[bisect_right(self._ranks, rank)]

    def _below(self, step: int) -> int:
        i = bisect_right(self._starts, step)
        return self._totals[i] - (max(self._stops[i - 1] - step, 0) if i else 0)

    @cached_property
    def _starts(self) -> list[int]:
        return [start for start, _ in self.ranges]

    @cached_property
    def _stops(self) -> list[int]:
        return [stop for _, stop in self.ranges]

    @cached_property
    def _totals(self) -> list[int]:
        """Steps in the first 0, 1, … ranges."""
        return [0, *accumulate(stop - start for start, stop in self.ranges)]

    @cached_property
    def _ranks(self) -> list[int]:
        """How many kept steps lie before each range."""
        return [start - total for start, total in zip(self._starts, self._totals, strict=False)]
