"""What stands in the place of blocks in the sequence of an epoch, as arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np

from tfstream.arrays import Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """What the sequence of an epoch is made of, where that is not each block once."""

    kept: Array
    """(blocks,) int64: rows kept of each block of the subset."""
    block: Array
    """(entries,) int64: the block of each entry."""
    low: Array
    """(entries,) int64: the first row of its range, counted in the kept rows of the block."""
    rows: Array
    """(entries,) int64: rows of its range, at least 1."""
    ranged: bool
    """Whether the entries are something else than the blocks, one after the other."""
    runs: Array | None = None
    """(runs,) int64: so many entries stay together; None if each is permuted by itself."""
    parts: Parts | None = None
    """How many rows of its range an entry has in an epoch; None if it has all."""
    group: Array | None = None
    """(entries,) int64: the group of each, if batches are of one group."""
    starts: Array | None = None
    """(steps,) int64: where each batch begins in the sequence, if batches are of one group: the
    full ones, then the shorter ones."""
    sizes: Array | None = None
    """(steps,) int64: rows of each batch, likewise."""

    def mapped(self, made: Callable[[np.ndarray], Array]) -> Layout:
        """The same with arrays of another kind."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        changed = {n: made(a) for n, a in arrays.items() if isinstance(a, np.ndarray)}
        if self.parts is not None:
            changed["parts"] = self.parts.mapped(made)
        return replace(self, **changed)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parts:
    """The rows that entries have in an epoch: `unit_part` of the `unit_rows` of several together.

    They are dealt out by rounding running sums up or down, from a keyed start, so that their sum is
    the same in each epoch and no entry is always rounded down.
    """

    unit: Array
    """(entries,) int64: entries of one unit share their rounding."""
    before: Array
    """(entries,) int64: rows of the unit before the entry's."""
    unit_rows: Array
    """(entries,) int64: rows of all entries of the unit, below 2^31."""
    unit_part: Array
    """(entries,) int64: how many of them an epoch has; all if `unit_rows`."""
    longest: int
    """Rows of the largest entry."""

    def mapped(self, made: Callable[[np.ndarray], Array]) -> Parts:
        """The same with arrays of another kind."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{n: made(a) for n, a in arrays.items() if isinstance(a, np.ndarray)})
