"""Means and variances of integers of any size, however their rows are cut."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfstream.format.moments import Moments, bases, strips

KINDS = st.sampled_from(["<i8", "<u8", "<i4", "<i2"])


@st.composite
def columns(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values anywhere, near each other or far apart; which are null; where their spans begin."""
    dtype = np.dtype(draw(KINDS))
    info = np.iinfo(dtype)
    base = draw(st.integers(info.min, info.max))
    near = st.integers(max(info.min, base - 500), min(info.max, base + 500))
    item = draw(st.sampled_from([near, st.integers(info.min, info.max)]))
    values = np.array(draw(st.lists(item, min_size=1, max_size=40)), object).astype(dtype)
    null = np.array(draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    inner = draw(st.lists(st.integers(1, len(values)), max_size=4))
    return values, null, np.unique(np.array([0, *inner, len(values)], np.int64))


@given(columns(), st.booleans())
def test_moments_are_exact_to_nine_digits(
    column: tuple[np.ndarray, np.ndarray, np.ndarray], has_nulls: bool
) -> None:
    """By Python's fractions: of each span, and of all of them together."""
    values, null, starts = column
    missing = null[:, None] if has_nulls else None
    moments = Moments(len(starts) - 1, 1, values.dtype)
    for first, cuts in strips(starts, 1):
        rows = slice(cuts[0], cuts[-1])
        part = None if missing is None else missing[rows]
        moments.add(first, values[rows, None], part, cuts - cuts[0])
    some = moments.valid[:, 0] > 0
    there = [int(v) for v, lost in zip(values, null & has_nulls, strict=True) if not lost]
    assert moments.valid.sum() == len(there)
    if not there:
        return
    base, above = bases(moments.low[some, 0])
    means, weights = moments.stored_mean[some, 0] + above, moments.valid[some, 0]
    mean = (weights * means).sum() / weights.sum()
    m2 = moments.m2[some, 0].sum() + (weights * (means - mean) ** 2).sum()
    exact = Fraction(sum(there), len(there))
    squares = sum((value - exact) ** 2 for value in there)
    spread = max(there) - min(there)
    assert m2 == pytest.approx(float(squares), rel=1e-9, abs=1e-6)
    assert abs(base + Fraction(float(mean)) - exact) <= 1e-9 * spread
