"""Numbers that a float cannot hold: found, so that none is changed in silence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

EXACT_WHOLE = float(1 << 53)
"""Up to here a float64 holds every whole number."""
_WHOLE, _INFINITE = r"^\s*[+-]?[0-9]+\s*$", r"(?i)^\s*[+-]?inf(inity)?\s*$"


def cast(values: pa.ChunkedArray | pa.Array, type_: pa.DataType) -> pa.ChunkedArray | pa.Array:
    """Values of another type; floats may be rounded.

    Raises:
        pa.ArrowInvalid: if one does not fit. Arrow's own cast makes too large a float infinite.
    """
    if values.type == type_:
        return values
    found = values.cast(type_)
    before, after = _flat(values), _flat(found)
    if pa.types.is_floating(after.type):
        lost = _infinite(after)
        if pc.any(lost).as_py():
            lost = pc.and_(lost, pc.invert(_infinite(before)))
            if pc.any(lost).as_py():
                value = before.filter(lost)[0].as_py()
                raise pa.ArrowInvalid(f"{value} is too large for {after.type}")
    return found


def check_text(name: str, texts: pa.ChunkedArray, numbers: pa.ChunkedArray, limit: float) -> None:
    """Nothing, if floats parsed from text are what the text says, but for rounded fractions.

    Args:
        name: the column.
        texts: what was parsed.
        numbers: what came of it.
        limit: whole numbers from here on must be exact too; infinity if they may be rounded.

    Raises:
        pa.ArrowInvalid: if one is a whole number that was rounded, or is too large.
    """
    large = pc.fill_null(pc.greater_equal(pc.abs(numbers), limit), fill_value=False)
    texts, numbers = texts.filter(large), numbers.filter(large)
    infinite = _infinite(numbers)
    lost = pc.and_(infinite, pc.invert(pc.match_substring_regex(texts, _INFINITE)))
    if pc.any(lost).as_py():
        raise too_large(name, texts.filter(lost)[0].as_py(), numbers.type)
    whole = pc.and_(pc.invert(infinite), pc.match_substring_regex(texts, _WHOLE))
    pairs = zip(texts.filter(whole).to_pylist(), numbers.filter(whole).to_pylist(), strict=True)
    for text, number in pairs:
        if int(text) != int(number):
            raise rounded(name, text.strip(), numbers.type)


def check_json(name: str, value: Any, type_: pa.DataType, *, may_round: bool) -> None:  # noqa: ANN401 - JSON
    """The same for a value of JSON, whose numbers `json` has parsed: whole ones as they are.

    Raises:
        pa.ArrowInvalid: as `check_text`.
    """
    if isinstance(value, dict) and pa.types.is_struct(type_):
        for field in type_:
            check_json(
                f"{name}.{field.name}", value.get(field.name), field.type, may_round=may_round
            )
    elif isinstance(value, list) and pa.types.is_list(type_):
        for item in value:
            check_json(name, item, type_.value_type, may_round=may_round)
    elif isinstance(value, (int, float)) and pa.types.is_floating(type_):
        largest = float(np.finfo(type_.to_pandas_dtype()).max)
        if abs(value) > largest:
            raise too_large(name, str(value), type_)
        if isinstance(value, int) and not may_round and int(float(value)) != value:
            raise rounded(name, str(value), type_)


def holds_large(values: pa.ChunkedArray | pa.Array, limit: float) -> bool:
    """Whether a float in a column, or inside its lists and structs, is so large."""
    type_ = values.type
    if isinstance(values, pa.ChunkedArray):
        return any(holds_large(chunk, limit) for chunk in values.chunks)
    if pa.types.is_struct(type_):
        return any(holds_large(field, limit) for field in values.flatten())
    if pa.types.is_list(type_):
        return holds_large(values.flatten(), limit)
    if not pa.types.is_floating(type_):
        return False
    return bool(pc.any(pc.greater_equal(pc.abs(values), limit)).as_py())


def too_large(name: str, text: str, type_: pa.DataType) -> pa.ArrowInvalid:
    """The error for a number beyond the largest of a type."""
    return pa.ArrowInvalid(f"column {name!r}: {text} is too large for {type_}")


def rounded(name: str, text: str, type_: pa.DataType) -> pa.ArrowInvalid:
    """The error for a whole number that a type does not hold."""
    return pa.ArrowInvalid(
        f"column {name!r}: {text} is a whole number that {type_}, found for the column, would "
        "round; choose a type by dtypes="
    )


def _flat(values: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
        values = pc.list_flatten(values)
    return values


def _infinite(values: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Which values are infinite, of floats or of texts; not null."""
    type_ = values.type
    if pa.types.is_string(type_):
        found = pc.match_substring_regex(values, _INFINITE)
    elif pa.types.is_floating(type_):
        found = pc.is_inf(values.cast(pa.float32()) if type_ == pa.float16() else values)
    else:
        found = pc.is_null(values, nan_is_null=False)
        found = pc.and_(found, pc.invert(found))
    return pc.fill_null(found, fill_value=False)
