"""Lists as tensors of one length: how long, and what stands behind their ends."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from tfstream.errors import UsageError
from tfstream.format import kept_statistics
from tfstream.format.schema import Column, storage_dtype
from tfstream.format.subset import Subset


@dataclass(frozen=True, slots=True, kw_only=True)
class Padded:
    """A list as a tensor (batch, length), with a feature `<name>_length` beside it, int32."""

    length: int | None = None
    """Items of a row, at least 1; None: those of the longest list of the batch."""
    value: float | str | bytes | None = None
    """What stands behind the end of a list; None: 0, False or an empty string."""
    cut: bool = False
    """Whether the items of a list beyond `length` are left out; else such a list is refused."""

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            UsageError: with the name of the field.
        """
        if self.length is not None and self.length < 1:
            raise UsageError(f"length of Padded must be at least 1 or None, got {self.length}")

    def value_of(self, column: Column) -> bool | int | float | bytes:
        """The value as an item of the column.

        Raises:
            UsageError: if it is none.
        """
        item, value = column.item, self.value
        if storage_dtype(item) is None:
            if value is None or isinstance(value, (str, bytes)):
                return value.encode() if isinstance(value, str) else value or b""
        elif value is None:
            return False if pa.types.is_boolean(item) else 0
        elif isinstance(value, (bool, int, float)):
            if pa.types.is_floating(item) or pa.types.is_decimal(item):
                return float(value)
            if pa.types.is_boolean(item) and value in (0, 1):
                return bool(value)
            if pa.types.is_temporal(item):
                item = pa.int32() if item.bit_width == 32 else pa.int64()  # noqa: PLR2004 - bits
            if value == value // 1 and _fits(int(value), item):
                return int(value)
        raise UsageError(
            f"the padding of {column.name!r}, a {column.type}, cannot be {value!r}; give a value "
            "that its items can have"
        )


def check_lengths(subset: Subset, name: str, padded: Padded) -> None:
    """Refuse lists that are longer than they may be, by the statistics of the rows.

    Raises:
        UsageError: with the length of the longest.
    """
    if padded.length is None or padded.cut:
        return
    longest = kept_statistics.describe(subset, [name])[name].max
    if isinstance(longest, int) and longest > padded.length:
        raise UsageError(
            f"{name!r} has a list of {longest} items in {subset.catalog.folder}, but is padded to "
            f"{padded.length}; give Padded(length={longest}), or cut=True to leave items out"
        )


def _fits(value: int, type_: pa.DataType) -> bool:
    try:
        pa.scalar(value, type_)
    except (OverflowError, pa.ArrowException):
        return False
    return True
