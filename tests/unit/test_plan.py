"""Which rows go into which shard and block."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfstream.conversion.plan import ShardPlan, block_limit, near_equal, plan_shards, shard_path

counts = st.lists(st.integers(1, 3000), min_size=1, max_size=40)


@given(rows=counts, block_rows=st.integers(1, 600), shard_rows=st.integers(1, 2000))
def test_shards_tile_the_rows(rows: list[int], block_rows: int, shard_rows: int) -> None:
    """Every row id is in one shard, in order; the groups of a shard are those of its rows."""
    plans = plan_shards(np.array(rows), block_rows=block_rows, shard_rows=shard_rows)
    ends = np.cumsum(rows)
    place = 0
    for ordinal, plan in enumerate(plans):
        assert (plan.ordinal, plan.first_row) == (ordinal, place)
        assert 1 <= plan.rows <= shard_rows
        place += plan.rows
        first = int(np.searchsorted(ends, plan.first_row, side="right"))
        last = int(np.searchsorted(ends, place - 1, side="right"))
        assert (plan.first_group, plan.groups) == (first, last - first + 1)
    assert place == sum(rows)


@given(rows=counts, block_rows=st.integers(1, 600), shard_rows=st.integers(600, 2000))
def test_a_large_group_is_alone_in_its_shards(
    rows: list[int], block_rows: int, shard_rows: int
) -> None:
    """Only groups below a block's rows share a shard."""
    for plan in plan_shards(np.array(rows), block_rows=block_rows, shard_rows=shard_rows):
        if plan.groups > 1:
            assert max(rows[plan.first_group : plan.first_group + plan.groups]) < block_rows


@given(rows=st.integers(1, 10**6), limit=st.integers(1, 10**5))
def test_near_equal_parts(rows: int, limit: int) -> None:
    """Parts tile the rows, none is above the limit, and only the last ones are shorter."""
    parts = near_equal(rows, limit)
    assert parts.sum() == rows
    assert 1 <= parts.min() <= parts.max() <= limit
    assert (np.diff(parts) <= 0).all()
    assert (parts[:-1] == parts[0]).all()


@pytest.mark.parametrize(
    ("block_rows", "row_bytes", "limit"),
    [(512, 137, 512), (512, 2049, 511), (512, 1 << 21, 1), (512, 0, 512)],
)
def test_a_block_stays_within_a_mebibyte(block_rows: int, row_bytes: int, limit: int) -> None:
    """Wide rows lower the rows of a block, down to one."""
    assert block_limit(block_rows, row_bytes) == limit


@pytest.mark.parametrize(
    ("key", "groups", "path"),
    [
        ({"month": 7, "day": 4}, 1, "shards/001/01234-month=7-day=4.tfrecord"),
        ({"s": "a/../b c"}, 3, "shards/001/01234-s=a_.._b_c-and-2-more.tfrecord"),
        ({"s": "x" * 300}, 1, f"shards/001/01234-s={'x' * 58}.tfrecord"),
        ({"s": None}, 1, "shards/001/01234-s=None.tfrecord"),
    ],
)
def test_paths_are_safe_and_short(key: dict[str, object], groups: int, path: str) -> None:
    """A path holds the ordinal and a slug that no value can break out of."""
    plan = ShardPlan(ordinal=1234, first_row=0, rows=1, first_group=0, groups=groups)
    assert shard_path(plan, key) == path
