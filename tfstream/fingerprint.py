"""Fingerprints of batches: they prove that the rows computed are those that came, in that order."""

from __future__ import annotations

from tfstream.order import GOLDEN, Array, Arrays, mix


def fingerprints(xp: Arrays, values: Array) -> Array:
    """One 64-bit fingerprint a batch: the sum of mixed values, each weighted by its place.

    With m the mixing of splitmix64 and g its golden constant, it is
    Σ m(value_i + g) · (m(i + 1) | 1) mod 2^64 over the places i of the batch. Without g the value 0
    would weigh nothing.

    Args:
        xp: the array operations.
        values: (steps, rows) uint64: row ids, or the bits of labels.

    Returns:
        (steps,) uint64.
    """
    places = xp.uint64(xp.cumsum(xp.int64(values[0] * xp.uint64(0)) + 1))
    weights = mix(xp, places) | xp.uint64(1)
    return xp.row_sums(mix(xp, values + xp.uint64(GOLDEN)) * weights)
