"""What an epoch's sequence is made of where it is not each block once: weights, shards, groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tfstream.entries import Layout, Parts
from tfstream.errors import UsageError
from tfstream.format import expressions
from tfstream.format.manifest import Catalog
from tfstream.format.subset import Subset

_MAX_UNIT_ROWS = 2**31
"""A product of two numbers below it is an int64."""

_MAX_WEIGHT = 1000
"""An entry a pass is held in memory for each block."""

Ints = NDArray[Any]
Weights = Sequence[tuple[str, float]]


def layout_of(
    subset: Subset, *, shuffle: str, batches: str, weights: Weights, cut: tuple[int, str]
) -> Layout | None:
    """The layout of a subset; None where the sequence is each block once.

    Args:
        subset: the rows.
        shuffle: of the spec, as the next two.
        batches: "mixed" or "group".
        weights: conditions over groups, and weights.
        cut: the batch size and the remainder of the spec.

    Raises:
        UsageError: if a condition is about something else than groups.
    """
    if batches == "mixed" and not weights:
        return _of_shards(subset) if shuffle == "shards" else None
    block, group, low, rows = pieces_of(subset)
    of_group = weights_of(subset.catalog, weights)[group]
    same = identities(subset.catalog)[group] if batches == "group" else of_group
    # Ranges of a block that follow each other and are alike are one.
    starts = np.flatnonzero(
        np.concatenate([[True], (np.diff(block) != 0) | (same[1:] != same[:-1])])[: len(block)]
    )
    if len(starts):
        rows = np.add.reduceat(rows, starts)
    block, low, same, weight = block[starts], low[starts], same[starts], of_group[starts]
    _, unit = np.unique(same, return_inverse=True)
    whole = np.floor(weight).astype(np.int64)
    most = int(whole.max(initial=0))
    passes = [np.flatnonzero(whole > i) for i in range(most)]
    partly = np.flatnonzero(weight > whole)
    entries = np.concatenate([*passes, partly]).astype(np.int64)
    turn = np.repeat(np.arange(most + 1), [*map(len, passes), len(partly)])
    parts = None
    if len(partly):
        parts = _parts(rows, entries, unit[partly], (weight - whole)[partly])
    shard = subset.catalog.block_shard[subset.blocks[block[entries]]]
    layout: dict[str, Any] = {
        "kept": subset.kept,
        "block": block[entries],
        "low": low[entries],
        "rows": rows[entries],
        "ranged": True,
        "parts": parts,
        "runs": _runs(turn, shard) if shuffle == "shards" else None,
    }
    if batches == "group":
        layout["group"] = unit[entries].astype(np.int64)
        layout["starts"], layout["sizes"] = _steps(layout, *cut)
    return Layout(**layout)


def rows_of(layout: Layout) -> int:
    """Rows of each epoch."""
    return int(_rows_by(np.zeros(len(layout.rows), np.int64), layout.rows, layout.parts).sum())


def pieces_of(subset: Subset) -> tuple[Ints, Ints, Ints, Ints]:
    """The kept rows of each block, apart by group.

    Returns:
        Four vectors of int64: the block's index in the subset, the group's ordinal, the first row
        among the block's kept ones, and rows, at least 1.
    """
    catalog = subset.catalog
    starts = catalog.group_starts
    stops = np.append(starts[1:], catalog.rows)
    first = catalog.block_first[subset.blocks]
    stop = first + catalog.block_rows[subset.blocks]
    low = np.searchsorted(starts, first, side="right") - 1
    count = np.searchsorted(starts, stop, side="left") - low
    block = np.repeat(np.arange(len(first)), count)
    group = np.arange(len(block)) + np.repeat(low - np.cumsum(count) + count, count)
    begin = np.maximum(starts[group], first[block])
    rows = subset.kept_between(begin, np.minimum(stops[group], stop[block]))
    rank = subset.kept_between(first[block], begin)
    kept = rows > 0
    return block[kept], group[kept], rank[kept], rows[kept]


def identities(catalog: Catalog) -> Ints:
    """A number for each of the groups, the same where the keys are: an append repeats keys."""
    codes = np.zeros(catalog.groups.num_rows, np.int64)
    for name in catalog.manifest.keys:
        column = catalog.groups[name].combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks)
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        found = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64) + 1
        _, codes = np.unique(codes * (found.max(initial=0) + 1) + found, return_inverse=True)
    return codes


def weights_of(catalog: Catalog, weights: Weights) -> NDArray[np.float64]:
    """The weight of each of the groups: of the first condition that it fulfils, else 1.

    Raises:
        UsageError: if a condition is about something else than the keys of groups, or a weight is
            no number from 0 on.
    """
    made = [expressions.parse_key(key) for key in catalog.manifest.group_by]
    found = np.ones(catalog.groups.num_rows)
    free = np.ones(len(found), bool)
    for text, weight in weights:
        if not 0 <= weight <= _MAX_WEIGHT:
            raise UsageError(f"weights[{text!r}] must be from 0 to {_MAX_WEIGHT}, got {weight}")
        tree = expressions.with_keys(expressions.parse(text), made)
        for name in expressions.columns(tree):
            if name not in catalog.manifest.keys:
                raise UsageError(
                    f"weights: {text!r} is about {name!r}, but weights are those of whole groups; "
                    f"their keys are {', '.join(catalog.manifest.keys)}"
                )
        values = expressions.evaluate(tree, catalog.groups)
        if not pa.types.is_boolean(values.type):
            raise UsageError(f"weights: {text!r} is a {values.type}, not a condition")
        truth = np.asarray(values.fill_null(fill_value=False).to_numpy(zero_copy_only=False), bool)
        found[free & truth] = weight
        free &= ~truth
    return found


def _of_shards(subset: Subset) -> Layout:
    blocks = np.arange(len(subset.blocks))
    return Layout(
        kept=subset.kept,
        block=blocks,
        low=np.zeros(len(blocks), np.int64),
        rows=subset.kept,
        ranged=False,
        runs=_runs(np.zeros(len(blocks), np.int64), subset.catalog.block_shard[subset.blocks]),
    )


def _runs(turn: Ints, shard: Ints) -> Ints:
    """Lengths of the runs of entries of one pass and one shard; (runs,) int64."""
    edges = np.flatnonzero((np.diff(turn) != 0) | (np.diff(shard) != 0)) + 1
    return np.diff(np.concatenate([[0], edges, [len(turn)]])).astype(np.int64)


def _parts(rows: Ints, entries: Ints, unit: Ints, fraction: NDArray[Any]) -> Parts:
    """How entries are dealt out: the last ones by the rounding of their unit, the others whole.

    Args:
        rows: (ranges,) of each range.
        entries: (entries,) the range of each.
        unit: (parts,) the unit of each of the last entries.
        fraction: (parts,) the share of their rows that an epoch has.
    """
    own = rows[entries]
    whole = len(entries) - len(unit)
    first = int(unit.max()) + 1
    units = np.concatenate([first + np.arange(whole), unit]).astype(np.int64)
    before, unit_rows, unit_part = np.zeros(len(own), np.int64), own.copy(), own.copy()
    in_order = np.argsort(unit, kind="stable")
    part_rows, sorted_unit = own[whole:][in_order], unit[in_order]
    sums = np.cumsum(part_rows) - part_rows
    edges = np.flatnonzero(np.concatenate([[True], np.diff(sorted_unit) != 0]))
    sizes = np.diff(np.append(edges, len(sorted_unit)))
    totals = np.add.reduceat(part_rows, edges)
    if totals.max() >= _MAX_UNIT_ROWS:
        raise UsageError(
            f"a weight that is no whole number is for at most 2^31 rows, got {totals.max()}; "
            "give whole weights, or a subset of fewer rows"
        )
    before[whole:][in_order] = sums - np.repeat(sums[edges], sizes)
    unit_rows[whole:][in_order] = np.repeat(totals, sizes)
    shares = np.rint(totals * fraction[in_order][edges]).astype(np.int64)
    unit_part[whole:][in_order] = np.repeat(shares, sizes)
    return Parts(
        unit=units,
        before=before,
        unit_rows=unit_rows,
        unit_part=unit_part,
        longest=int(own.max()),
    )


def _rows_by(label: Ints, rows: Ints, parts: Parts | None) -> Ints:
    """Rows of an epoch by label, which all entries of a unit share; (labels,) int64."""
    found = np.zeros(int(label.max(initial=-1)) + 1, np.int64)
    if parts is None:
        np.add.at(found, label, rows)
        return found
    last = parts.before + rows == parts.unit_rows
    np.add.at(found, label[last], parts.unit_part[last])
    return found


def _steps(layout: dict[str, Any], batch_size: int, remainder: str) -> tuple[Ints, Ints]:
    """Where the batches of each group begin in the sequence, and their rows; full ones first."""
    rows = _rows_by(layout["group"], layout["rows"], layout["parts"])
    starts = np.cumsum(rows) - rows
    full, rest = np.divmod(rows, batch_size)
    of_group = np.repeat(np.arange(len(rows)), full)
    place = np.arange(len(of_group)) - np.repeat(np.cumsum(full) - full, full)
    begins, sizes = starts[of_group] + place * batch_size, np.full(len(place), batch_size)
    if remainder == "keep":
        left = np.flatnonzero(rest)
        begins = np.concatenate([begins, (starts + full * batch_size)[left]])
        sizes = np.concatenate([sizes, rest[left]])
    return begins, sizes
