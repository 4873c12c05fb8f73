"""Rows of blocks as packed bits: a line a block, the lowest bit of the first byte first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK_ROWS = 1 << 18
"""Bits that are unpacked at once: with what is computed for each they fit the cache."""

_COUNTS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)
_BYTE = 8


def chunks(count: int, width: int) -> Iterator[slice]:
    """Lines that are unpacked at once, of `count` lines of `width` bytes."""
    lines = max(1, CHUNK_ROWS // (_BYTE * max(1, width)))
    return (slice(start, start + lines) for start in range(0, count, lines))


def width_of(rows: NDArray[Any]) -> int:
    """Bytes of a line for blocks of so many rows."""
    return -(-int(rows.max(initial=0)) // _BYTE)


def packed(mask: NDArray[Any], width: int) -> NDArray[Any]:
    """Lines of `width` bytes from (lines, rows) bool."""
    found = np.packbits(mask, axis=1, bitorder="little")
    lines = np.zeros((len(mask), width), np.uint8)
    lines[:, : found.shape[1]] = found[:, :width]
    return lines


def unpacked(lines: NDArray[Any]) -> NDArray[Any]:
    """(lines, 8 · width) bool."""
    return np.unpackbits(lines, axis=1, bitorder="little").view(bool)


def counts(lines: NDArray[Any]) -> NDArray[Any]:
    """Bits set in each line, (lines,) int64."""
    found = np.empty(len(lines), np.int64)
    for chunk in chunks(*lines.shape):
        found[chunk] = _COUNTS[lines[chunk]].sum(axis=1, dtype=np.int64)
    return found


def counts_before(lines: NDArray[Any], which: NDArray[Any], places: NDArray[Any]) -> NDArray[Any]:
    """How many bits are set before a place of a line, (n,) int64.

    Args:
        lines: all lines.
        which: (n,) the line of each place.
        places: (n,) from 0 to the bits of a line.
    """
    found = np.empty(len(which), np.int64)
    columns = np.arange(lines.shape[1])
    for chunk in chunks(len(which), lines.shape[1]):
        whole, rest = np.divmod(places[chunk], _BYTE)
        chosen = lines[which[chunk]]
        before = np.where(columns < whole[:, None], _COUNTS[chosen], 0).sum(axis=1, dtype=np.int64)
        last = chosen[np.arange(len(chosen)), np.minimum(whole, len(columns) - 1)]
        mask = ((1 << rest) - 1).astype(np.uint8)
        found[chunk] = before + _COUNTS[last & mask]
    return found


def are_set(lines: NDArray[Any], which: NDArray[Any], places: NDArray[Any]) -> NDArray[Any]:
    """Whether the bit at a place of a line is set, (n,) bool."""
    found: NDArray[Any] = lines[which, places // _BYTE] >> (places % _BYTE).astype(np.uint8) & 1
    return found.astype(bool)
