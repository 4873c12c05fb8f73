"""Fingerprints tell rows, their order and their batch apart."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tfstream.fingerprint import fingerprints
from tfstream.order import GOLDEN, NUMPY, mix

IDS = st.lists(st.integers(0, 2**63 - 1), min_size=2, max_size=30, unique=True)


def one(values: list[int]) -> int:
    """The fingerprint of one batch."""
    return int(fingerprints(NUMPY, np.array([values], np.uint64))[0])


@given(IDS)
def test_a_fingerprint_is_the_weighted_sum_of_the_mixed_values(values: list[int]) -> None:
    """The formula of the docstring, in Python's integers."""

    def mixed(value: int) -> int:
        return int(mix(NUMPY, np.array([value], np.uint64))[0])

    total = sum(
        mixed((value + GOLDEN) % 2**64) * (mixed(i + 1) | 1) for i, value in enumerate(values)
    )
    assert one(values) == total % 2**64


@given(IDS)
def test_another_order_has_another_fingerprint(values: list[int]) -> None:
    """Two rows that change places are seen, and one that is not there."""
    swapped = [values[1], values[0], *values[2:]]
    assert one(swapped) != one(values)
    assert one(values[:-1]) != one(values)


def test_the_fingerprint_never_changes() -> None:
    """Golden: it is in the log of every run; it may change only with the log's format."""
    found = fingerprints(NUMPY, np.arange(6, dtype=np.uint64).reshape(2, 3))
    assert found.tolist() == [8383404790486778180, 1078874852836080489]
