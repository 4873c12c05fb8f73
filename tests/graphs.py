"""Orders as a tf.data pipeline computes them: inside a graph, with epoch and window as tensors."""

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import tensorflow as tf

from tfstream.order import Spec, Window, epoch_of, window_of
from tfstream.pipeline.arrays import TENSORFLOW

NUMBER = tf.TensorSpec((), tf.int64)


@cache
def graph_of(spec: Spec) -> Callable[[np.ndarray, int, int], Window]:
    """A function of (kept, epoch, window), traced once, that gives the window as numpy arrays."""

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.int64), NUMBER, NUMBER])
    def blocks_and_picks(kept: tf.Tensor, epoch: tf.Tensor, window: tf.Tensor) -> tuple:
        sequence = epoch_of(TENSORFLOW, spec, kept, epoch)
        made = window_of(TENSORFLOW, spec, sequence, epoch, window)
        return made.blocks, made.picks

    def call(kept: np.ndarray, epoch: int, window: int) -> Window:
        numbers = [tf.constant(number, tf.int64) for number in (kept, epoch, window)]
        return Window(*(tensor.numpy() for tensor in blocks_and_picks(*numbers)))

    return call


def graph_windows_of(spec: Spec, kept: np.ndarray, epoch: int) -> Iterator[Window]:
    """The windows of an epoch, by TensorFlow."""
    graph = graph_of(spec)
    for window in range(spec.windows_per_epoch):
        yield graph(kept, epoch, window)
