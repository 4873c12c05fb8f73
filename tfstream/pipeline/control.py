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

_NEXT, _STOP, _MANAGED, _TAP, _GENERATION = range(5)
_UNBOUNDED = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one window of one iterator held."""

    generation: int
    """Number of the iterator; a later one has a larger number."""
    epoch: int
    window: int
    """0-based within the epoch."""
    steps: NDArray[Any]
    """(steps,) int64: those that it speaks for, ascending, counted over the run."""
    row_fingerprints: NDArray[Any]
    """(steps,) uint64, taken from the row ids in the records' own headers."""
    label_fingerprints: NDArray[Any]
    """(steps,) uint64, taken from the labels' bits; 0 where there is no label."""
    blocks: NDArray[Any]
    """(reads,) int64: ordinals of the data set's blocks that were read."""
    ready_s: float
    """When its batches were there, in seconds since 1970."""


class Control:
    """One for all datasets of a stream; without a callback it only counts epochs."""

    def __init__(self, steps_per_epoch: int) -> None:
        """Start before the first step, with no callback."""
        self._steps_per_epoch = steps_per_epoch
        self._origin: int | None = None
        self._state = tf.Variable(
            [0, steps_per_epoch, 0, 0, 0], dtype=tf.int64, trainable=False, name="position"
        )
        self._queue = tf.queue.FIFOQueue(
            _UNBOUNDED, [tf.int64, tf.int64, tf.uint64, tf.uint64, tf.int64, tf.float64]
        )

    @property
    def is_moved(self) -> bool:
        """Whether `start_at` named a step that no fit has begun at yet."""
        return self._origin is not None

    def start_at(self, step: int) -> None:
        """Let the next iterator, or the next fit with a callback, start at this step of the run."""
        self._origin = step
        self.move(step)

    def take_origin(self) -> int | None:
        """The step that `start_at` named, for the one fit that begins there."""
        origin, self._origin = self._origin, None
        return origin

    def manage(self) -> None:
        """Let each new iterator start where it was moved last."""
        self._set(_MANAGED, 1)

    def move(self, next_step: int, stop: int | None = None) -> None:
        """Let the next iterator go from one step of the run to another.

        Args:
            next_step: its first.
            stop: the one after its last, in the same epoch; by default it ends with that.
        """
        steps = self._steps_per_epoch
        stop = (next_step // steps + 1) * steps if stop is None else stop
        self._state.scatter_nd_update([[_NEXT], [_STOP]], [next_step, stop])

    def listen(self) -> None:
        """Fill the queue, from the next iterator on."""
        self._set(_TAP, 1)
        while self.pop() is not None:
            pass

    def mute(self) -> None:
        """Fill the queue no more."""
        self._set(_TAP, 0)

    def end(self) -> None:
        """Let each new iterator take the next epoch."""
        self._set(_MANAGED, 0)

    def pop(self) -> Entry | None:
        """The oldest entry, or None if there is none now."""
        if not int(self._queue.size()):
            return None
        place, steps, rows, labels, blocks, ready = self._queue.dequeue()
        generation, epoch, window = (int(number) for number in place)
        return Entry(
            generation=generation,
            epoch=epoch,
            window=window,
            steps=np.asarray(steps),
            row_fingerprints=np.asarray(rows),
            label_fingerprints=np.asarray(labels),
            blocks=np.asarray(blocks),
            ready_s=float(ready),
        )

    def start(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """In the graph, once an iterator: its first step, its end, its generation, and the tap."""
        state = self._state.read_value()
        first, stop, generation = state[_NEXT], state[_STOP], state[_GENERATION] + 1
        is_managed = state[_MANAGED] > 0
        changed = tf.stack(
            [
                tf.where(is_managed, first, stop),
                tf.where(is_managed, stop, stop + self._steps_per_epoch),
                state[_MANAGED],
                state[_TAP],
                generation,
            ]
        )
        with tf.control_dependencies([self._state.assign(changed)]):
            return (
                tf.identity(first),
                tf.identity(stop),
                tf.identity(generation),
                state[_TAP] > 0,
            )

    def put(self, *entry: Tensor) -> Any:  # noqa: ANN401
        """In the graph: the operation that adds an entry.

        Args:
            entry: (generation, epoch, window); the steps; row, then label fingerprints; blocks.
        """
        return self._queue.enqueue([*entry, tf.timestamp()])

    def _set(self, field: int, value: int) -> None:
        self._state.scatter_nd_update([[field]], [value])
