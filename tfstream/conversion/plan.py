"""Which rows go into which shard and block: arithmetic on counts, without files or partitions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

BLOCK_BYTES = 1 << 20
"""Bytes of a block at most, unless one row alone has more."""

SPAN_ROWS = 4096
"""Rows behind which the next small group begins a span of statistics."""
MOST_SPANS = 4096
"""Spans that small groups have at most, about: larger data sets have longer ones."""

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
    ends = np.cumsum(rows_per_group)
    large = np.flatnonzero((rows_per_group >= block_rows) | (rows_per_group > shard_rows))
    shards: list[ShardPlan] = []
    group = 0
    # A step is a shard, or all shards of a large group: never one of many small groups.
    for stop in np.append(large, len(ends)).tolist():
        while group < stop:
            first_row = int(ends[group] - rows_per_group[group])
            last = int(np.searchsorted(ends[:stop], first_row + shard_rows, side="right"))
            shards.append(_shard(len(shards), first_row, int(ends[last - 1]), group, last))
            group = last
        if stop < len(ends):
            first_row = int(ends[stop] - rows_per_group[stop])
            for part in near_equal(int(rows_per_group[stop]), shard_rows).tolist():
                shards.append(_shard(len(shards), first_row, first_row + part, stop, stop + 1))
                first_row += part
            group = stop + 1
    return tuple(shards)


def _shard(ordinal: int, first_row: int, stop_row: int, group: int, stop_group: int) -> ShardPlan:
    return ShardPlan(
        ordinal=ordinal,
        first_row=first_row,
        rows=stop_row - first_row,
        first_group=group,
        groups=stop_group - group,
    )


def plan_spans(counts: np.ndarray, rows: int) -> np.ndarray:
    """Where the spans of a shard begin: where a group does, the first behind a multiple of rows.

    Args:
        counts: (groups,) int64: rows that each group has in the shard.
        rows: those of the data set, which make spans longer where they are many.

    Returns:
        (spans + 1,) int64: where each span begins, and the number of rows.
    """
    length = max(SPAN_ROWS, -(-rows // MOST_SPANS))
    starts = np.cumsum(counts) - counts
    first = np.diff(starts // length, prepend=-1) > 0
    return np.append(starts[first], counts.sum())


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
