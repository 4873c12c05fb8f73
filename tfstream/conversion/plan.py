"""Which rows go into which shard and block: arithmetic on counts, without files or partitions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

BLOCK_BYTES = 1 << 20
"""Bytes of a block at most, unless one row alone has more."""

_SLUG_LENGTH = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """One shard: a run of consecutive row ids."""

    ordinal: int
    """Its place among the shards, from 0."""
    first_row: int
    """Row id of its first row."""
    rows: int
    """At least 1."""
    first_group: int
    """Ordinal of the group of its first row."""
    groups: int
    """Number of groups that have rows here, at least 1."""


def block_limit(block_rows: int, row_bytes: int) -> int:
    """Rows of a block at most, for rows of this many bytes on average."""
    return max(1, min(block_rows, BLOCK_BYTES // max(1, row_bytes)))


def plan_shards(
    rows_per_group: np.ndarray, *, block_rows: int, shard_rows: int
) -> tuple[ShardPlan, ...]:
    """The shards of a data set.

    A group of at least `block_rows` rows has shards of its own, near-equal and of at most
    `shard_rows` rows. Smaller groups that follow each other share shards of at most `shard_rows`.

    Args:
        rows_per_group: (groups,) int64 in key order, each at least 1.
        block_rows: rows of a block at most.
        shard_rows: rows of a shard at most, at least 1.
    """
    shards: list[ShardPlan] = []
    first_row = open_rows = open_groups = 0

    def add(rows: int, first_group: int, groups: int) -> None:
        nonlocal first_row
        shards.append(
            ShardPlan(
                ordinal=len(shards),
                first_row=first_row,
                rows=rows,
                first_group=first_group,
                groups=groups,
            )
        )
        first_row += rows

    for group, rows in enumerate(rows_per_group.tolist()):
        large = rows >= block_rows or rows > shard_rows
        if open_groups and (large or open_rows + rows > shard_rows):
            add(open_rows, group - open_groups, open_groups)
            open_rows = open_groups = 0
        if large:
            for part in near_equal(rows, shard_rows).tolist():
                add(part, group, 1)
        else:
            open_rows, open_groups = open_rows + rows, open_groups + 1
    if open_groups:
        add(open_rows, len(rows_per_group) - open_groups, open_groups)
    return tuple(shards)


def near_equal(rows: int, limit: int) -> np.ndarray:
    """The fewest parts of at most `limit` rows: all of ⌈rows / parts⌉, the last shorter; int64."""
    parts = -(-rows // limit)
    size = -(-rows // parts)
    ends = np.minimum(np.arange(1, parts + 1, dtype=np.int64) * size, rows)
    sizes = np.diff(ends, prepend=0)
    return sizes[sizes > 0]


def shard_path(plan: ShardPlan, key: Mapping[str, Any]) -> str:
    """The path of a shard in the data set's folder: its ordinal, then a slug for people.

    Args:
        plan: the shard.
        key: the key of its first group.
    """
    slug = "-".join(f"{name}={value}" for name, value in key.items())
    slug = re.sub(r"[^A-Za-z0-9=._+-]+", "_", slug)[:_SLUG_LENGTH].strip("._-")
    more = f"-and-{plan.groups - 1}-more" if plan.groups > 1 else ""
    return f"shards/{plan.ordinal // 1000:03d}/{plan.ordinal:05d}-{slug}{more}.tfrecord"
