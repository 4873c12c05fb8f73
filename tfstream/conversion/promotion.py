"""One type for the values of two, where that loses nothing."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

_UNITS = ("s", "ms", "us", "ns")
_EXACT_BITS = {16: 11, 32: 24, 64: 53}
"""Bits of the integers that a float of so many bits holds exactly."""
_DECIMAL128_DIGITS, _DECIMAL256_DIGITS = 38, 76


def promoted(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """The narrowest type that holds every value of both; None if there is none."""
    return merged(left, right, _widened)


def merged(
    left: pa.DataType,
    right: pa.DataType,
    widened: Callable[[pa.DataType, pa.DataType], pa.DataType | None],
) -> pa.DataType | None:
    """One type for two, field by field where they are nested; None if there is none.

    Args:
        left: a type.
        right: another.
        widened: one type for two that differ and are not nested.
    """
    if left == right or pa.types.is_null(right):
        return left
    if pa.types.is_null(left):
        return right
    if pa.types.is_list(left) and pa.types.is_list(right):
        inner = merged(left.value_type, right.value_type, widened)
        return None if inner is None else pa.list_(inner)
    if pa.types.is_struct(left) and pa.types.is_struct(right):
        fields = {field.name: field.type for field in left}
        for field in right:
            both = merged(fields.get(field.name, pa.null()), field.type, widened)
            if both is None:
                return None
            fields[field.name] = both
        return pa.struct(list(fields.items()))
    return widened(left, right)


def _widened(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    types = pa.types
    if types.is_integer(left) and types.is_integer(right):
        return _integer(left, right)
    if types.is_floating(left) and types.is_floating(right):
        return left if left.bit_width > right.bit_width else right
    if types.is_floating(right):
        left, right = right, left
    if types.is_floating(left) and types.is_integer(right):
        bits = right.bit_width - types.is_signed_integer(right)
        floats = (pa.float16(), pa.float32(), pa.float64())
        fits = [
            f for f in floats if bits <= _EXACT_BITS[f.bit_width] and f.bit_width >= left.bit_width
        ]
        return fits[0] if fits else None
    if types.is_decimal(left) and types.is_decimal(right):
        return _decimal(left, right)
    return _finer(left, right)


def _integer(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    signed = [pa.types.is_signed_integer(type_) for type_ in (left, right)]
    if signed[0] == signed[1]:
        return left if left.bit_width > right.bit_width else right
    wide, unsigned = (left, right) if signed[0] else (right, left)
    if wide.bit_width > unsigned.bit_width:
        return wide
    return {8: pa.int16(), 16: pa.int32(), 32: pa.int64()}.get(unsigned.bit_width)


def _decimal(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    scale = max(left.scale, right.scale)
    digits = max(left.precision - left.scale, right.precision - right.scale) + scale
    if digits <= _DECIMAL128_DIGITS:
        return pa.decimal128(digits, scale)
    return pa.decimal256(digits, scale) if digits <= _DECIMAL256_DIGITS else None


def _finer(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """The type of the finer unit; a value that it does not hold is found when it is read."""
    types = pa.types
    alike = (
        (types.is_timestamp(left) and types.is_timestamp(right) and left.tz == right.tz)
        or (types.is_duration(left) and types.is_duration(right))
        or (types.is_time(left) and types.is_time(right))
    )
    if not alike:
        return None
    return left if _UNITS.index(left.unit) > _UNITS.index(right.unit) else right
