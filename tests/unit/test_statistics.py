"""Statistics against numpy."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfstream.format import distinct, statistics
from tfstream.format.distinct import MOST_LISTED
from tfstream.format.schema import Column, Schema

ROWS = 3_000
WORDS = ["ant", "bee"]
VOCABULARIES = {"s": pa.array(WORDS)}
SCHEMA = Schema(
    (
        Column(name="x", type="float", nullable=True),
        Column(name="y", type="float"),
        Column(name="n", type="int64"),
        Column(name="i", type="int32"),
        Column(name="s", type="string", coded=True),
        Column(name="t", type="binary", nullable=True),
    )
)


def sample() -> tuple[list[np.ndarray], dict[str, np.ndarray], dict[str, pa.Array]]:
    """Packs, nulls and texts, with NaN, and large numbers far from zero."""
    rng = np.random.default_rng(1)
    floats = rng.normal(1e4, 1, (ROWS, 2)).astype(np.float32)
    missing = {"x": rng.random(ROWS) < 0.1, "t": rng.random(ROWS) < 0.2}
    missing["x"][:700] = True
    floats[missing["x"], 0] = 0
    floats[rng.random(ROWS) < 0.1, 1] = np.nan
    ints = rng.integers(10**9, 10**9 + 9, (ROWS, 1))
    codes = np.stack([rng.integers(0, 5, ROWS), rng.choice([0, 2, 3], ROWS)], axis=1)
    texts = [b"" if lost else b"%d" % n for lost, n in zip(missing["t"], ints[:, 0], strict=True)]
    return [floats, ints, codes.astype(np.int32)], missing, {"t": pa.array(texts, pa.binary())}


def split(cuts: list[int]) -> tuple[pa.Table, pa.Table]:
    """The entries of the sample as shards that begin at some rows, in spans of 300 rows."""
    packs, missing, texts = sample()
    parts = [
        statistics.compute(
            SCHEMA,
            [pack[low:high] for pack in packs],
            {name: flags[low:high] for name, flags in missing.items()},
            {name: values.slice(low, high - low) for name, values in texts.items()},
            np.append(np.arange(0, high - low, 300), high - low),
            low,
        )
        for low, high in itertools.pairwise([0, *cuts, ROWS])
    ]
    return pa.concat_tables([a for a, _ in parts]), pa.concat_tables([b for _, b in parts])


@settings(max_examples=30, deadline=None)
@given(
    cuts=st.lists(st.integers(1, ROWS - 1), unique=True, max_size=6).map(sorted),
    low=st.integers(0, ROWS - 1),
    rows=st.integers(1, ROWS),
)
def test_merged_statistics_are_numpys(cuts: list[int], low: int, rows: int) -> None:
    """Split anywhere and merged over any spans, they are those of the values."""
    packs, missing, texts = sample()
    entries, counts = split(cuts)
    firsts = np.unique(entries["first_row"].to_numpy())
    firsts = firsts[(firsts >= low) & (firsts < low + rows)]
    spans = [
        table.filter(pa.array(np.isin(table["first_row"].to_numpy(), firsts)))
        for table in (entries, counts)
    ]
    merged = statistics.merge(SCHEMA, *spans, VOCABULARIES)
    if not len(firsts):
        assert merged == {}
        return
    starts = np.append(np.unique(entries["first_row"].to_numpy()), ROWS)
    chosen = np.zeros(ROWS, bool)
    chosen[firsts[0] : starts[np.searchsorted(starts, firsts[-1]) + 1]] = True
    assert set(merged) == set(SCHEMA.names)
    numbers = {"x": packs[0][:, 0], "y": packs[0][:, 1], "n": packs[1][:, 0], "i": packs[2][:, 0]}
    for name, values in numbers.items():
        lost = missing.get(name, np.zeros(ROWS, bool))
        there = values[chosen & ~lost & ~np.isnan(values)]
        found = merged[name]
        assert (found.count, found.nulls, found.valid) == (
            chosen.sum(),
            (chosen & lost).sum(),
            len(there),
        )
        if len(there):
            assert (found.min, found.max) == (there.min().item(), there.max().item())
            assert found.mean == pytest.approx(there.astype(np.float64).mean(), rel=1e-12)
            assert found.variance == pytest.approx(there.astype(float).var(), rel=1e-6, abs=1e-12)
        else:
            assert (found.min, found.max, found.mean, found.variance) == (None,) * 4
        close(found.distinct, len(np.unique(there)))
    codes = packs[2][chosen, 1]
    seen, rows_of = np.unique(codes[codes > 0], return_counts=True)
    assert (merged["s"].nulls, merged["s"].distinct) == ((codes == 0).sum(), len(seen))
    assert merged["s"].values is not None
    assert merged["s"].values.to_pydict() == {
        "value": [WORDS[code - 2] for code in seen],
        "code": seen.tolist(),
        "rows": rows_of.tolist(),
    }
    there = [
        v
        for v, c, m in zip(texts["t"].to_pylist(), chosen, missing["t"], strict=True)
        if c and not m
    ]
    found = merged["t"]
    assert (found.nulls, found.valid) == ((chosen & missing["t"]).sum(), len(there))
    assert (found.min, found.max) == (min(there, default=None), max(there, default=None))
    close(found.distinct, len(set(there)))


def close(found: int, true: int) -> None:
    """Exact while few, then within five standard errors."""
    if true <= MOST_LISTED:
        assert found == true
    else:
        assert found == pytest.approx(true, rel=5 * 0.033)


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(1, ROWS - 1), unique=True, max_size=6).map(sorted))
def test_an_estimate_does_not_depend_on_the_split(cuts: list[int]) -> None:
    """The sketch of all rows is the same, bit for bit, however they are parted."""
    whole, parted = (statistics.merge(SCHEMA, *split(case), VOCABULARIES) for case in ([], cuts))
    for name in SCHEMA.names:
        assert parted[name].distinct == whole[name].distinct


@pytest.mark.parametrize("type_", ["int64", "uint64", "timestamp[ns]"])
def test_bounds_are_exact_where_a_float_is_not(type_: str) -> None:
    """Beyond 2^53."""
    schema = Schema((Column(name="n", type=type_),))
    dtype = schema["n"].dtype
    values = np.array([[2**62 + 1], [2**62 + 3]], dtype)
    entries, counts = statistics.compute(schema, [values], {}, {}, np.array([0, 2]), 0)
    found = statistics.merge(schema, entries, counts, {})["n"]
    assert (found.min, found.max, found.distinct) == (2**62 + 1, 2**62 + 3, 2)


def test_zero_and_minus_zero_are_one_value() -> None:
    """And NaN is none."""
    schema = Schema((Column(name="x", type="double"),))
    values = np.array([[0.0], [-0.0], [np.nan]])
    entries, counts = statistics.compute(schema, [values], {}, {}, np.array([0, 1, 3]), 0)
    found = statistics.merge(schema, entries, counts, {})["x"]
    assert (found.count, found.valid, found.distinct) == (3, 2, 1)


def test_the_bound_of_a_long_text_is_unknown() -> None:
    """A short one would be kept; no bound is better than a cut one."""
    schema = Schema((Column(name="t", type="string"),))
    texts = {"t": pa.array([b"b" * 256, b"a" * 257], pa.binary())}
    entries, counts = statistics.compute(schema, [], {}, texts, np.array([0, 2]), 0)
    found = statistics.merge(schema, entries, counts, {})["t"]
    assert (found.min, found.max, found.valid) == (None, "b" * 256, 2)


@pytest.mark.parametrize("true", [1, 127, 128, 1_000, 30_000, 300_000])
def test_distinct_values_are_counted(true: int) -> None:
    """Exactly while few, then within five standard errors, for numbers that are close to another."""
    for values in (np.arange(true, dtype="<u4"), (np.arange(true) / 8).view("<u8")):
        registers = np.zeros((1, 1, distinct.REGISTERS), np.uint8)
        distinct.update(registers, values[:, np.newaxis], np.zeros(1, np.int64), None)
        close(distinct.estimate(distinct.sketch(registers[0, 0], values)), true)


def test_squares_overflow_only_where_the_variance_does() -> None:
    """The square of the first delta would, though one value has no variance at all."""
    one = Schema((Column(name="x", type="double"),))
    far = np.array([[1.3e200]])
    entries, _ = statistics.compute(one, [far], {}, {}, np.array([0, 1]), 0)
    assert entries["m2"].to_pylist() == [0.0]


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
@pytest.mark.parametrize("endless", [[np.inf], [-np.inf], [np.inf, -np.inf]])
def test_what_is_infinite_has_no_mean(dtype: str, endless: list[float]) -> None:
    """Nor have spans that are added up with it; bounds and counts stay, other spans have theirs."""
    name = {"<f4": "float", "<f8": "double"}[dtype]
    schema = Schema((Column(name="x", type=name), Column(name="y", type=name)))
    values = np.zeros((8, 2), dtype)
    values[:, 1] = np.arange(8)
    values[2 : 2 + len(endless), 0] = endless
    entries, counts = statistics.compute(schema, [values], {}, {}, np.array([0, 4, 8]), 0)
    assert not np.isnan(entries["mean"].drop_null().to_numpy()).any()
    found = statistics.merge(schema, entries, counts, {})
    x, y = found["x"], found["y"]
    assert (x.mean, x.variance, x.valid) == (None, None, 8)
    assert (x.min, x.max) == (min(0.0, *endless), max(0.0, *endless))
    assert (y.mean, y.variance) == (3.5, 5.25)
    later = entries.filter(pa.compute.equal(entries["first_row"], 4))
    assert statistics.merge(schema, later, counts, {})["x"].mean == 0.0


@pytest.mark.parametrize("type_", ["int64", "uint64", "timestamp[us]"])
@pytest.mark.parametrize("base", [0, 2**60])
def test_a_span_may_fall_below_the_values_that_it_begins_with(type_: str, base: int) -> None:
    """A span of several strips, the least values last; alone, and with a span above it."""
    schema = Schema((Column(name="n", type=type_),))
    above = np.concatenate([np.arange(200_000)[::-1], np.full(1_000, 300_000)])
    values = (above + base).astype(schema["n"].dtype)[:, np.newaxis]
    starts = np.array([0, 200_000, 201_000])
    entries, counts = statistics.compute(schema, [values], {}, {}, starts, 0)
    for part, there in ((entries.slice(0, 1), above[:200_000]), (entries, above)):
        found = statistics.merge(schema, part, counts, {})["n"]
        assert found.mean == pytest.approx(base + there.mean(), rel=1e-15)
        assert found.variance == pytest.approx(there.var(), rel=1e-12)
