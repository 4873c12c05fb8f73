"""Splits and what findings leave: parts of a data set that are disjoint and stay what they are."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tfstream
from tfstream.errors import UsageError
from tfstream.format import bits, recipe
from tfstream.format.check import Finding
from tfstream.format.manifest import open_catalog
from tfstream.format.recipe import Without
from tfstream.format.subset import Subset
from tfstream.pipeline.shards import Shards

ROWS = 4_000


def table(seed: int) -> pa.Table:
    """Rows in groups of two keys, of very different sizes, nulls among them."""
    rng = np.random.default_rng(seed)
    group = np.minimum(rng.geometric(0.05, ROWS), 60)
    return pa.table(
        {
            "g": pa.array(group, mask=group == 7),
            "s": rng.choice(["a", "b", "ü"], ROWS),
            "x": pa.array(rng.normal(size=ROWS), mask=rng.random(ROWS) < 0.1),
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set that was appended to once."""
    root: Path = tmp_path_factory.mktemp("split")
    for name, seed in (("a", 1), ("b", 2)):
        pq.write_table(table(seed), root / f"{name}.parquet")
    options = tfstream.ConvertOptions(block_rows=70)
    tfstream.convert(root / "a.parquet", root / "out", group_by=["g", "s"], options=options)
    tfstream.append(root / "b.parquet", root / "out")
    return root / "out"


@pytest.fixture(scope="module")
def shards(folder: Path) -> Shards:
    """All rows."""
    return tfstream.open(folder)


@pytest.fixture(scope="module")
def before(folder: Path) -> Shards:
    """The rows before the append."""
    parent = open_catalog(folder).manifest.parents[0].digest
    return tfstream.open(folder, digest=parent)


def rows_of(shards: Shards) -> np.ndarray:
    """The kept row ids."""
    subset = shards.subset
    return np.concatenate([subset.row_ids_in(b) for b in subset.blocks] or [np.empty(0, int)])


FRACTIONS = st.lists(st.integers(1, 20), min_size=1, max_size=4).map(
    lambda parts: {f"p{i}": part / sum(parts) for i, part in enumerate(parts)}
)
BY = st.sampled_from(["row", "group"])
SEEDS = st.integers(0, 2**63 - 1)


@settings(deadline=None, max_examples=12)
@given(fractions=FRACTIONS, by=BY, seed=SEEDS)
def test_the_parts_are_disjoint_and_cover_everything(
    shards: Shards, fractions: dict[str, float], by: str, seed: int
) -> None:
    """Whatever the fractions: each row is in one part, and the counts are those of the rows."""
    parts = shards.split(fractions, by=by, seed=seed)
    found = {name: rows_of(part) for name, part in parts.items()}
    assert list(parts) == list(fractions)
    np.testing.assert_array_equal(np.sort(np.concatenate([*found.values()])), np.arange(2 * ROWS))
    assert {name: part.rows for name, part in parts.items()} == {
        name: len(rows) for name, rows in found.items()
    }


@settings(deadline=None, max_examples=8)
@given(fractions=FRACTIONS, by=BY, seed=SEEDS)
def test_an_append_changes_nobodys_side(
    shards: Shards, before: Shards, fractions: dict[str, float], by: str, seed: int
) -> None:
    """The rows of a part before an append are those of the part after it that were there then."""
    old, new = (s.split(fractions, by=by, seed=seed) for s in (before, shards))
    for name in fractions:
        rows = rows_of(new[name])
        np.testing.assert_array_equal(rows_of(old[name]), rows[rows < ROWS])


@settings(deadline=None, max_examples=8)
@given(
    by=BY, seed=SEEDS, condition=st.sampled_from(["g > 10", "x > 0", "s = 'a'", "g is null or x<0"])
)
def test_a_condition_changes_nobodys_side(
    shards: Shards, by: str, seed: int, condition: str
) -> None:
    """A split and a condition can be exchanged: the same rows, and so the same digest."""
    fractions = {"a": 0.3, "b": 0.5}
    one = shards.where(condition).split(fractions, by=by, seed=seed)
    other = shards.split(fractions, by=by, seed=seed)
    for name in fractions:
        assert one[name].subset.digest == other[name].where(condition).subset.digest


def test_shares_are_exact_to_a_row_a_block_and_not_one_sided(shards: Shards) -> None:
    """By row, each block is divided; what is rounded does not add up over many blocks."""
    part = shards.split({"a": 0.37}, by="row", seed=3)["a"].subset
    block_rows = part.catalog.block_rows
    kept = np.zeros(len(block_rows), int)
    kept[part.blocks] = part.kept
    assert np.abs(kept - 0.37 * block_rows).max() < 1
    assert abs(part.rows - 0.37 * 2 * ROWS) < 4 * np.sqrt(len(block_rows) / 4)


def test_by_group_a_key_is_on_one_side(shards: Shards) -> None:
    """Before and after an append; and the shares are near the fractions, where keys are many."""
    parts = shards.split({"a": 0.5, "b": 0.5}, by="group", seed=1)
    keys = {
        name: set(zip(*part.groups.select(["g", "s"]).to_pydict().values(), strict=True))
        for name, part in parts.items()
    }
    assert not keys["a"] & keys["b"]
    assert abs(len(keys["a"]) - len(keys["b"])) < 60


def test_a_split_of_a_part_draws_anew(shards: Shards) -> None:
    """With the same seed too: else the first half of a half would be the whole half."""
    for by in ("row", "group"):
        half = shards.split({"a": 0.5, "b": 0.5}, by=by, seed=5)["a"]
        again = half.split({"a": 0.5, "b": 0.5}, by=by, seed=5)
        assert 0.2 * half.rows < again["a"].rows < 0.8 * half.rows


def test_ranks_of_rows_are_golden(shards: Shards) -> None:
    """A split is part of what a run's rows follow from; nothing may change it."""
    part = shards.split({"a": 0.1}, by="row", seed=7)["a"]
    assert rows_of(part)[:8].tolist() == GOLDEN_ROWS
    groups = shards.split({"a": 0.1}, by="group", seed=7)["a"].groups
    keys = list(zip(*groups.slice(0, 3).select(["g", "s"]).to_pydict().values(), strict=True))
    assert keys == GOLDEN_KEYS


GOLDEN_ROWS = [1, 2, 40, 43, 49, 50, 63, 68]
GOLDEN_KEYS = [(2, "b"), (4, "a"), (15, "b")]


@settings(deadline=None, max_examples=12)
@given(
    st.lists(st.tuples(st.integers(0, 2 * ROWS - 1), st.integers(1, 500)), min_size=1, max_size=6)
)
def test_without_leaves_all_other_rows(shards: Shards, ranges: list[tuple[int, int]]) -> None:
    """Ranges that overlap, touch or split blocks: what is left is what they do not name."""
    findings = [
        Finding(where="", what="", first_row=first, stop_row=first + count)
        for first, count in ranges
    ]
    keep = np.ones(2 * ROWS, bool)
    for first, count in ranges:
        keep[first : first + count] = False
    left = shards.without([*findings, Finding(where="elsewhere", what="no rows")])
    np.testing.assert_array_equal(rows_of(left), np.flatnonzero(keep))
    assert shards.without([]).subset.digest == shards.subset.digest


@settings(deadline=None, max_examples=8)
@given(data=st.data())
def test_a_subset_is_made_again_from_its_recipe(shards: Shards, data: st.DataObject) -> None:
    """Any steps, through JSON and back, are the same steps and make the same rows."""
    subset = shards.subset
    for _ in range(data.draw(st.integers(0, 4))):
        kind = data.draw(st.sampled_from(["where", "split", "without"]))
        if kind == "where":
            subset = subset.where(data.draw(st.sampled_from(["g > 3", "x > 0"])))
        elif kind == "split":
            fractions = {"a": data.draw(st.floats(0.01, 0.9)), "b": 0.05}
            parts = subset.split(fractions, by=data.draw(BY), seed=data.draw(SEEDS))
            subset = parts[data.draw(st.sampled_from(["a", "b"]))]
        else:
            first = data.draw(st.integers(0, 7_000))
            subset = subset.without(Without.of([(first, first + 50), (first + 10, first + 90)]))
    told = json.loads(json.dumps([step.to_json() for step in subset.recipe]))
    steps = [recipe.parse(value) for value in told]
    assert tuple(steps) == subset.recipe
    again = Subset.whole(subset.catalog).made_by(steps)
    assert again.digest == subset.digest
    everything = np.arange(2 * ROWS)
    index, rank = again.place_of(everything)
    kept = np.concatenate([again.row_ids_in(b) for b in again.blocks] or [everything[:0]])
    np.testing.assert_array_equal(np.flatnonzero(index >= 0), kept)
    ends = np.cumsum(again.kept)
    np.testing.assert_array_equal(
        (ends - again.kept)[index[kept]] + rank[kept], np.arange(len(kept))
    )
    edges = np.sort(np.random.default_rng(0).integers(0, 2 * ROWS + 1, 50))
    expected = [((kept >= low) & (kept < high)).sum() for low, high in pairwise(edges)]
    np.testing.assert_array_equal(again.kept_between(edges[:-1], edges[1:]), expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("g = 1", "an object with one of where, split and without"),
        ({"where": 3}, '{"where": text}, {"split": object} or {"without": list}'),
        ({"split": {"by": "row"}}, "a split of by, low, high, seed, depth"),
        ({"without": [[1, 2, 3]]}, "ranges of two row ids each"),
        (
            {"without": [[4, 6], [5, 7]]},
            "a step that can be (row ids 5 to 7 are no range behind 6)",
        ),
        (
            {"split": {"by": "row", "low": 0.5, "high": 0.2, "seed": 0, "depth": 0}},
            "a step that can be (a side of a split lies between 0 and 1, not from 0.5 to 0.2)",
        ),
        (
            {"split": {"by": "row", "low": 0, "high": 1, "seed": True, "depth": 0}},
            "seed of a split as int",
        ),
    ],
)
def test_what_is_no_step_is_refused(value: object, expected: str) -> None:
    """With what was expected."""
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        recipe.parse(value)


def test_a_wrong_split_is_refused(shards: Shards) -> None:
    """The message says what to give."""
    wrong = [
        ({}, "row", 0, 'a split needs fractions, such as {"train": 0.9, "val": 0.1}'),
        ({"a": 0.9, "b": 0.2}, "row", 0, "the fractions are 1.1 in sum; give at most 1"),
        ({"a": 0}, "row", 0, "a fraction is a number above 0 and at most 1, not 0 for 'a'"),
        ({"a": 0.5}, "day", 0, 'a split is by="row" or by="group", not \'day\''),
        ({"a": 0.5}, "row", -1, "seed must be from 0 to 2^63 - 1, got -1"),
    ]
    for fractions, by, seed, message in wrong:
        with pytest.raises(UsageError) as caught:
            shards.split(fractions, by=by, seed=seed)
        assert str(caught.value).startswith(message)


def test_statistics_of_a_part_are_of_its_rows_alone(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A validation row changes none of them; and they are read once."""
    part = shards.split({"a": 0.5, "b": 0.5}, by="row", seed=2)["a"]
    values = shards.take(rows_of(part), ["x"])["x"].drop_null().to_numpy()
    found = part.statistics["x"]
    assert found.mean == pytest.approx(values.mean())
    assert (found.min, found.max) == (values.min(), values.max())
    monkeypatch.setattr("tfstream.format.kept_statistics.read_stored", None)
    assert part.statistics["x"] == found


def test_a_stream_of_a_part_has_its_rows(shards: Shards) -> None:
    """The graph reads the kept rows of each block, no others."""
    part = shards.split({"a": 0.2, "b": 0.8}, by="row", seed=2)["a"].where("x is not null")
    stream = part.stream(batch_size=64, features=["x"], seed=1)
    batches = [batch["x"].numpy() for batch in stream.dataset(epochs=range(1))]
    expected = [
        shards.take(stream.row_ids(epoch=0, step=step), ["x"])["x"].to_numpy()
        for step in range(stream.steps_per_epoch)
    ]
    np.testing.assert_array_equal(np.concatenate(batches), np.concatenate(expected))
    np.testing.assert_array_equal(
        np.sort(np.concatenate([stream.row_ids(epoch=0, step=s) for s in range(len(batches))])),
        rows_of(part),
    )


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=40), min_size=1, max_size=8))
def test_counts_of_bits_are_those_of_booleans(masks: list[list[bool]]) -> None:
    """Packed lines tell what the booleans that they were made of tell."""
    matrix = np.zeros((len(masks), 40), bool)
    for i, mask in enumerate(masks):
        matrix[i, : len(mask)] = mask
    lines = bits.packed(matrix, 5)
    np.testing.assert_array_equal(bits.unpacked(lines), matrix)
    np.testing.assert_array_equal(bits.counts(lines), matrix.sum(axis=1))
    which, places = (a.reshape(-1) for a in np.indices(matrix.shape))
    np.testing.assert_array_equal(bits.are_set(lines, which, places), matrix.reshape(-1))
    before = np.cumsum(matrix, axis=1) - matrix
    np.testing.assert_array_equal(bits.counts_before(lines, which, places), before.reshape(-1))
