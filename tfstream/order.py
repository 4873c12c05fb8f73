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
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from tfstream.errors import UsageError
from tfstream.share import WHOLE, Share

Array = Any
"""A numpy array or a TensorFlow tensor, as the `Arrays` at hand makes them."""

ROUNDS = 8
"""Rounds of the bijection. Four fail at lags of half and a quarter of a power of two."""

MIN_BITS = 8
"""On 3 to 6 bits eight rounds are not uniform: over 50,000 keys lag differences deviate by 10 to 30
standard errors for n = 8, 16, 32 and 64. Filtered out of eight bits they are."""

GOLDEN = 0x9E3779B97F4A7C15
"""What splitmix64 adds before it mixes: 2^64 divided by the golden ratio, odd."""
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_BLOCKS, _ROWS, _TAIL = 1, 2, 3
"""Purposes: what a key is for. A number here is part of every golden order."""


class Arrays(Protocol):
    """The array operations that order needs; integers wrap around on overflow."""

    def uint64(self, values: Array) -> Array:
        """The values as uint64, at least one-dimensional."""

    def uint32(self, values: Array) -> Array:
        """The low 32 bits of the values."""

    def int64(self, values: Array) -> Array:
        """The values as int64."""

    def arange(self, stop: Array) -> Array:
        """0, 1, … below `stop`, int64."""

    def right_shift(self, values: Array, bits: Array) -> Array:
        """The values shifted right, zeros coming in."""

    def minimum(self, left: Array, right: Array) -> Array:
        """The smaller of each pair."""

    def where(self, condition: Array, left: Array, right: Array) -> Array:
        """`left` where the condition holds, else `right`."""

    def compress(self, mask: Array, values: Array) -> Array:
        """The values where the mask of the same shape holds, flat, in row-major order."""

    def reshape(self, values: Array, *shape: Array) -> Array:
        """The values in another shape."""

    def swap(self, values: Array) -> Array:
        """The first two axes exchanged."""

    def sum(self, values: Array) -> Array:
        """The sum of all values."""

    def row_sums(self, values: Array) -> Array:
        """The sum of each row of a matrix."""

    def cumsum(self, values: Array) -> Array:
        """Running sums of a vector."""

    def take(self, values: Array, indices: Array) -> Array:
        """The values at the indices, along the first axis."""

    def search(self, ends: Array, positions: Array) -> Array:
        """For each position, how many of the sorted `ends` are not above it; int64."""

    def concat(self, left: Array, right: Array) -> Array:
        """Two vectors, one after the other."""


class NumpyArrays:
    """`Arrays` by numpy."""

    def uint64(self, values: Array) -> Array:
        return np.atleast_1d(np.asarray(values)).astype(np.uint64)

    def uint32(self, values: Array) -> Array:
        return np.asarray(values).astype(np.uint32)

    def int64(self, values: Array) -> Array:
        return np.asarray(values).astype(np.int64)

    def arange(self, stop: Array) -> Array:
        return np.arange(int(stop), dtype=np.int64)

    def right_shift(self, values: Array, bits: Array) -> Array:
        return np.right_shift(values, np.asarray(bits).astype(values.dtype))

    def minimum(self, left: Array, right: Array) -> Array:
        return np.minimum(left, right)

    def where(self, condition: Array, left: Array, right: Array) -> Array:
        return np.where(condition, left, right)

    def compress(self, mask: Array, values: Array) -> Array:
        return values[mask]

    def reshape(self, values: Array, *shape: Array) -> Array:
        return values.reshape([int(n) for n in shape])

    def swap(self, values: Array) -> Array:
        return np.swapaxes(values, 0, 1)

    def sum(self, values: Array) -> Array:
        return np.sum(values)

    def row_sums(self, values: Array) -> Array:
        return np.sum(values, axis=1, dtype=values.dtype)

    def cumsum(self, values: Array) -> Array:
        return np.cumsum(values)

    def take(self, values: Array, indices: Array) -> Array:
        return values[indices]

    def search(self, ends: Array, positions: Array) -> Array:
        return np.searchsorted(ends, positions, side="right").astype(np.int64)

    def concat(self, left: Array, right: Array) -> Array:
        return np.concatenate([left, right])


NUMPY = NumpyArrays()


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What determines the order of a stream, besides the rows kept of each block."""

    subset: str
    """Digest of the subset."""
    rows: int
    """Rows of the subset, at least 1."""
    blocks: int
    """Blocks of the subset with at least one kept row."""
    batch_size: int
    """Rows of a batch over all workers."""
    remainder: Literal["keep", "drop"]
    """Whether the last rows of an epoch, fewer than a batch, are a batch of their own."""
    shuffle: Literal["global", "none"]
    """"none": the order of the manifest."""
    window_steps: int
    """Steps whose rows are permuted together, at least 1."""
    stretches: int
    """Equal parts of the sequence that are open at the same time; divides the batch size."""
    seed: int
    """0 to 2^63 - 1."""

    def __post_init__(self) -> None:
        """Refuse numbers that no order can be made of."""
        for name, value, allowed in (
            ("remainder", self.remainder, ("keep", "drop")),
            ("shuffle", self.shuffle, ("global", "none")),
        ):
            if value not in allowed:
                raise UsageError(f'{name} is "{allowed[0]}" or "{allowed[1]}", not {value!r}')
        if self.shuffle == "none" and self.stretches != 1:
            raise UsageError(f'shuffle="none" has one stretch, got {self.stretches}')
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {self.batch_size}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must be from 0 to 2^63 - 1, got {self.seed}")
        if self.window_steps < 1 or self.window_steps * self.batch_size > 2**31:
            raise UsageError(
                f"a window must have from 1 step to 2^31 rows, got {self.window_steps} steps of "
                f"{self.batch_size} rows; set window_rows"
            )
        if self.stretches < 1 or self.batch_size % self.stretches:
            raise UsageError(
                f"stretches must divide batch_size, got {self.stretches} for {self.batch_size} rows"
            )
        if self.rows < 1:
            raise UsageError(
                "the subset has no rows, so no epoch has a step; choose another subset"
            )
        if self.steps_per_epoch < 1:
            raise UsageError(
                f"an epoch has no step: {self.rows} rows are fewer than one batch of "
                f'{self.batch_size} and remainder="drop"; use a smaller batch or remainder="keep"'
            )

    @property
    def full_steps(self) -> int:
        """Steps of an epoch with exactly `batch_size` rows."""
        return self.rows // self.batch_size

    @property
    def tail_rows(self) -> int:
        """Rows of the last, shorter batch; 0 where there is none."""
        return self.rows % self.batch_size if self.remainder == "keep" else 0

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return self.full_steps + (self.tail_rows > 0)

    @property
    def full_windows(self) -> int:
        """Windows of an epoch that hold full batches."""
        return -(-self.full_steps // self.window_steps)

    @property
    def windows_per_epoch(self) -> int:
        """Windows of an epoch; the shorter batch has one of its own."""
        return self.full_windows + (self.tail_rows > 0)

    def window_of(self, step: int) -> tuple[int, int]:
        """The window that holds a step of an epoch, and the step's place in it."""
        if step < self.full_steps:
            return divmod(step, self.window_steps)
        return self.full_windows, 0

    def first_step(self, window: int) -> int:
        """The first step of a window, counted from the start of the epoch."""
        return min(window * self.window_steps, self.full_steps)


@dataclass(frozen=True, slots=True)
class Epoch:
    """The sequence of one epoch."""

    blocks: Array
    """(blocks,) int64: the subset's blocks in the order in which the sequence has them."""
    ends: Array
    """(blocks,) int64: where the kept rows of each stop in the sequence."""


@dataclass(frozen=True, slots=True)
class Window:
    """What one window reads, and how its batches are picked from it."""

    blocks: Array
    """(reads,) int64: blocks of the subset to read, in this order; one on a boundary may come
    twice."""
    picks: Array
    """(steps, rows) int64: for each row of each batch, its place among the kept rows of those
    blocks."""


def epoch_of(xp: Arrays, spec: Spec, kept: Array, epoch: Array) -> Epoch:
    """The sequence of an epoch.

    Args:
        xp: the array operations.
        spec: the order's numbers.
        kept: (blocks,) int64, rows kept of each block of the subset, each at least 1.
        epoch: 0-based.
    """
    if spec.shuffle == "none":
        return Epoch(xp.arange(spec.blocks), xp.cumsum(kept))
    keys = key(xp, spec.seed, epoch, _BLOCKS, 0)
    blocks = xp.int64(xp.reshape(permutations(xp, keys, spec.blocks), -1))
    return Epoch(blocks, xp.cumsum(xp.take(kept, blocks)))


def window_of(  # noqa: PLR0913 - the place in the order, and whose part of it
    xp: Arrays,
    spec: Spec,
    sequence: Epoch,
    epoch: Array,
    window: Array,
    *,
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
        share: the worker's; checked by `Share.check`.
    """
    is_tail = window == spec.full_windows
    first = xp.minimum(window * spec.window_steps, spec.full_steps)
    steps = xp.where(is_tail, 1, xp.minimum(first + spec.window_steps, spec.full_steps) - first)
    own = spec.stretches if spec.shuffle == "none" else spec.stretches // share.count
    skipped = 0 if spec.shuffle == "none" else own * share.index
    stretches = xp.where(is_tail, 1, own)
    rows = xp.where(is_tail, spec.tail_rows, spec.batch_size // spec.stretches)
    width = steps * rows
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
    # Where each stretch's rows begin among the kept rows of all blocks read.
    sequence_ends = xp.concat(xp.int64(xp.arange(1)), sequence.ends)
    before, after = xp.take(sequence_ends, low), xp.take(sequence_ends, low + reads)
    bases = xp.cumsum(after - before) - after + starts
    if spec.shuffle == "none":
        places = xp.reshape(bases, -1, 1) + xp.reshape(xp.arange(width), 1, -1)
    else:
        purpose = xp.where(is_tail, _TAIL, _ROWS)
        keys = key(xp, spec.seed, epoch, purpose, window, index)
        places = xp.reshape(bases, -1, 1) + xp.int64(permutations(xp, keys, width))
    picks = xp.reshape(xp.swap(xp.reshape(places, stretches, steps, rows)), steps, -1)
    picks = share.cut(xp, spec, picks, steps, is_tail)
    return Window(xp.take(sequence.blocks, positions), picks)
