"""The array operations that order is written over, and numpy's."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

Array = Any
"""A numpy array or a TensorFlow tensor, as the `Arrays` at hand makes them."""


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

    def row_cumsum(self, values: Array) -> Array:
        """Running sums along each row of a matrix."""

    def argsort(self, values: Array) -> Array:
        """The places of a vector's values, all different, in ascending order; int64."""

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

    def row_cumsum(self, values: Array) -> Array:
        return np.cumsum(values, axis=1)

    def argsort(self, values: Array) -> Array:
        return np.argsort(values)

    def cumsum(self, values: Array) -> Array:
        return np.cumsum(values)

    def take(self, values: Array, indices: Array) -> Array:
        return values[indices]

    def search(self, ends: Array, positions: Array) -> Array:
        return np.searchsorted(ends, positions, side="right").astype(np.int64)

    def concat(self, left: Array, right: Array) -> Array:
        return np.concatenate([left, right])


NUMPY = NumpyArrays()
