"""Very many groups, groups by hash and bucket, and the statistics of subsets of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tfstream
from tfstream.format import kept_statistics, provenance, reader, subset
from tfstream.format.hashing import hashes
from tfstream.format.manifest import Catalog
from tfstream.pipeline.shards import Shards

GROUPS = 20_000
ROWS = 60_000


@pytest.fixture(scope="module")
def source() -> pa.Table:
    """Groups of a few rows, and one of a tenth of all rows; every kind of column, with nulls."""
    rng = np.random.default_rng(8)
    group = np.concatenate([np.arange(GROUPS), rng.integers(0, GROUPS, ROWS - GROUPS)])
    group[rng.random(ROWS) < 0.1] = 777

    def some(values: np.ndarray, type_: pa.DataType | None = None) -> pa.Array:
        return pa.array(values, type_, mask=rng.random(ROWS) < 0.1)

    table = pa.table(
        {
            "g": some(rng.permuted(group)),
            "x": some(rng.normal(size=ROWS).astype(np.float32)),
            "n": some(rng.integers(2**60, 2**60 + 500, ROWS)),
            "s": some(rng.choice(["ant", "bee", "cow"], ROWS)),
            "t": some(np.arange(ROWS).astype(str)).cast(pa.binary()),
            "ts": some(rng.integers(0, 10**15, ROWS), pa.timestamp("us", "UTC")),
            "b": some(rng.random(ROWS) < 0.5),
        }
    )
    nan = pa.array(rng.random(ROWS) < 0.1)
    return table.set_column(1, "x", pc.if_else(nan, pa.scalar(np.nan, pa.float32()), table["x"]))


@pytest.fixture(scope="module")
def shards(source: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """The source, converted out of several run files into several shards."""
    folder: Path = tmp_path_factory.mktemp("groups")
    pq.write_table(source, folder / "source.parquet", row_group_size=7_000)
    options = tfstream.ConvertOptions(block_rows=64, shard_bytes=400_000, partition_bytes=500_000)
    return tfstream.convert(
        folder / "source.parquet",
        folder / "out",
        group_by=["g", "hash(s, 4) AS h"],
        options=options,
    )


def test_every_row_is_back_in_its_group(source: pa.Table, shards: Shards) -> None:
    """Rows come in the order of (keys, source row), with their values; nulls are a group."""
    catalog = shards.subset.catalog
    ids = np.arange(ROWS)
    _, row = provenance.rows_of_sources(catalog, ids)
    assert (np.sort(row) == ids).all()
    found, there = reader.take(catalog, ids), source.take(pa.array(row))
    assert found.drop(["x"]).equals(there.drop(["x"]).combine_chunks())
    assert found["x"].is_null().equals(there["x"].is_null())
    np.testing.assert_array_equal(found["x"].to_numpy(), there["x"].to_numpy())
    h = pa.array(hashes(source["s"].combine_chunks()) % 4, mask=np.asarray(source["s"].is_null()))
    keys = source.select(["g"]).append_column("h", h).append_column("row", pa.array(ids))
    order = [(name, "ascending") for name in keys.column_names]
    assert keys.take(pc.sort_indices(keys, sort_keys=order))["row"].to_pylist() == row.tolist()
    groups = shards.groups
    expected = keys.group_by(["g", "h"]).aggregate([("row", "count")])
    assert groups.num_rows == expected.num_rows
    assert (
        groups["rows"].to_pylist()
        == pc.take(
            expected["row_count"],
            pc.sort_indices(expected, sort_keys=[("g", "ascending"), ("h", "ascending")]),
        ).to_pylist()
    )
    assert groups["rows"].to_numpy().max() > 1_000


def test_small_groups_have_no_entries_of_their_own(shards: Shards) -> None:
    """Statistics grow with rows, not with groups."""
    spans = len(pc.unique(shards.subset.catalog.statistics["first_row"]))
    assert spans < ROWS // 4_096 + 2 * shards.subset.catalog.shards.num_rows


def test_a_condition_on_a_key_function_reads_no_block(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What made the key is the key."""

    def refuse(catalog: Catalog, block: int, columns: object) -> None:
        raise AssertionError((catalog, block, columns))

    monkeypatch.setattr(subset, "read_block", refuse)
    found = shards.where("hash(s, 4) = 1 and g < 5000")
    assert found.subset.digest == shards.where("h = 1").where("g < 5000").subset.digest
    assert 0 < found.rows < ROWS


CONDITIONS = [
    "g < 9000",
    "g = 777",
    "g is null",
    "hash(s, 4) = 1",
    "hash(g, 10) < 9",
    "bucket(g, 100) in (3, 50, 51)",
    "x > 1",
    "s = 'bee'",
    "n is not null and g >= 100",
    "ts < '1975-01-01'",
]


@settings(
    deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(conditions=st.lists(st.sampled_from(CONDITIONS), max_size=2))
def test_the_statistics_of_a_subset_are_those_of_its_rows(
    source: pa.Table, shards: Shards, conditions: list[str]
) -> None:
    """Whatever parts of groups, spans and blocks it has."""
    part = shards
    for condition in conditions:
        part = part.where(condition)
    catalog = part.subset.catalog
    ids = [part.subset.row_ids_in(block) for block in part.subset.blocks]
    rows = provenance.rows_of_sources(catalog, np.concatenate([[], *ids]).astype(np.int64))[1]
    table = source.take(pa.array(rows)).combine_chunks()
    found = part.statistics
    if not part.rows:
        assert found == {}
        return
    for name in source.column_names:
        same(found[name], table[name])
    assert kept_statistics.may_be_null(part.subset, ["x"]) >= (table["x"].null_count > 0)


def same(found: object, values: pa.ChunkedArray) -> None:
    """Compare with pyarrow, on the values that are neither null nor NaN."""
    assert isinstance(found, tfstream.format.statistics.ColumnStatistics)
    assert (found.count, found.nulls) == (len(values), values.null_count)
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.int64())
    elif pa.types.is_boolean(values.type):
        values = values.cast(pa.uint8())
    there = values.filter(pc.invert(pc.is_null(values, nan_is_null=True)))
    assert found.valid == len(there)
    bounds = pc.min_max(there)
    assert (found.min, found.max) == (bounds["min"].as_py(), bounds["max"].as_py())
    true = pc.count_distinct(there).as_py()
    if pa.types.is_string(values.type):
        assert found.distinct == true
        assert found.values is not None
        counts = {v["values"]: v["counts"] for v in pc.value_counts(there).to_pylist()}
        assert found.values["value"].to_pylist() == sorted(counts)
        assert found.values["rows"].to_pylist() == [counts[v] for v in sorted(counts)]
        return
    assert found.distinct == pytest.approx(true, rel=0 if true <= 127 else 5 * 0.033)
    if found.mean is not None:
        # float64 does not hold the integers near 2^60, but what they are above the least one.
        least = bounds["min"].as_py() if pa.types.is_integer(there.type) else 0
        numbers = (there.to_numpy() - least).astype(np.float64)
        assert found.mean == pytest.approx(least + numbers.mean(), rel=1e-9)
        assert found.variance == pytest.approx(numbers.var(), rel=1e-6, abs=1e-12)


def test_the_statistics_of_a_stream_of_one_column_read_it_alone(shards: Shards) -> None:
    """Asking for a column gives that column."""
    found = kept_statistics.describe(shards.where("x > 0").subset, ["x"])
    assert list(found) == ["x"]
    assert found["x"].nulls == 0
