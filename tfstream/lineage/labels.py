"""Labels computed again from the shards, as the bits that the model got."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfstream.format import expressions
from tfstream.format.reader import read_block
from tfstream.format.schema import FIRST_CODE
from tfstream.format.subset import Subset
from tfstream.format.values import stored_numbers


def label_bits(subset: Subset, blocks: np.ndarray, label: str) -> np.ndarray:
    """The labels of the kept rows of some blocks.

    Args:
        subset: the rows.
        blocks: ordinals of blocks of the subset, in the order wanted.
        label: a column, or a condition.

    Returns:
        (rows,) uint64: the bits of a float32 1 or 0 for a condition; for a column those of its
        stored value, a float's as they are, an integer's as its two's complement.

    Raises:
        CorruptionError: if a block is not what was written.
    """
    tree = expressions.parse(label)
    parts = [_block_bits(subset, int(block), tree) for block in blocks]
    return np.concatenate(parts)


def _block_bits(subset: Subset, block: int, tree: expressions.Node) -> np.ndarray:
    catalog = subset.catalog
    table = read_block(catalog, block, expressions.columns(tree))
    places = subset.row_ids_in(block) - catalog.block_first[block]
    if not isinstance(tree, expressions.Column):
        return _float_bits(
            _numpy(expressions.evaluate(tree, table.take(pa.array(places)))).astype(np.float32)
        )
    column = catalog.schema[tree.name]
    values = table[tree.name].take(pa.array(places))
    if column.coded:
        codes = pc.index_in(values, catalog.vocabularies[tree.name])
        return (_numpy(codes).astype(np.int64) + FIRST_CODE).astype(np.uint64)
    if pa.types.is_decimal(values.type):
        numbers = stored_numbers(values.combine_chunks(), np.dtype("<i8"))
        return _float_bits(numbers.astype(np.float64) / column.divisor)
    if pa.types.is_temporal(values.type):
        values = values.cast(pa.int64() if values.type.bit_width == 64 else pa.int32())  # noqa: PLR2004 - bits
    bare = _numpy(values)
    return _float_bits(bare) if bare.dtype.kind == "f" else bare.astype(np.int64).astype(np.uint64)


def _numpy(values: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(values.combine_chunks().to_numpy(zero_copy_only=False))


def _float_bits(values: np.ndarray) -> np.ndarray:
    return values.view(f"u{values.dtype.itemsize}").astype(np.uint64)
