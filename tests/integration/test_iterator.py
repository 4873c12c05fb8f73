"""The iterator of a loop in Python gives what TensorFlow's own gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfstream.pipeline.iterator import StreamIterator

X = tf.reshape(tf.range(24.0), [6, 4])
Y = tf.range(6)
WORDS = tf.constant(["a", "b", "c", "d", "e", "f"])
LISTS = tf.ragged.constant([[1], [], [2, 3], [4], [5], [6, 7]])
ELEMENTS: dict[str, Any] = {
    "tensor": X,
    "pair": (X, Y),
    "dict": {"z": X, "a": WORDS, "m": Y},
    "sorted": {"a": X, "z": WORDS},
    "all": ({"z": X, "a": WORDS}, Y, X),
    "ragged": ({"z": X, "lists": LISTS}, Y),
}


def dataset(name: str) -> tf.data.Dataset:
    """Batches of 4 and 2 rows."""
    return tf.data.Dataset.from_tensor_slices(ELEMENTS[name]).batch(4)


@pytest.mark.parametrize("name", ELEMENTS)
def test_elements_are_tensorflow_s(name: str) -> None:
    """Structure, order of names, types and values; and it ends, again and again."""
    iterator = StreamIterator(dataset(name))
    expected, found = list(dataset(name)), list(iterator)
    assert len(found) == len(expected) == 2
    for one, other in zip(found, expected, strict=True):
        tf.nest.assert_same_structure(one, other, expand_composites=True)
        names = [list(part) for part in (one, other) if isinstance(part, dict)]
        assert names[:1] == names[1:]
        flat = (tf.nest.flatten(part, expand_composites=True) for part in (one, other))
        for left, right in zip(*flat, strict=True):
            assert left.dtype == right.dtype
            assert np.array_equal(left.numpy(), right.numpy())
    with pytest.raises(StopIteration):
        next(iterator)


def test_functions_take_it() -> None:
    """As an argument, and closed over; what they leave, the loop goes on with."""
    iterator = StreamIterator(dataset("pair"))
    first = tf.function(lambda it: next(it)[1])(iterator)
    assert first.numpy().tolist() == [0, 1, 2, 3]
    assert next(iterator)[1].numpy().tolist() == [4, 5]


def test_errors_come_through() -> None:
    """What fails in the graph is raised, and is no end."""
    broken = dataset("tensor").map(lambda x: tf.debugging.check_numerics(x / 0.0, "broken"))
    with pytest.raises(tf.errors.InvalidArgumentError, match="broken"):
        next(StreamIterator(broken))
