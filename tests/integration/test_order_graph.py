"""The order of numpy is the graph's: the pipeline follows the plan that a person asks for."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.graphs import NUMBER, graph_of, graph_windows_of
from tests.layouts import laid_outs
from tests.orders import EPOCHS, SEEDS, spec_of, specs, windows_of
from tfstream.entries import Layout
from tfstream.format.subset import Subset
from tfstream.order import (
    NUMPY,
    Epoch,
    Spec,
    Window,
    epoch_of,
    first_step_of,
    key,
    permutations,
    window_of,
    window_with,
)
from tfstream.pipeline.arrays import TENSORFLOW

EVEN = np.full(12, 64, np.int64)
UNEVEN = np.array([5, 1, 1, 300, 17, 64, 64, 64, 2, 250, 33], np.int64)


def assert_equal(left: Window, right: Window) -> None:
    """The same blocks and picks, bit for bit and int64."""
    assert left.blocks.dtype == right.blocks.dtype == np.int64
    assert left.picks.dtype == right.picks.dtype == np.int64
    assert left.blocks.tolist() == right.blocks.tolist()
    assert left.picks.tolist() == right.picks.tolist()


@pytest.mark.parametrize(
    ("kept", "changes"),
    [
        (EVEN, {"batch_size": 64, "stretches": 8, "window_steps": 4}),
        (EVEN, {"batch_size": 64, "stretches": 1, "window_steps": 5, "remainder": "drop"}),
        (EVEN, {"batch_size": 768, "stretches": 3, "window_steps": 1000}),
        (UNEVEN, {"batch_size": 40, "stretches": 8, "window_steps": 3}),
        (UNEVEN, {"batch_size": 40, "stretches": 8, "window_steps": 3, "remainder": "drop"}),
        (UNEVEN, {"batch_size": 32, "stretches": 4, "window_steps": 1, "seed": 2**63 - 1}),
        (UNEVEN, {"batch_size": 32, "stretches": 1, "window_steps": 2, "shuffle": "none"}),
        (UNEVEN, {"batch_size": 7, "stretches": 7, "window_steps": 100, "seed": 0}),
        (UNEVEN, {"batch_size": 1024, "stretches": 8, "window_steps": 3}),
        (UNEVEN[1:2], {"batch_size": 1, "stretches": 1, "window_steps": 1}),
    ],
)
def test_the_order_of_the_graph_is_that_of_numpy(
    kept: np.ndarray, changes: dict[str, object]
) -> None:
    """Every window of two far epochs; both are int64 tensors of a function traced once."""
    spec = spec_of(kept, **changes)
    graph = graph_of(spec)
    for epoch in (0, 2**40 + 1):
        for window, expected in enumerate(windows_of(spec, kept, epoch)):
            assert_equal(graph(kept, epoch, window), expected)


@given(specs(), EPOCHS)
@settings(deadline=None, max_examples=10)
def test_the_order_of_any_graph_is_that_of_numpy(case: tuple[Spec, np.ndarray], epoch: int) -> None:
    """Any blocks, batches, stretches, windows, remainder, shuffle and seed."""
    spec, kept = case
    made = graph_windows_of(spec, kept, epoch)
    for window, expected in zip(made, windows_of(spec, kept, epoch), strict=True):
        assert_equal(window, expected)


@given(laid_outs(), EPOCHS)
@settings(deadline=None, max_examples=8)
def test_the_order_of_any_layout_in_the_graph_is_that_of_numpy(
    case: tuple[Subset, Spec, Layout | None], epoch: int
) -> None:
    """Weights, shards, batches of one group: sequence, window and first step of every window."""
    subset, spec, layout = case
    tensors = None if layout is None else layout.mapped(tf.constant)

    @tf.function(input_signature=[NUMBER, NUMBER])
    def planned(epoch: tf.Tensor, window: tf.Tensor) -> tuple:
        kept = tf.constant(subset.kept)
        arrays = epoch_of(TENSORFLOW, spec, kept, epoch, layout=tensors).arrays
        made = window_of(TENSORFLOW, spec, Epoch(*arrays), epoch, window, layout=tensors)
        first = first_step_of(TENSORFLOW, spec, window)
        return made.blocks, made.picks, first, window_with(TENSORFLOW, spec, first)

    sequence = epoch_of(NUMPY, spec, subset.kept, epoch, layout=layout)
    for window in range(spec.windows_per_epoch):
        blocks, picks, first, again = (
            t.numpy() for t in planned(tf.constant(epoch, tf.int64), tf.constant(window, tf.int64))
        )
        expected = window_of(NUMPY, spec, sequence, epoch, window, layout=layout)
        assert_equal(Window(blocks, picks), expected)
        assert (first, again) == (spec.first_step(window), window)


def test_the_order_of_more_than_32_bits_of_rows_is_that_of_numpy() -> None:
    """Places beyond 2^32 do not wrap: the first, a middle and the last window, and the tail."""
    kept = np.full(1_100_000, 4096, np.int64)
    kept[-1] = 17
    spec = spec_of(kept, batch_size=1024, stretches=8, window_steps=64)
    assert spec.rows > 2**32
    graph = graph_of(spec)
    sequence = epoch_of(NUMPY, spec, kept, 3)
    last = spec.full_windows - 1
    for window in (0, last // 2, last, last + 1):
        assert_equal(graph(kept, 3, window), window_of(NUMPY, spec, sequence, 3, window))


def test_the_order_of_a_dataset_is_that_of_numpy() -> None:
    """Inside `Dataset.map`, where the pipeline calls it, for every window of three epochs."""
    spec = spec_of(UNEVEN, batch_size=40, stretches=8, window_steps=3)

    def order_of(place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        epoch, window = place // spec.windows_per_epoch, place % spec.windows_per_epoch
        sequence = epoch_of(TENSORFLOW, spec, tf.constant(UNEVEN), epoch)
        made = window_of(TENSORFLOW, spec, sequence, epoch, window)
        return made.blocks, made.picks

    dataset = tf.data.Dataset.range(3 * spec.windows_per_epoch).map(order_of)
    expected = [window for epoch in range(3) for window in windows_of(spec, UNEVEN, epoch)]
    for (blocks, picks), window in zip(dataset.as_numpy_iterator(), expected, strict=True):
        assert_equal(Window(blocks, picks), window)


@given(SEEDS, EPOCHS, st.integers(1, 5000))
@settings(deadline=None, max_examples=50)
def test_eager_keys_and_permutations_are_those_of_numpy(seed: int, epoch: int, n: int) -> None:
    """The two building blocks outside a graph, from Python integers, several keys at a time."""
    indices = np.arange(3)
    expected = key(NUMPY, seed, epoch, indices)
    made = key(TENSORFLOW, seed, epoch, tf.constant(indices))
    assert made.numpy().tolist() == expected.tolist()
    permuted = permutations(TENSORFLOW, made, n)
    assert permuted.dtype == tf.uint32
    assert permuted.numpy().tolist() == permutations(NUMPY, expected, n).tolist()
