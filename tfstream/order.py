"""The definition of order: which rows a step has, as arithmetic and nothing else.

Everything here is a function of a few integers. It is written once over the handful of array
operations that numpy and TensorFlow share (`Arrays`), so the plan that a person asks for and the
plan that the input pipeline follows are the same code. No library's random stream takes part: what
is computed today is computed forever.

The order of an epoch, from the outside in:

1. The blocks of the subset are permuted; their kept rows, one after the other, are the *sequence*
   of the epoch.
2. The first `full_steps * batch_size` rows of the sequence are cut into `stretches` equal
   stretches. Step `i` takes the next `batch_size / stretches` rows of every stretch.
3. Each stretch is cut into windows of `window_steps` steps, and the rows of a window are permuted.
4. What is left of the sequence, fewer than `batch_size` rows, is one last, shorter batch (or is
   dropped).

The windows of all stretches that are open at the same time are one window of this module:
`window_steps * batch_size` rows.

A `Layout` changes the first step: it puts *entries* in the place of blocks. An entry is a range of
the kept rows of a block, all of them or a keyed part that is another one each epoch; a block may
have several (weights). Runs of entries may stay together (shards). With `batches="group"` the
permuted entries are sorted by group, steps are cut out of the rows of each group, and the steps of
an epoch are permuted in place of 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfstream.arrays import NUMPY, Array, Arrays, NumpyArrays
from tfstream.entries import Layout, Parts
from tfstream.share import WHOLE, Share
from tfstream.spec import Spec

__all__ = [
    "GOLDEN",
    "MIN_BITS",
    "NUMPY",
    "ROUNDS",
    "Array",
    "Arrays",
    "Epoch",
    "Layout",
    "NumpyArrays",
    "Spec",
    "Window",
    "epoch_of",
    "first_step_of",
    "key",
    "keyed_ranks",
    "mix",
    "permutations",
    "rows_of_steps",
    "rows_permuted",
    "window_of",
    "window_with",
]

ROUNDS = 8
"""Rounds of the bijection. Four fail at lags of half and a quarter of a power of two."""

MIN_BITS = 8
"""On 3 to 6 bits eight rounds are not uniform: over 50,000 keys lag differences deviate by 10 to 30
standard errors for n = 8, 16, 32 and 64. Filtered out of eight bits they are."""

GOLDEN = 0x9E3779B97F4A7C15
"""What splitmix64 adds before it mixes: 2^64 divided by the golden ratio, odd."""
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_BLOCKS, _ROWS, _TAIL, _PARTS, _ROUNDING, _STEPS = 1, 2, 3, 4, 5, 6
"""Purposes: what a key is for. A number here is part of every golden order."""


def mix(xp: Arrays, values: Array) -> Array:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014): a bijection on 64 bits.

    Args:
        xp: the array operations.
        values: uint64, any shape.

    Returns:
        uint64 of the same shape.
    """
    values = (values ^ xp.right_shift(values, 30)) * xp.uint64(_MIX_1)
    values = (values ^ xp.right_shift(values, 27)) * xp.uint64(_MIX_2)
    return values ^ xp.right_shift(values, 31)


def key(xp: Arrays, *parts: Array) -> Array:
    """One 64-bit key from several integers, by absorbing them in turn.

    Two lists of the same length that differ in one integer have different keys; sums never meet
    (seed 42 in
    epoch 1 is not seed 43 in epoch 0).
    """
    absorbed = xp.uint64(0)
    for part in parts:
        absorbed = mix(xp, (absorbed ^ xp.uint64(part)) + xp.uint64(GOLDEN))
    return absorbed


def permutations(xp: Arrays, keys: Array, n: Array) -> Array:
    """One permutation of [0, n) a key.

    With 2^k the first power of two not below n, k at least `MIN_BITS`, a round is
    x ← (a·x + b) mod 2^k; x ← x xor (x >> ⌈k/2⌉), a odd; after `ROUNDS` rounds of
    0, 1, …, 2^k - 1, what lies below n stays, in that order.

    Args:
        xp: the array operations.
        keys: (keys,) uint64.
        n: at least 1, at most 2^31.

    Returns:
        (keys, n) uint32.
    """
    counters = xp.uint64(xp.arange(2 * ROUNDS) + 1) * xp.uint64(GOLDEN)
    constants = xp.uint32(xp.right_shift(mix(xp, xp.reshape(keys, -1, 1) + counters), 32))
    last = xp.uint32(n - 1)
    widest = last | xp.uint32(2**MIN_BITS - 1)
    bits = xp.sum(xp.uint32(xp.right_shift(widest, xp.uint32(xp.arange(32))) != xp.uint32(0)))
    size = 2 ** xp.int64(bits)
    mask, shift = xp.uint32(size - 1), xp.right_shift(bits + xp.uint32(1), 1)
    x = xp.reshape(xp.uint32(xp.arange(size)), 1, -1)
    for i in range(ROUNDS):
        odd = xp.reshape(constants[:, 2 * i], -1, 1) | xp.uint32(1)
        x = (x * odd + xp.reshape(constants[:, 2 * i + 1], -1, 1)) & mask
        x = x ^ xp.right_shift(x, shift)
    return xp.reshape(xp.compress(x <= last, x), -1, n)


@dataclass(frozen=True, slots=True)
class Epoch:
    """The sequence of one epoch."""

    blocks: Array
    """(blocks,) int64: the subset's blocks in the order in which the sequence has them; entries, if
    there is a layout."""
    ends: Array
    """(blocks,) int64: where the kept rows of each stop in the sequence."""
    starts: Array = None
    """(steps,) int64: where each step begins in the sequence, if batches are of one group."""
    sizes: Array = None
    """(steps,) int64: rows of each step, likewise."""

    @property
    def arrays(self) -> tuple[Array, ...]:
        """What there is, so that `Epoch(*arrays)` is the same."""
        found = (self.blocks, self.ends, self.starts, self.sizes)
        return tuple(array for array in found if array is not None)


@dataclass(frozen=True, slots=True)
class Window:
    """What one window reads, and how its batches are picked from it."""

    blocks: Array
    """(reads,) int64: blocks of the subset to read, in this order; one on a boundary may come
    twice."""
    picks: Array
    """(steps, rows) int64: for each row of each batch, its place among the kept rows of those
    blocks."""


def epoch_of(
    xp: Arrays, spec: Spec, kept: Array, epoch: Array, *, layout: Layout | None = None
) -> Epoch:
    """The sequence of an epoch.

    Args:
        xp: the array operations.
        spec: the order's numbers.
        kept: (blocks,) int64, rows kept of each block of the subset, each at least 1.
        epoch: 0-based.
        layout: what stands in the place of blocks; the blocks if None.
    """
    if layout is not None:
        return _entries_of(xp, spec, layout, epoch)
    if spec.shuffle == "none":
        return Epoch(xp.arange(spec.blocks), xp.cumsum(kept))
    keys = key(xp, spec.seed, epoch, _BLOCKS, 0)
    blocks = xp.int64(xp.reshape(permutations(xp, keys, spec.blocks), -1))
    return Epoch(blocks, xp.cumsum(xp.take(kept, blocks)))


def _entries_of(xp: Arrays, spec: Spec, layout: Layout, epoch: Array) -> Epoch:
    """The sequence of an epoch that is laid out."""
    count = int(layout.rows.shape[0])
    entries = xp.arange(count)
    if spec.shuffle != "none":
        runs = count if layout.runs is None else int(layout.runs.shape[0])
        keys = key(xp, spec.seed, epoch, _BLOCKS, 0)
        entries = xp.int64(xp.reshape(permutations(xp, keys, runs), -1))
    if layout.runs is not None:
        sizes = xp.take(layout.runs, entries)
        ends, all_ends = xp.cumsum(sizes), xp.cumsum(layout.runs)
        place = xp.arange(count)
        run = xp.search(ends, place)
        entries = place + xp.take(xp.take(all_ends, entries) - ends, run)
    if layout.group is not None:
        # No two values are equal, so that any sort gives this order.
        ranks = xp.take(layout.group, entries) * count + xp.arange(count)
        entries = xp.take(entries, xp.argsort(ranks))
    rows = xp.take(layout.rows, entries)
    if layout.parts is not None:
        rows = _part_of(xp, spec, layout.parts, (entries, rows), epoch)
        entries, rows = xp.compress(rows > 0, entries), xp.compress(rows > 0, rows)
    if layout.starts is None:
        return Epoch(entries, xp.cumsum(rows))
    steps = xp.concat(
        _steps_permuted(xp, spec, epoch, spec.full_steps, 0),
        _steps_permuted(xp, spec, epoch, spec.tail_steps, 1) + spec.full_steps,
    )
    starts, sizes = xp.take(layout.starts, steps), xp.take(layout.sizes, steps)
    return Epoch(entries, xp.cumsum(rows), starts, sizes)


def _steps_permuted(xp: Arrays, spec: Spec, epoch: Array, steps: int, kind: int) -> Array:
    """The order of the full steps, kind 0, or of the shorter ones, kind 1, of one group each."""
    if spec.shuffle == "none" or not steps:
        return xp.arange(steps)
    keys = key(xp, spec.seed, epoch, _STEPS, kind)
    return xp.int64(xp.reshape(permutations(xp, keys, steps), -1))


def rows_of_steps(spec: Spec, epochs: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """How many rows steps of epochs have, (n,) int64 like its arguments."""
    rows = np.where(steps < spec.full_steps, spec.batch_size, spec.tail_rows)
    if spec.tails:
        tails, shorter = np.asarray(spec.tails), steps >= spec.full_steps
        for epoch in np.unique(epochs[shorter]):
            some = np.flatnonzero(shorter & (epochs == epoch))
            permuted = _steps_permuted(NUMPY, spec, epoch, len(tails), 1)
            rows[some] = tails[permuted[steps[some] - spec.full_steps]]
    return rows


def _part_of(
    xp: Arrays, spec: Spec, parts: Parts, ranges: tuple[Array, Array], epoch: Array
) -> Array:
    """How many rows entries with ranges of these rows have in an epoch, (entries,) int64."""
    entries, rows = ranges
    whole, part = xp.take(parts.unit_rows, entries), xp.take(parts.unit_part, entries)
    keys = key(xp, spec.seed, epoch, _ROUNDING, xp.take(parts.unit, entries))
    start = xp.int64(xp.right_shift(keys, 1)) % whole
    sums = xp.take(parts.before, entries) * part + start
    return (sums + rows * part) // whole - sums // whole


def keyed_ranks(xp: Arrays, spec: Spec, parts: Parts, entries: Array, epoch: Array) -> Array:
    """For each entry the rows of a range in keyed order, (entries, longest) int64.

    The rows of its part are the first ones of those below its rows.
    """
    keys = key(xp, spec.seed, epoch, _PARTS, entries)
    return xp.int64(permutations(xp, keys, parts.longest))


def window_with(xp: Arrays, spec: Spec, step: Array) -> Array:
    """The window that holds a step of an epoch."""
    after = xp.where(step < spec.full_steps, 0, step - spec.full_steps)
    return xp.where(step < spec.full_steps, step // spec.window_steps, spec.full_windows + after)


def first_step_of(xp: Arrays, spec: Spec, window: Array) -> Array:
    """The first step of a window, counted from the start of the epoch."""
    after = xp.where(window < spec.full_windows, 0, window - spec.full_windows)
    return xp.minimum(window * spec.window_steps, spec.full_steps) + after


def window_of(  # noqa: PLR0913 - what a window depends on
    xp: Arrays,
    spec: Spec,
    sequence: Epoch,
    epoch: Array,
    window: Array,
    *,
    layout: Layout | None = None,
    share: Share = WHOLE,
) -> Window:
    """One window of an epoch, or a worker's part of it.

    A part is the worker's own stretches; with shuffle="none", and of the shorter batch, it is a
    slice of each batch, filled up with its last row.

    Args:
        xp: the array operations.
        spec: the order's numbers.
        sequence: the epoch's, from `epoch_of`.
        epoch: 0-based.
        window: 0-based within the epoch, below `spec.windows_per_epoch`.
        layout: as for `epoch_of`.
        share: the worker's; checked by `Share.check`.
    """
    is_tail = window >= spec.full_windows
    first = first_step_of(xp, spec, window)
    steps = xp.where(is_tail, 1, xp.minimum(first + spec.window_steps, spec.full_steps) - first)
    if sequence.starts is not None:
        # Each step is a stretch of its own, of all its rows.
        stretches, steps, rows = steps, 1, xp.take(sequence.sizes, first)
        batch = width = rows
        index = xp.arange(stretches)
        starts = xp.take(sequence.starts, first + index)
    else:
        own = spec.stretches if spec.shuffle == "none" else spec.stretches // share.count
        skipped = 0 if spec.shuffle == "none" else own * share.index
        stretches = xp.where(is_tail, 1, own)
        rows = xp.where(is_tail, spec.tail_rows, spec.batch_size // spec.stretches)
        batch, width = stretches * rows, steps * rows
        index = xp.arange(stretches) + xp.where(is_tail, 0, skipped)
        starts = index * (spec.full_steps * (spec.batch_size // spec.stretches)) + first * xp.where(
            is_tail, spec.batch_size, rows
        )
    low = xp.search(sequence.ends, starts)
    reads = xp.search(sequence.ends, starts + width - 1) + 1 - low
    read_ends = xp.cumsum(reads)
    place = xp.arange(xp.sum(reads))
    stretch = xp.search(read_ends, place)
    positions = place + xp.take(low + reads - read_ends, stretch)
    # Where each stretch's rows begin among the rows of all blocks read.
    sequence_ends = xp.concat(xp.int64(xp.arange(1)), sequence.ends)
    before, after = xp.take(sequence_ends, low), xp.take(sequence_ends, low + reads)
    bases = xp.cumsum(after - before) - after + starts
    if spec.shuffle == "none":
        places = xp.reshape(bases, -1, 1) + xp.reshape(xp.arange(width), 1, -1)
    else:
        purpose = xp.where(is_tail, _TAIL, _ROWS)
        keys = key(xp, spec.seed, epoch, purpose, window, index)
        places = xp.reshape(bases, -1, 1) + xp.int64(permutations(xp, keys, width))
    picks = xp.reshape(xp.swap(xp.reshape(places, stretches, steps, rows)), -1, batch)
    picks = share.cut(xp, spec, picks, steps, is_tail)
    blocks = xp.take(sequence.blocks, positions)
    if layout is None or not layout.ranged:
        return Window(blocks, picks)
    sizes = xp.take(sequence_ends, positions + 1) - xp.take(sequence_ends, positions)
    table = _table_of(xp, spec, layout, (blocks, sizes), epoch)
    return Window(xp.take(layout.block, blocks), xp.take(table, picks))


def rows_permuted(xp: Arrays, spec: Spec, epoch: Array, window: int, stretch: int) -> Array:
    """The order of the rows of one stretch in a window of full, mixed batches; (rows,) int64."""
    first = window * spec.window_steps
    steps = min(first + spec.window_steps, spec.full_steps) - first
    keys = key(xp, spec.seed, epoch, _ROWS, window, stretch)
    width = steps * (spec.batch_size // spec.stretches)
    return xp.int64(xp.reshape(permutations(xp, keys, width), -1))


def _table_of(
    xp: Arrays, spec: Spec, layout: Layout, read: tuple[Array, Array], epoch: Array
) -> Array:
    """For each row of some entries its place among the kept rows of their blocks, in a vector.

    Args:
        xp: the array operations.
        spec: the order's numbers.
        layout: the epoch's.
        read: the entries, and how many rows each has in the epoch.
        epoch: 0-based.
    """
    entries, rows = read
    kept = xp.take(layout.kept, xp.take(layout.block, entries))
    lows = xp.cumsum(kept) - kept + xp.take(layout.low, entries)
    if layout.parts is None:
        ends = xp.cumsum(rows)
        place = xp.arange(xp.sum(rows))
        return place + xp.take(lows + rows - ends, xp.search(ends, place))
    ranks = keyed_ranks(xp, spec, layout.parts, entries, epoch)
    inside = ranks < xp.reshape(xp.take(layout.rows, entries), -1, 1)
    first = xp.row_cumsum(xp.int64(inside)) <= xp.reshape(rows, -1, 1)
    return xp.compress(inside & first, ranks + xp.reshape(lows, -1, 1))
