"""Which rows of partly kept blocks are kept, as bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfstream.format.subset import Subset

Tensor = Any


def bits(lines: Tensor, width: Tensor) -> Tensor:
    """The first `width` bits of each line, lowest bit first; (lines, width) bool."""
    shifts = tf.constant(np.arange(8), tf.uint8)
    bits = tf.bitwise.bitwise_and(tf.bitwise.right_shift(lines[:, :, tf.newaxis], shifts), 1)
    return tf.reshape(bits, [tf.shape(lines)[0], -1])[:, :width] > 0


def bitmaps_of(subset: Subset) -> tuple[Tensor, Tensor] | None:
    """For each block its line in a matrix that tells which rows are kept; None if all are.

    The last line, for the blocks that are kept whole, has all bits set.
    """
    if not len(subset.lines):
        return None
    full = np.full((1, subset.lines.shape[1]), 255, np.uint8)
    lines = np.concatenate([subset.lines, full])
    line = np.where(subset.line < 0, len(subset.lines), subset.line)
    return tf.constant(line, tf.int32), tf.constant(lines)
