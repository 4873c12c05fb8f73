"""Subsets and the reader, against the table that was converted."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tfstream
from tfstream.errors import UsageError
from tfstream.format import provenance
from tfstream.format.manifest import Catalog
from tfstream.format.recipe import Where
from tfstream.format.subset import Subset
from tfstream.pipeline.shards import Shards

ROWS = 3_000


def table() -> pa.Table:
    """Rows with nulls everywhere, in groups of very different sizes, a null group among them."""
    rng = np.random.default_rng(3)
    group = rng.choice([1, 2, 3, 4, 5], ROWS, p=[0.7, 0.2, 0.07, 0.02, 0.01])
    return pa.table(
        {
            "id": np.arange(ROWS),
            "g": pa.array(group, mask=rng.random(ROWS) < 0.05),
            "x": pa.array(rng.normal(size=ROWS).astype(np.float32), mask=rng.random(ROWS) < 0.1),
            "s": pa.array(rng.choice(["a", "b", "ü"], ROWS), mask=rng.random(ROWS) < 0.1),
            "n": pa.array(rng.integers(-5, 5, ROWS), mask=rng.random(ROWS) < 0.1),
            "b": pa.array(rng.random(ROWS) < 0.5),
            "ts": pa.array(rng.integers(0, 10**15, ROWS), pa.timestamp("us", "UTC")),
        }
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """The table, written as two Parquet files and converted."""
    folder: Path = tmp_path_factory.mktemp("subset")
    whole = table()
    (folder / "source").mkdir()
    pq.write_table(whole.slice(0, 1_000), folder / "source" / "a.parquet", row_group_size=300)
    pq.write_table(whole.slice(1_000), folder / "source" / "b.parquet", row_group_size=700)
    options = tfstream.ConvertOptions(block_rows=100)
    return tfstream.convert(folder / "source", folder / "out", group_by=["g"], options=options)


def ids(catalog: Catalog, subset: Subset) -> np.ndarray:
    """The values of the column id of a subset's rows, in its order."""
    rows = np.concatenate([subset.row_ids_in(b) for b in subset.blocks] or [np.empty(0, np.int64)])
    return Shards(Subset.whole(catalog)).take(rows, ["id"])["id"].to_numpy()


def test_take_gives_the_values_of_the_source(shards: Shards) -> None:
    """All rows by their ids, in a random order, are the rows of the table that provenance names."""
    order = np.random.default_rng(0).permutation(ROWS)
    taken = shards.take(order)
    source, row = provenance.rows_of_sources(shards.subset.catalog, order)
    assert taken.equals(table().take(pa.array(row + source * 1_000)).combine_chunks())


def test_row_ids_are_in_the_order_of_group_and_source(shards: Shards) -> None:
    """The groups come sorted, null last; inside a group the rows come as in the sources."""
    expected = pc.sort_indices(table(), sort_keys=[("g", "ascending"), ("id", "ascending")])
    assert shards.take(np.arange(ROWS))["id"].to_pylist() == expected.to_pylist()


def test_provenance_is_its_own_inverse(shards: Shards) -> None:
    """(source, row) → row id → (source, row)."""
    catalog = shards.subset.catalog
    for source, rows in enumerate(catalog.sources["rows"].to_pylist()):
        found = provenance.row_ids_of(catalog, source, np.arange(rows))
        back = provenance.rows_of_sources(catalog, found)
        assert (back[0] == source).all()
        assert (back[1] == np.arange(rows)).all()


CONDITIONS = [
    "g = 1",
    "g in (2, 3)",
    "g is null",
    "g is not null and x > 0",
    "x > 0.5 or s = 'a'",
    "s is null",
    "not b",
    "n < 0 and g <= 2",
    "ts < '1985-01-01'",
    "hour(ts) >= 12",
    "x is not null",
]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_where_keeps_the_rows_that_pandas_would(shards: Shards, condition: str) -> None:
    """A subset has the rows for which the condition is true on the table, no others."""
    from tfstream.format import expressions

    truth = expressions.evaluate(expressions.parse(condition), table()).fill_null(False)
    expected = set(np.flatnonzero(truth.to_numpy(zero_copy_only=False)))
    subset = shards.where(condition).subset
    assert set(ids(subset.catalog, subset)) == expected
    assert subset.rows == len(expected)


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.sampled_from(CONDITIONS), min_size=1, max_size=3))
def test_conditions_one_after_the_other_are_their_conjunction(
    shards: Shards, conditions: list[str]
) -> None:
    """The order of the conditions changes neither rows nor digest."""
    there, back = shards.subset, shards.subset
    for condition in conditions:
        there = there.where(condition)
    for condition in reversed(conditions):
        back = back.where(condition)
    assert there.digest == back.digest
    assert there.rows == shards.where(" and ".join(f"({c})" for c in conditions)).rows
    assert there.recipe == tuple(Where(text=text) for text in conditions)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_place_of_finds_the_kept_rows(shards: Shards, condition: str) -> None:
    """A kept row has its block and its rank there; every other row has none."""
    subset = shards.where(condition).subset
    index, rank = subset.place_of(np.arange(ROWS))
    expected = np.full((ROWS, 2), -1)
    for i, block in enumerate(subset.blocks):
        rows = subset.row_ids_in(block)
        expected[rows] = np.stack([np.full(len(rows), i), np.arange(len(rows))], axis=1)
    assert (np.stack([index, rank], axis=1) == expected).all()


@pytest.mark.parametrize("condition", CONDITIONS)
def test_groups_of_a_subset_are_those_of_its_rows(shards: Shards, condition: str) -> None:
    """A group is there if one of its rows is."""
    subset = shards.where(condition).subset
    keys = table().take(pa.array(ids(subset.catalog, subset)))["g"]
    found = subset.catalog.groups["g"].take(pa.array(subset.groups))
    assert sorted(found.to_pylist(), key=str) == sorted(set(keys.to_pylist()), key=str)


def test_a_column_that_is_not_there_is_named(shards: Shards) -> None:
    """The message lists those that are."""
    with pytest.raises(UsageError) as caught:
        shards.where("h = 1")
    assert str(caught.value) == "'h = 1': there is no column 'h'; there are id, g, x, s, n, b, ts"
    with pytest.raises(UsageError, match="^there is no column 'h'; there are id, "):
        shards.take([0], ["h"])


def test_a_value_is_no_condition(shards: Shards) -> None:
    """A number is neither true nor false."""
    with pytest.raises(UsageError, match="^'n' is a int64, not a condition$"):
        shards.where("n")


def test_a_row_that_is_not_there_is_named(shards: Shards) -> None:
    """Row ids are dense."""
    with pytest.raises(UsageError, match="^row ids go from 0 to 2999, there is no row 3000$"):
        shards.take([0, 3_000])
    with pytest.raises(UsageError, match=r"^a.parquet has rows 0 to 999, there is no row 1000$"):
        provenance.row_ids_of(shards.subset.catalog, 0, np.array([1_000]))


def test_a_source_is_found_by_the_end_of_its_path(shards: Shards) -> None:
    """An end that fits none is refused with those that there are."""
    assert provenance.find_source(shards.subset.catalog, "b.parquet") == 1
    with pytest.raises(UsageError) as caught:
        provenance.find_source(shards.subset.catalog, "c.parquet")
    assert (
        str(caught.value) == "there is no source 'c.parquet'; the sources are a.parquet, b.parquet"
    )
