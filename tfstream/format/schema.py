"""Columns, and where each lies in a block."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tfstream.errors import DataError, UsageError

PACK_COLUMNS = 32
"""Columns of a pack at most, so that reading a few of many columns decodes a few packs."""

VOCABULARY_SIZE = 65_536
"""Distinct values up to which a string column is stored as codes."""

NULL_CODE, UNSEEN_CODE, FIRST_CODE = 0, 1, 2
"""Codes of a string column: null, a value that the vocabulary does not have, the first sorted
value."""

HEADER, MASK = "header", "mask"
"""Names of the features that every block has, and that blocks with nullable columns have."""

HEADER_BYTES = 20
"""First row id int64, rows uint32, token uint64; little-endian."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a data set."""

    name: str
    type: str
    """The Arrow type as pyarrow writes it, such as "timestamp[us, tz=UTC]"."""
    nullable: bool = False
    """Whether a null is stored, which takes a bit of the mask. Codes keep nulls by themselves."""
    coded: bool = False
    """Whether the column's strings are stored as codes of a vocabulary."""

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type."""
        return arrow_type(self.type)

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The little-endian numpy type of the stored values; None for text."""
        return np.dtype("<i4") if self.coded else storage_dtype(self.arrow)

    @property
    def is_text(self) -> bool:
        """Whether the values are strings or bytes, coded or not."""
        return storage_dtype(self.arrow) is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """Columns of one dtype, row-major in one feature."""

    name: str
    dtype: np.dtype[Any]
    columns: tuple[str, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.dtype.itemsize * len(self.columns)


@dataclass(frozen=True)  # Without slots, for what is derived once: every shard asks for it.
class Schema:
    """The columns of a data set, in the order of the source."""

    columns: tuple[Column, ...]

    def __getitem__(self, name: str) -> Column:
        """The column of this name.

        Raises:
            UsageError: if there is none, with those that there are.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise UsageError(f"there is no column {name!r}; there are {', '.join(self.names)}")

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order of the source."""
        return tuple(column.name for column in self.columns)

    @functools.cached_property
    def packs(self) -> tuple[Pack, ...]:
        """The packs of a block, in their order there."""
        by_dtype: dict[np.dtype[Any], list[str]] = {}
        for column in self.columns:
            if column.dtype is not None:
                by_dtype.setdefault(column.dtype, []).append(column.name)
        chunks = [
            (dtype, names[start : start + PACK_COLUMNS])
            for dtype, names in by_dtype.items()
            for start in range(0, len(names), PACK_COLUMNS)
        ]
        return tuple(
            Pack(name=f"pack/{i:04d}", dtype=dtype, columns=tuple(names))
            for i, (dtype, names) in enumerate(chunks)
        )

    @functools.cached_property
    def texts(self) -> dict[str, str]:
        """For each uncoded string column, the name of its feature."""
        names = [column.name for column in self.columns if column.dtype is None]
        return {name: f"text/{i:04d}" for i, name in enumerate(names)}

    @functools.cached_property
    def masked(self) -> tuple[str, ...]:
        """The columns that have a bit in the mask, in the order of their bits."""
        return tuple(column.name for column in self.columns if column.nullable)

    @property
    def mask_bytes(self) -> int:
        """Bytes that the mask takes for a row."""
        return -(-len(self.masked) // 8)

    @property
    def fixed_features(self) -> tuple[tuple[str, int], ...]:
        """Name and bytes a row of each feature behind the header whose width is fixed, in order."""
        mask = ((MASK, self.mask_bytes),) if self.masked else ()
        return (*mask, *((pack.name, pack.row_bytes) for pack in self.packs))

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in a block, without its texts."""
        return sum(width for _, width in self.fixed_features)

    def to_json(self) -> list[dict[str, Any]]:
        """The columns as plain values."""
        return [
            {"name": c.name, "type": c.type, "nullable": c.nullable, "coded": c.coded}
            for c in self.columns
        ]

    @classmethod
    def from_json(cls, values: Sequence[Mapping[str, Any]]) -> Schema:
        """The schema that `to_json` wrote."""
        columns = tuple(
            Column(name=v["name"], type=v["type"], nullable=v["nullable"], coded=v["coded"])
            for v in values
        )
        for column in columns:
            _ = column.arrow
        return cls(columns)


@functools.cache
def storage_dtype(type_: pa.DataType) -> np.dtype[Any] | None:
    """The little-endian numpy type of a value of an Arrow type; None for strings and bytes."""
    if pa.types.is_boolean(type_):
        return np.dtype("u1")
    if pa.types.is_integer(type_) or pa.types.is_floating(type_):
        return np.dtype(type_.to_pandas_dtype()).newbyteorder("<")
    if pa.types.is_temporal(type_) and type_.bit_width in (32, 64):
        return np.dtype(f"<i{type_.bit_width // 8}")
    return None


def stored_type(name: str, type_: pa.DataType) -> pa.DataType:
    """The type under which a column of a source is kept.

    Raises:
        DataError: if the type is not supported.
    """
    if pa.types.is_dictionary(type_):
        return stored_type(name, type_.value_type)
    if pa.types.is_large_string(type_) or pa.types.is_string(type_):
        return pa.string()
    if pa.types.is_large_binary(type_) or pa.types.is_binary(type_):
        return pa.binary()
    if pa.types.is_null(type_):
        return pa.string()
    if storage_dtype(type_) is not None and not pa.types.is_interval(type_):
        return type_
    raise DataError(
        f"column {name!r} has the type {type_}, which is not supported yet; "
        "leave it out of the source or cast it to a number, a timestamp or a string"
    )


@functools.cache
def arrow_type(text: str) -> pa.DataType:
    """The Arrow type that pyarrow writes as `text`.

    Raises:
        DataError: if it is none that a data set can have.
    """
    head, _, rest = text.partition("[")
    arguments = [part.strip() for part in rest.rstrip("]").split(",")] if rest else []
    makers: dict[str, Any] = {
        "timestamp": lambda unit, tz=None: pa.timestamp(
            unit, tz.removeprefix("tz=") if tz else None
        ),
        "duration": pa.duration,
        "time32": pa.time32,
        "time64": pa.time64,
        "date32": lambda _="day": pa.date32(),
        "date64": lambda _="ms": pa.date64(),
        "halffloat": pa.float16,
        "float": pa.float32,
        "double": pa.float64,
        "bool": pa.bool_,
        "string": pa.string,
        "binary": pa.binary,
    } | {
        f"{sign}int{bits}": getattr(pa, f"{sign}int{bits}")
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    }
    try:
        type_: pa.DataType = makers[head](*arguments)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{text!r} is not a column type of this format") from error
    return type_
