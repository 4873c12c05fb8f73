"""Means and variances of values of any size, however their rows are cut and merged."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfstream.format import moments, statistics
from tfstream.format.schema import Column, Schema

INTEGERS = ["int64", "uint64", "timestamp[us]", "int32", "int16"]
STRIPS = st.sampled_from([8, 64, moments._STRIP_VALUES])
"""Values in a strip: a span of a few rows has several, or strips have several spans, or both."""


@st.composite
def integers(draw: st.DrawFn) -> tuple[str, list[int], float]:
    """Anywhere, near each other or far apart."""
    type_ = draw(st.sampled_from(INTEGERS))
    info = np.iinfo(Column(name="n", type=type_).dtype)
    anywhere = st.integers(info.min, info.max)
    far = [v for v in (-(2**62), 0, 2**62) if info.min <= v <= info.max]
    base = draw(st.sampled_from(far) | anywhere)
    near = st.integers(max(info.min, base - 500), min(info.max, base + 500))
    item = draw(st.sampled_from([near, anywhere]))
    return type_, draw(st.lists(item, min_size=1, max_size=40)), 1.0


@st.composite
def floats(draw: st.DrawFn) -> tuple[str, list[float], float]:
    """Multiples of a unit, far above what the rounding of their mean loses; NaN among them."""
    unit = 2.0 ** draw(st.integers(-30, 30))
    item = st.integers(-(10**6), 10**6).map(lambda n: n * unit) | st.just(np.nan)
    type_ = draw(st.sampled_from(["float", "double"]))
    return type_, draw(st.lists(item, min_size=1, max_size=40)), unit


def entries(
    schema: Schema, matrix: np.ndarray, null: np.ndarray, cuts: list[int], ends: list[int]
) -> Iterator[pa.Table]:
    """Those of the rows between some cuts, in spans that begin at the others."""
    for low, high in pairwise(cuts):
        starts = np.array([low, *(cut for cut in ends if low < cut < high), high]) - low
        lost = {name: null[low:high, j] for j, name in enumerate(schema.names)}
        yield statistics.compute(schema, [matrix[low:high]], lost, {}, starts, low)[0]


@settings(deadline=None)
@given(integers() | floats(), STRIPS, st.data())
def test_merged_in_any_grouping_they_are_those_of_fractions(
    drawn: tuple[str, list[int] | list[float], float], strip_values: int, data: st.DataObject
) -> None:
    """To nine digits: of all rows and of any of the spans, with any of the values null."""
    type_, numbers, unit = drawn
    schema = Schema(tuple(Column(name=name, type=type_, nullable=True) for name in "nm"))
    column = np.array(numbers, schema["n"].dtype)
    matrix, rows = np.stack([column, column[::-1]], axis=1), len(column)
    flags = data.draw(st.sampled_from([st.just(value=False), st.booleans()]))
    null = np.array(data.draw(st.lists(flags, min_size=2 * rows, max_size=2 * rows)))
    null = null.reshape(rows, 2)
    inner = st.lists(st.integers(1, rows), max_size=4)
    cuts, ends = sorted({0, rows, *data.draw(inner)}), sorted({0, rows, *data.draw(inner)})
    with mock.patch.object(moments, "_STRIP_VALUES", strip_values):
        table = pa.concat_tables(entries(schema, matrix, null, cuts, ends))
    starts = sorted({*cuts, *ends})
    chosen = data.draw(st.sets(st.sampled_from(starts[:-1]), min_size=1))
    kept = np.repeat([start in chosen for start in starts[:-1]], np.diff(starts))
    some = table.filter(pa.array(np.isin(table["first_row"].to_numpy(), list(chosen))))
    counts = statistics.VOCABULARY_COUNTS.empty_table()
    for entry, rows_of in ((table, np.ones(rows, bool)), (some, kept)):
        merged = statistics.merge(schema, entry, counts, {})
        for j, name in enumerate("nm"):
            there = matrix[rows_of & ~null[:, j], j]
            same(merged[name], [Fraction(v) for v in there[~np.isnan(there)].tolist()], unit)


def same(found: statistics.ColumnStatistics, values: list[Fraction], unit: float) -> None:
    """The mean up to its own last digits and a part of the range of the values."""
    assert found.valid == len(values)
    if not values:
        assert (found.mean, found.variance) == (None, None)
        return
    assert found.mean is not None
    mean = sum(values) / len(values)
    squares = sum((value - mean) ** 2 for value in values)
    spread = float(max(values) - min(values))
    assert abs(Fraction(found.mean) - mean) <= 1e-9 * spread + 2.0**-51 * abs(mean)
    variance = float(squares / len(values))
    assert found.variance == pytest.approx(variance, rel=1e-9, abs=1e-12 * unit**2)
