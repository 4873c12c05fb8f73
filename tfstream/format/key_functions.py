"""The key functions: values derived from one column, that rows can be grouped by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tfstream.errors import UsageError
from tfstream.format.hashing import hashes


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a timestamp, such as its month, in a zone."""

    part: str
    column: str
    zone: str | None = None


@dataclass(frozen=True, slots=True)
class Hash:
    """The 64-bit hash of a column's value, see `hashing`, modulo `n`: int64 from 0 to n - 1."""

    column: str
    n: int
    """1 to 2^63 - 1."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """The number of a column divided by a width, rounded down.

    Whole numbers stay so, in int64 or uint64, and need a whole width. Floats are divided and
    rounded in float64: inf and NaN stay what they are.
    """

    column: str
    width: int | float
    """Above 0."""


Derived = Part | Hash | Bucket
"""The key functions: what is derived from the value of one column."""

PARTS: dict[str, Callable[[Any], Any]] = {
    "year": pc.year,
    "month": pc.month,
    "day": pc.day,
    "hour": pc.hour,
    "weekday": pc.day_of_week,
    "date": lambda values: pc.cast(values, pa.date32()),
}
FUNCTION_NAMES = (*PARTS, "hash", "bucket")
FUNCTIONS = f"{', '.join(PARTS)} of a timestamp column, hash(column, n), bucket(column, width)"
"""The key functions, for messages."""


def name_of(node: Derived) -> str:
    """What the function is called."""
    return node.part if isinstance(node, Part) else type(node).__name__.lower()


def derive(node: Derived, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """The value of a key function for each value of its column; null for null.

    Raises:
        UsageError: if the type of the column does not allow it.
    """
    if isinstance(node, Part):
        return PARTS[node.part](_local(values, node))
    chunks = values.chunks or [pa.array([], values.type)]
    return pa.chunked_array(
        pa.array(
            _hashed(node, chunk) if isinstance(node, Hash) else _bucketed(node, chunk),
            mask=np.asarray(chunk.is_null()),
            from_pandas=False,
        )
        for chunk in chunks
    )


def _hashed(node: Hash, values: pa.Array) -> NDArray[Any]:
    return (hashes(values) % np.uint64(node.n)).astype(np.int64)


def _bucketed(node: Bucket, values: pa.Array) -> NDArray[Any]:
    if pa.types.is_floating(values.type):
        numbers: NDArray[Any] = np.asarray(values.cast(pa.float64()).fill_null(0))
        return np.asarray(np.floor(numbers / node.width))
    if not pa.types.is_integer(values.type):
        raise UsageError(
            f"bucket({node.column}, {node.width}) needs a number, but {node.column!r} is "
            f"{values.type}; a time has year, month, day, hour, date and weekday"
        )
    if not isinstance(node.width, int):
        raise UsageError(
            f"bucket({node.column}, {node.width}) needs a whole width, since {node.column!r} is "
            f"{values.type}"
        )
    wide = np.uint64 if pa.types.is_unsigned_integer(values.type) else np.int64
    return np.asarray(values.fill_null(0)).astype(wide) // wide(node.width)


def _local(values: pa.ChunkedArray, part: Part) -> pa.ChunkedArray:
    """The wall clock in the part's zone; a timestamp without a zone counts as UTC."""
    if not pa.types.is_timestamp(values.type):
        if pa.types.is_date(values.type) and part.zone is None and part.part != "hour":
            return values
        raise UsageError(
            f"{part.part}({part.column}) needs a timestamp, but {part.column!r} is {values.type}"
        )
    if part.zone is None:
        return values if values.type.tz is None else pc.local_timestamp(values)
    if values.type.tz is None:
        values = pc.assume_timezone(values, "UTC")
    return pc.local_timestamp(values.cast(pa.timestamp(values.type.unit, part.zone)))
