"""Statistics against numpy."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tfstream.format import statistics
from tfstream.format.schema import Column, Schema
from tfstream.format.statistics import ColumnStatistics

ROWS = 5_000
STARTS = np.array([0, 1, 3, 700, 4_000, ROWS])
GROUPS = np.arange(10, 15)
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


def sample() -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """The packs, with NaN and nulls, a group without any value, and large numbers far from zero."""
    rng = np.random.default_rng(1)
    floats = rng.normal(1e4, 1, (ROWS, 2)).astype(np.float32)
    missing = {"x": rng.random(ROWS) < 0.1, "t": rng.random(ROWS) < 0.2}
    missing["x"][:1] = True
    floats[missing["x"], 0] = 0
    floats[rng.random(ROWS) < 0.1, 1] = np.nan
    ints = rng.integers(10**9, 10**9 + 9, (ROWS, 1))
    codes = np.stack([rng.integers(0, 5, ROWS), rng.integers(0, 4, ROWS)], axis=1)
    return [floats, ints, codes.astype(np.int32)], missing


def split(at: int) -> tuple[pa.Table, pa.Table]:
    """The entries of the sample as two shards, the second beginning at a row."""
    packs, missing = sample()
    parts = []
    for low, high in ((0, at), (at, ROWS)):
        first = int(np.searchsorted(STARTS, low, side="right")) - 1
        last = int(np.searchsorted(STARTS, high, side="left"))
        starts = np.clip(STARTS[first : last + 1], low, high) - low
        parts.append(
            statistics.compute(
                SCHEMA,
                [pack[low:high] for pack in packs],
                {name: flags[low:high] for name, flags in missing.items()},
                GROUPS[first:last],
                starts,
            )
        )
    return pa.concat_tables([a for a, _ in parts]), pa.concat_tables([b for _, b in parts])


@pytest.mark.parametrize("at", [1, 3, 650, 2_500, 4_000])
@pytest.mark.parametrize("groups", [None, [10], [11, 13], [14]])
def test_merged_statistics_are_numpys(at: int, groups: list[int] | None) -> None:
    """Split anywhere and merged over any groups, they are those of the values."""
    packs, missing = sample()
    chosen = np.zeros(ROWS, bool)
    for i, group in enumerate(GROUPS):
        chosen[STARTS[i] : STARTS[i + 1]] = groups is None or group in groups
    merged = statistics.merge(split(at)[0], None if groups is None else np.array(groups))
    columns = {"x": packs[0][:, 0], "y": packs[0][:, 1], "n": packs[1][:, 0], "i": packs[2][:, 0]}
    assert set(merged) == {*columns, "s", "t"}
    for name, values in columns.items():
        lost = missing.get(name, np.zeros(ROWS, bool))
        there = values[chosen & ~lost & ~np.isnan(values)].astype(np.float64)
        found = merged[name]
        assert (found.count, found.nulls, found.valid) == (
            chosen.sum(),
            (chosen & lost).sum(),
            len(there),
        )
        if len(there):
            assert (found.min, found.max) == (there.min(), there.max())
            assert found.mean == pytest.approx(there.mean(), rel=1e-12)
            assert found.variance == pytest.approx(there.var(), rel=1e-6, abs=1e-12)
        else:
            assert (found.min, found.max, found.mean, found.variance) == (None,) * 4
    assert merged["s"] == ColumnStatistics(
        count=int(chosen.sum()),
        nulls=int((packs[2][chosen, 1] == 0).sum()),
        valid=0,
        min=None,
        max=None,
        mean=None,
        variance=None,
    )
    assert merged["t"].nulls == (chosen & missing["t"]).sum()


def test_vocabulary_counts_are_rows_of_each_value() -> None:
    """Per group, without nulls and without values that the group does not have."""
    packs, _ = sample()
    _, counts = split(2_500)
    found: dict[tuple[int, int], int] = {}
    for entry in counts.to_pylist():
        assert entry["column"] == "s"
        key = (entry["group"], entry["code"])
        found[key] = found.get(key, 0) + entry["count"]
    expected: dict[tuple[int, int], int] = {}
    for i, group in enumerate(GROUPS):
        for code in packs[2][STARTS[i] : STARTS[i + 1], 1].tolist():
            if code >= 2:
                expected[int(group), code] = expected.get((int(group), code), 0) + 1
    assert found == expected


def test_nothing_is_known_of_no_group() -> None:
    """A column without an entry is left out."""
    assert statistics.merge(split(1)[0], np.array([], np.int64)) == {}
