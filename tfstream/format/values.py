"""Arrow values as the numbers and bytes that blocks hold, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tfstream.format.schema import Column


def stored_numbers(array: pa.Array, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values of a fixed width as (values,) of `dtype`, zero where one is null."""
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    # A decimal of 128 bits that has few digits is its lower 64 bits.
    step = array.type.bit_width // 8 // dtype.itemsize
    values = np.frombuffer(
        array.buffers()[1], dtype, len(array) * step, array.offset * step * dtype.itemsize
    )[::step]
    if array.null_count:
        return np.where(_valid(array), values, np.zeros((), dtype))
    return values


def restored_numbers(
    stored: NDArray[Any], type_: pa.DataType, valid: NDArray[Any] | None
) -> pa.Array:
    """The values of a type that `stored_numbers` made these of.

    Args:
        stored: (values,) numbers.
        type_: the type.
        valid: (values,) bool, whether a value is not null; None if none is null.
    """
    if pa.types.is_boolean(type_):
        return pa.array(stored.astype(bool), mask=None if valid is None else ~valid)
    native = np.ascontiguousarray(stored.astype(stored.dtype.newbyteorder("="), copy=False))
    if pa.types.is_decimal(type_):
        native = np.stack([native, native >> 63], axis=1)
    bits = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(type_, len(stored), [bits, pa.py_buffer(native)])


def stored_bytes(array: pa.Array) -> pa.Array:
    """Strings, bytes and long decimals as binary, nulls kept."""
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.string())
    return array.cast(pa.binary())


def restored_bytes(array: pa.Array, type_: pa.DataType, valid: NDArray[Any] | None) -> pa.Array:
    """The values of a type that `stored_bytes` made these of; `valid` as above."""
    if valid is not None:
        array = pc.if_else(pa.array(valid), array, pa.scalar(None, array.type))
    if pa.types.is_decimal(type_):
        array = array.cast(pa.string())
    return array.cast(type_)


def stored_tensors(
    array: pa.Array, column: Column, dtype: np.dtype[Any]
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Fixed-size lists as (rows, slots) of `dtype`; and, if one of their items is null, which.

    Returns:
        The numbers, zero where a row or an item is null, and (rows, slots) uint8 that is 1 where
        an item is there, or None.
    """
    flat = array
    for size in column.shape:
        flat = flat.values.slice(flat.offset * size, len(flat) * size)
    numbers = stored_numbers(flat, dtype).reshape(len(array), column.slots)
    if not array.null_count and not flat.null_count:
        return numbers, None
    rows = np.repeat(_valid(array)[:, np.newaxis], column.slots, axis=1)
    items = rows & _valid(flat).reshape(rows.shape)
    numbers = np.where(items, numbers, np.zeros((), dtype))
    return numbers, None if (items == rows).all() else items.astype(np.uint8)


def restored_tensors(
    stored: NDArray[Any], column: Column, items: NDArray[Any] | None, there: NDArray[Any] | None
) -> pa.Array:
    """The fixed-size lists that `stored_tensors` made (rows, slots) of.

    Args:
        stored: the numbers.
        column: the column.
        items: (rows * slots,) bool, whether an item is not null; None if none is null.
        there: (rows,) bool, whether a row is not null; None if none is null.
    """
    flat = restored_numbers(stored.reshape(-1), column.item, items)
    for size in column.shape[:0:-1]:
        flat = pa.FixedSizeListArray.from_arrays(flat, size)
    mask = None if there is None else pa.array(~there)
    return pa.FixedSizeListArray.from_arrays(flat, column.shape[0], mask=mask)


def restored_lists(items: pa.Array, lengths: NDArray[Any], there: NDArray[Any] | None) -> pa.Array:
    """Lists of these lengths, (rows,), out of their items; `there` as above."""
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    if offsets[-1] != len(items):
        raise ValueError(f"lists of {offsets[-1]} items have {len(items)}")
    mask = None if there is None else pa.array(~there)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items, mask=mask)


def _valid(array: pa.Array) -> NDArray[Any]:
    return np.asarray(array.is_valid().to_numpy(zero_copy_only=False))
