"""What statistics do not tell of lists and tensors, from a few of the rows of a subset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfstream.errors import UsageError
from tfstream.format import reader
from tfstream.format.schema import Column, storage_dtype
from tfstream.format.subset import Subset
from tfstream.format.values import stored_bytes, stored_numbers

_BLOCKS = 16
"""Blocks that are read, evenly over the subset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Of the items of some rows that are neither null nor NaN."""

    mean: float
    variance: float


def moments(subset: Subset, column: Column) -> Moments:
    """Mean and variance of the items of a column of lists or tensors, in 16 blocks at most."""
    items = _items(subset, column)
    dtype = storage_dtype(column.item)
    if dtype is None:
        raise TypeError(f"{column.name} has no numbers")
    values = stored_numbers(items, dtype).astype(np.float64) / column.divisor
    values = values[np.isfinite(values)]
    if not len(values):
        return Moments(mean=0.0, variance=1.0)
    return Moments(mean=float(values.mean()), variance=float(values.var()))


def distinct_bound(subset: Subset, column: Column) -> int:
    """About how many distinct items lists of text have: those seen, and as many for the unseen."""
    return 2 * int(pc.count_distinct(stored_bytes(_items(subset, column))).as_py())


def plain_texts(words: Sequence[bytes], name: str) -> list[str]:
    """Words as a Keras layer keeps them.

    Raises:
        UsageError: if one is no UTF-8, or ends in a zero byte, which numpy would cut off.
    """
    try:
        texts = [word.decode() for word in words]
    except UnicodeDecodeError:
        texts = ["\0"]
    if any(text.endswith("\0") for text in texts):
        raise UsageError(
            f"{name!r} has values that are no UTF-8 text or end in a zero byte, which Keras' "
            "StringLookup cannot keep; leave it out of the features"
        )
    return texts


def _items(subset: Subset, column: Column) -> pa.Array:
    """The items that are no nulls."""
    items: pa.Array = _rows(subset, column.name)
    while not items.type.equals(column.item):
        items = items.flatten()
    return items.drop_null()


def _rows(subset: Subset, name: str) -> pa.Array:
    blocks = subset.blocks[np.unique(np.linspace(0, len(subset.blocks) - 1, _BLOCKS).astype(int))]
    ids = np.concatenate([subset.row_ids_in(int(block)) for block in blocks])
    return reader.take(subset.catalog, ids, [name])[name].combine_chunks()
