"""How well an order mixes the groups, computed from the plan."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfstream import order
from tfstream.entries import Layout
from tfstream.format import layout as laying
from tfstream.format.subset import Subset
from tfstream.order import NUMPY
from tfstream.spec import Spec

Ints = NDArray[Any]
Floats = NDArray[Any]


def quality_of(subset: Subset, spec: Spec, layout: Layout | None, epoch: int) -> float:
    """The quality of an epoch's full batches; 1 is that of uniform draws without replacement.

    A group effect is an independent value a group, of mean 0 and variance 1. A batch that has the
    share b of its rows in a group, of the share w in the epoch, is off by the sum of (b - w) times
    the effect, of variance sum((b - w)²). A batch takes `share` rows of each stretch's window of
    `width`, of which a group has the share p. So b has the mean m, the group's share in the windows
    together, and with s stretches of equal width the variance
    sum(p (1 - p) / share · (width - share) / (width - 1)) / s². Only groups that are in a window
    are looked at, since sum((m - w)²) = sum(m²) - 2 sum(m w) + sum(w²).
    """
    group, ends = _rows_by_group(subset, spec, layout, epoch)
    rows = np.diff(ends, prepend=0.0)
    weight = np.bincount(group, weights=rows) / spec.rows
    squares = float((weight**2).sum())
    batch = spec.batch_size
    uniform = (1 - squares) / batch * (spec.rows - batch) / max(spec.rows - 1, 1)
    if not spec.full_steps or uniform <= np.finfo(float).eps:
        return 1.0  # one group, or one batch: there is nothing to mix
    if layout is not None and layout.starts is not None:
        begins = layout.starts[: spec.full_steps]
        own = group[np.minimum(np.searchsorted(ends, begins + 0.5), len(group) - 1)]
        return math.sqrt(float((1 - 2 * weight[own] + squares).mean()) / uniform)
    steps, stretches = spec.window_steps, spec.stretches
    if spec.shuffle == "none":
        steps = 1
    windows = -(-spec.full_steps // steps)
    share = batch // stretches
    length = spec.full_steps * share
    first = np.minimum(np.arange(windows) * steps, spec.full_steps) * share
    begins = (np.arange(stretches)[:, None] * length + first).reshape(-1)
    width = np.tile(np.diff(np.append(first, length)), stretches).astype(float)
    # The sequence, cut where a group or a stretch's window begins or stops.
    stop = float(spec.full_steps * batch)
    edges = np.unique(np.concatenate([[stop], ends[ends < stop], begins.astype(float)]))
    lows, pieces = edges[:-1], np.diff(edges)
    own = group[np.minimum(np.searchsorted(ends, lows, side="right"), len(group) - 1)]
    cell = np.searchsorted(begins, lows, side="right") - 1
    inside, _, in_window = _sums(cell, own, pieces)
    drawn = width[inside]
    apart = np.bincount(inside, weights=(in_window / drawn) ** 2, minlength=len(begins))
    least = np.maximum(width - 1, 1)
    spread = (1 - apart) / share * (width - share) / least
    variance = spread.reshape(stretches, windows).sum(0) / stretches**2
    window, of_group, found = _sums(cell % windows, own, pieces)
    mean = found / (stretches * width[:windows][window])
    off = np.bincount(window, weights=mean**2 - 2 * mean * weight[of_group], minlength=windows)
    of_steps = width[:windows] / share
    return math.sqrt(
        float(((off + squares + variance) * of_steps).sum()) / spec.full_steps / uniform
    )


def _sums(cell: Ints, group: Ints, rows: Floats) -> tuple[Ints, Ints, Floats]:
    """Rows by cell and group, for the pairs that there are: cells, groups, sums."""
    by_pair = np.lexsort((group, cell))
    cell, group = cell[by_pair], group[by_pair]
    first = np.flatnonzero(np.append([True], (np.diff(cell) != 0) | (np.diff(group) != 0)))
    return cell[first], group[first], np.add.reduceat(rows[by_pair], first)


def _rows_by_group(
    subset: Subset, spec: Spec, layout: Layout | None, epoch: int
) -> tuple[Ints, Floats]:
    """The sequence of an epoch, apart by group: the group of each piece, and where it stops.

    The rows of an entry are taken to be in their order, and a part to have its share of each group.
    """
    block, ordinal, low, rows = laying.pieces_of(subset)
    same = laying.identities(subset.catalog)[ordinal]
    sequence = order.epoch_of(NUMPY, spec, subset.kept, epoch, layout=layout)
    entries = sequence.blocks
    sizes = np.diff(sequence.ends, prepend=0)
    of_block, start, ranged = entries, np.zeros(len(entries), np.int64), subset.kept
    if layout is not None:
        of_block, start, ranged = layout.block[entries], layout.low[entries], layout.rows
    first = np.searchsorted(block, of_block, side="left")
    count = np.searchsorted(block, of_block, side="right") - first
    entry = np.repeat(np.arange(len(entries)), count)
    piece = np.arange(len(entry)) + np.repeat(first - np.cumsum(count) + count, count)
    stop = start + ranged[entries]
    overlap = np.minimum(low[piece] + rows[piece], stop[entry]) - np.maximum(
        low[piece], start[entry]
    )
    kept = overlap > 0
    entry, piece = entry[kept], piece[kept]
    share = overlap[kept] / ranged[entries][entry]
    # Exact where entries are whole: sums of integers below 2^53.
    return same[piece], np.cumsum(
        np.where(sizes[entry] == ranged[entries][entry], overlap[kept], share * sizes[entry])
    )
