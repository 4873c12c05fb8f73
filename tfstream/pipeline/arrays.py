"""`order.Arrays` by TensorFlow, so that the graph follows the same order as numpy."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

Tensor = Any


class TensorFlowArrays:
    """`Arrays` over tensors; sizes may be known only when the graph runs."""

    def uint64(self, values: Tensor) -> Tensor:
        if isinstance(values, int):
            return tf.constant([values], tf.uint64)
        values = tf.cast(values, tf.uint64)
        return tf.reshape(values, [1]) if values.shape.rank == 0 else values

    def uint32(self, values: Tensor) -> Tensor:
        return tf.cast(values, tf.uint32)

    def int64(self, values: Tensor) -> Tensor:
        return tf.cast(values, tf.int64)

    def arange(self, stop: Tensor) -> Tensor:
        return tf.range(tf.cast(stop, tf.int64), dtype=tf.int64)

    def right_shift(self, values: Tensor, bits: Tensor) -> Tensor:
        return tf.bitwise.right_shift(values, tf.cast(bits, values.dtype))

    def minimum(self, left: Tensor, right: Tensor) -> Tensor:
        return tf.minimum(tf.cast(left, tf.int64), tf.cast(right, tf.int64))

    def where(self, condition: Tensor, left: Tensor, right: Tensor) -> Tensor:
        return tf.where(condition, tf.cast(left, tf.int64), tf.cast(right, tf.int64))

    def compress(self, mask: Tensor, values: Tensor) -> Tensor:
        return tf.boolean_mask(values, mask)

    def reshape(self, values: Tensor, *shape: Tensor) -> Tensor:
        return tf.reshape(values, tf.stack([tf.cast(n, tf.int64) for n in shape]))

    def swap(self, values: Tensor) -> Tensor:
        return tf.transpose(values, [1, 0, 2])

    def sum(self, values: Tensor) -> Tensor:
        return tf.reduce_sum(values)

    def row_sums(self, values: Tensor) -> Tensor:
        return tf.reduce_sum(values, axis=1)

    def row_cumsum(self, values: Tensor) -> Tensor:
        return tf.cumsum(values, axis=1)

    def argsort(self, values: Tensor) -> Tensor:
        return tf.cast(tf.argsort(values), tf.int64)

    def cumsum(self, values: Tensor) -> Tensor:
        return tf.cumsum(values)

    def take(self, values: Tensor, indices: Tensor) -> Tensor:
        return tf.gather(values, indices)

    def search(self, ends: Tensor, positions: Tensor) -> Tensor:
        return tf.searchsorted(ends, positions, side="right", out_type=tf.int64)

    def concat(self, left: Tensor, right: Tensor) -> Tensor:
        return tf.concat([left, right], 0)


TENSORFLOW = TensorFlowArrays()
