"""The side of a split that each row or group is on.

A side is an interval of [0, 1). By row, the rows of a block have keyed ranks, and the side [low,
high) has those from b(low) to b(high), where b(f) = ⌊f · rows + u⌋ and u in [0, 1) is the block's
own: the sides of a block differ from their fractions by less than a row, and over many blocks they
do not add up to one-sided errors. By group, a hash of the key's values is a place in [0, 1).

Keys are over the seed, the split's depth, and the block's first row id or the key's values: nothing
that an append or a condition changes, so a row stays on its side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tfstream.format.hashing import hashes
from tfstream.format.recipe import Split
from tfstream.order import NUMPY, key, permutations

_RANKS, _ROUNDING, _GROUPS = 65, 66, 67
"""Purposes of keys, see `order`; a number here is part of every split."""

_FRACTION_BITS = 53
"""Bits of a place in [0, 1)."""


def row_sides(
    first: NDArray[Any], rows: int, sides: Sequence[Split]
) -> tuple[NDArray[Any], list[tuple[NDArray[Any], NDArray[Any]]]]:
    """The ranks of the rows of some blocks of one length, and what ranks each side has.

    Args:
        first: (blocks,) int64, row id of the first row of each.
        rows: rows of each.
        sides: sides of one split.

    Returns:
        (blocks, rows) uint32 ranks, and for each side its first rank and the one behind its last,
        (blocks,) int64 each.
    """
    seed, depth = sides[0].seed, sides[0].depth
    ranks = permutations(NUMPY, key(NUMPY, seed, depth, _RANKS, first), rows)
    shares = _fractions(key(NUMPY, seed, depth, _ROUNDING, first))

    def bound(fraction: float) -> NDArray[Any]:
        if fraction >= 1:
            return np.full(len(first), rows)
        found: NDArray[Any] = np.floor(fraction * rows + shares).astype(np.int64)
        return np.where(found < rows, found, rows)

    return ranks, [(bound(side.low), bound(side.high)) for side in sides]


def group_side(keys: pa.Table, side: Split) -> NDArray[Any]:
    """Which groups are on a side of a split, (groups,) bool.

    Args:
        keys: the key columns, a row a group.
        side: the side.

    Raises:
        UsageError: if a key has no hash.
    """
    parts: list[NDArray[Any]] = []
    for values in keys.columns:
        plain = values.combine_chunks()
        if pa.types.is_decimal(plain.type):
            plain = plain.cast(pa.string())
        there = np.asarray(plain.is_valid())
        parts += [np.where(there, hashes(plain), np.uint64(0)), there.astype(np.uint64)]
    places = _fractions(key(NUMPY, side.seed, side.depth, _GROUPS, *parts))
    found: NDArray[Any] = (places >= side.low) & (places < side.high)
    return found


def _fractions(keys: NDArray[Any]) -> NDArray[Any]:
    """The high bits of keys as places in [0, 1)."""
    shift = np.uint64(64 - _FRACTION_BITS)
    found: NDArray[Any] = (keys >> shift).astype(np.float64) * 2.0**-_FRACTION_BITS
    return found
