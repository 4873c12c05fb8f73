"""Weights, shards and batches of one group: what an epoch has, and where its rows are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layouts import groups_of, laid_out, laid_outs, subset_of
from tfstream.entries import Layout
from tfstream.errors import UsageError
from tfstream.format.layout import weights_of
from tfstream.format.places import Places
from tfstream.format.subset import Subset
from tfstream.order import NUMPY, Spec, epoch_of, rows_of_steps

Case = tuple[Subset, Spec, Layout | None]


def steps_of(case: Case, epoch: int) -> list[np.ndarray]:
    """The row ids of each step of an epoch."""
    subset, spec, _ = case
    places = Places(subset, spec)
    return [places.rows_of(epoch, step) for step in range(spec.steps_per_epoch)]


def weight_of_rows(subset: Subset, spec: Spec) -> np.ndarray:
    """The weight of each row."""
    starts = subset.catalog.group_starts
    sizes = np.diff(np.append(starts, subset.catalog.rows))
    return np.repeat(weights_of(subset.catalog, spec.weights), sizes)


@given(laid_outs(), st.integers(0, 2**40))
@settings(deadline=None)
def test_an_epoch_has_what_the_weights_say(case: Case, epoch: int) -> None:
    """Each row comes its weight rounded down or up; all rows of a weight together exactly.

    Where batches are of one group, each group exactly.
    """
    subset, spec, _ = case
    weight = weight_of_rows(subset, spec)
    rows = np.concatenate(steps_of(case, epoch))
    assert len(rows) == spec.rows
    seen = np.bincount(rows, minlength=subset.catalog.rows)
    assert (np.floor(weight) <= seen).all()
    assert (seen <= np.ceil(weight)).all()
    unit = groups_of(subset) if spec.batches == "group" else weight
    for value in np.unique(unit):
        for share in np.unique(weight[unit == value]):
            some = (unit == value) & (weight == share)
            whole = int(share)
            assert seen[some].sum() == whole * some.sum() + np.rint((share - whole) * some.sum())


@given(laid_outs(), st.integers(0, 2**40))
@settings(deadline=None)
def test_rows_of_steps_and_steps_of_rows_are_inverse(case: Case, epoch: int) -> None:
    """Each occurrence of a row in a step is found, and no other, for rows in any order."""
    subset, spec, _ = case
    steps = steps_of(case, epoch)
    expected = sorted((row, step) for step, rows in enumerate(steps) for row in rows.tolist())
    asked = np.arange(subset.catalog.rows)[::-1]
    which, found = Places(subset, spec).steps_of(epoch, asked)
    assert sorted(zip(asked[which].tolist(), found.tolist(), strict=True)) == expected
    assert (np.diff(which) >= 0).all()


@given(laid_outs(), st.integers(0, 9))
@settings(deadline=None)
def test_steps_have_the_rows_that_the_spec_says(case: Case, epoch: int) -> None:
    """Without a subset at hand, from the spec alone."""
    _, spec, _ = case
    sizes = [len(rows) for rows in steps_of(case, epoch)]
    count = np.arange(len(sizes))
    assert rows_of_steps(spec, np.full(len(sizes), epoch), count).tolist() == sizes
    assert sizes[: spec.full_steps] == [spec.batch_size] * spec.full_steps


@given(laid_outs(batches="group"), st.integers(0, 2**40))
@settings(deadline=None)
def test_batches_are_of_one_group(case: Case, epoch: int) -> None:
    """Every batch, the shorter ones at the end too."""
    group = groups_of(case[0])
    assert all(len(np.unique(group[rows])) == 1 for rows in steps_of(case, epoch))


@given(laid_outs(batches="group", weights=()), st.integers(0, 9))
@settings(deadline=None)
def test_a_dropped_remainder_is_that_of_each_group(case: Case, epoch: int) -> None:
    """Fewer rows than a batch are dropped of each group."""
    subset, spec, _ = case
    key = groups_of(subset)
    sizes = np.bincount(key)
    if (sizes < spec.batch_size).all():
        return
    dropping, _ = laid_out(
        subset,
        batches="group",
        remainder="drop",
        batch_size=spec.batch_size,
        window_steps=spec.window_steps,
        seed=spec.seed,
    )
    rows = np.concatenate(steps_of((subset, dropping, None), epoch))
    seen = np.bincount(key[rows], minlength=len(sizes))
    assert (seen == sizes // spec.batch_size * spec.batch_size).all()
    assert len(np.unique(rows)) == len(rows)


@given(laid_outs(batches="mixed", shuffle="shards", weights=()), st.integers(0, 2**40))
@settings(deadline=None)
def test_the_blocks_of_a_shard_stay_together(case: Case, epoch: int) -> None:
    """The sequence has whole shards, each with its blocks in the manifest's order."""
    subset, spec, layout = case
    sequence = epoch_of(NUMPY, spec, subset.kept, epoch, layout=layout)
    shards = subset.catalog.block_shard[sequence.blocks]
    assert sorted(sequence.blocks.tolist()) == list(range(len(subset.blocks)))
    assert (np.diff(shards) != 0).sum() == len(np.unique(shards)) - 1
    assert (np.diff(sequence.blocks)[np.diff(shards) == 0] == 1).all()


def test_shards_change_places_from_epoch_to_epoch() -> None:
    """They are permuted, and otherwise in another epoch."""
    subset = subset_of([4] * 60, [4] * 60, [2] * 30)
    spec, layout = laid_out(subset, shuffle="shards")
    orders = {
        tuple(epoch_of(NUMPY, spec, subset.kept, epoch, layout=layout).blocks) for epoch in range(3)
    }
    assert len(orders) == 3
    assert tuple(range(60)) not in orders


def test_a_part_is_another_one_each_epoch_and_each_row_s_turn_comes_alike() -> None:
    """Over 400 epochs each row of weight 0.3 comes in 0.3 of them.

    So do groups of one row between others of weight 1, which no rounding of their own would leave.
    """
    subset = subset_of([1] * 20 + [80], [25, 25, 25, 25], [4])
    some = "g in (0, 2, 4, 6, 8, 10, 12, 14, 16, 18)"
    for weights, weighted in (
        ((("g >= 0", 0.3),), np.arange(100)),
        (((some, 0.3),), np.arange(0, 20, 2)),
    ):
        case = subset, *laid_out(subset, weights=weights)
        seen = np.zeros(100)
        for epoch in range(400):
            rows = np.concatenate(steps_of(case, epoch))
            assert len(rows) == case[1].rows
            seen[rows] += 1
        error = np.sqrt(0.3 * 0.7 / 400)
        assert np.abs(seen[weighted] / 400 - 0.3).max() < 5 * error


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((("x = 1", 2.0),), "weights: 'x = 1' is about 'x', but weights are those of whole groups"),
        ((("g", 2.0),), "weights: 'g' is a int64, not a condition"),
        ((("g = 0", -1.0),), "weights['g = 0'] must be from 0 to 1000, got -1.0"),
        ((("g = 0", float("nan")),), "weights['g = 0'] must be from 0 to 1000, got nan"),
        ((("g >= 0", 0.0),), "the subset has no rows"),
    ],
)
def test_weights_that_cannot_be_are_refused(
    weights: tuple[tuple[str, float], ...], message: str
) -> None:
    """What is wrong with which condition."""
    subset = subset_of([5, 5], [10], [1])
    with pytest.raises(UsageError) as refused:
        laid_out(subset, weights=weights)
    assert message in str(refused.value)
