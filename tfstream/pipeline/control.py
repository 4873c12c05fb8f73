"""Where training stands, and the tap: what a callback and the graph say to each other.

The graph reads a variable once an iterator, and puts an entry a window into a queue while a
callback wants it. An entry is in the queue before the first batch of its window leaves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Tensor = Any

_NEXT, _MANAGED, _TAP, _GENERATION = range(4)
_UNBOUNDED = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one window of one iterator held."""

    generation: int
    """Number of the iterator; a later one has a larger number."""
    epoch: int
    window: int
    """0-based within the epoch."""
    first_step: int
    """The first step that it speaks for, counted over the run."""
    row_fingerprints: NDArray[Any]
    """(steps,) uint64, taken from the row ids in the records' own headers."""
    label_fingerprints: NDArray[Any]
    """(steps,) uint64, taken from the labels' bits; 0 where there is no label."""
    blocks: NDArray[Any]
    """(reads,) int64: ordinals of the data set's blocks that were read."""


class Control:
    """One for all datasets of a stream; without a callback it only counts epochs."""

    def __init__(self, steps_per_epoch: int) -> None:
        """Start before the first step, with no callback."""
        self._steps_per_epoch = steps_per_epoch
        self._state = tf.Variable([0, 0, 0, 0], dtype=tf.int64, trainable=False, name="position")
        self._queue = tf.queue.FIFOQueue(_UNBOUNDED, [tf.int64, tf.uint64, tf.uint64, tf.int64])

    def begin(self, next_step: int) -> None:
        """Let each new iterator start at `next_step` until moved, and fill the queue."""
        self._set(_NEXT, next_step)
        self._set(_MANAGED, 1)
        self._set(_TAP, 1)
        while self.pop() is not None:
            pass

    def move(self, next_step: int) -> None:
        """Let the next iterator start at this step of the run."""
        self._set(_NEXT, next_step)

    def end(self) -> None:
        """Fill the queue no more, and let each new iterator take the next epoch."""
        self._set(_MANAGED, 0)
        self._set(_TAP, 0)

    def pop(self) -> Entry | None:
        """The oldest entry, or None if there is none now."""
        if not int(self._queue.size()):
            return None
        place, rows, labels, blocks = self._queue.dequeue()
        generation, epoch, window, first_step = (int(number) for number in place)
        return Entry(
            generation=generation,
            epoch=epoch,
            window=window,
            first_step=first_step,
            row_fingerprints=np.asarray(rows),
            label_fingerprints=np.asarray(labels),
            blocks=np.asarray(blocks),
        )

    def start(self) -> tuple[Tensor, Tensor, Tensor]:
        """In the graph, once an iterator: its first step, its generation, and the tap."""
        state = self._state.read_value()
        first, generation = state[_NEXT], state[_GENERATION] + 1
        steps = self._steps_per_epoch
        following = tf.where(state[_MANAGED] > 0, first, (first // steps + 1) * steps)
        changed = tf.stack([following, state[_MANAGED], state[_TAP], generation])
        with tf.control_dependencies([self._state.assign(changed)]):
            return tf.identity(first), tf.identity(generation), state[_TAP] > 0

    def put(self, place: Tensor, rows: Tensor, labels: Tensor, blocks: Tensor) -> Any:  # noqa: ANN401
        """In the graph: the operation that adds an entry, made of its fields."""
        return self._queue.enqueue([place, rows, labels, blocks])

    def _set(self, field: int, value: int) -> None:
        self._state.scatter_nd_update([[field]], [value])
