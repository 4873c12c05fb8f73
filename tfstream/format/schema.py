"""Columns, and where each lies in a block."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from tfstream.errors import DataError, UsageError

PACK_COLUMNS = 32
"""Columns of a pack at most, so that reading a few of many columns decodes a few packs."""

RECORD_ROW_BYTES = 256
"""Bytes of a row from which on a block goes on in another record, so that few of many columns are
read without the others."""

VOCABULARY_SIZE = 65_536
"""Distinct values up to which a string column is stored as codes."""

NULL_CODE, UNSEEN_CODE, FIRST_CODE = 0, 1, 2
"""Codes of a string column: null, a value that the vocabulary does not have, the first sorted
value."""

HEADER, MASK = "header", "mask"
"""Names of the features that every block has, and that blocks with nullable columns have."""

DECIMAL_DIGITS = 18
"""Digits up to which a decimal is stored as an int64, without its point; else as a string."""

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
    null_items: bool = False
    """Whether a null inside a list or a tensor is stored, which takes a byte an item."""

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type."""
        return arrow_type(self.type)

    @property
    def item(self) -> pa.DataType:
        """The Arrow type of one number or text: of the items of a list or a tensor."""
        type_ = self.arrow
        while pa.types.is_list(type_) or pa.types.is_fixed_size_list(type_):
            type_ = type_.value_type
        return type_

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a row's tensor, a fixed-size list; () for others."""
        sizes, type_ = [], self.arrow
        while pa.types.is_fixed_size_list(type_):
            sizes.append(type_.list_size)
            type_ = type_.value_type
        return tuple(sizes)

    @property
    def slots(self) -> int:
        """Values of a row in its pack."""
        return math.prod(self.shape)

    @property
    def is_list(self) -> bool:
        """Whether the rows are lists of any length: their lengths are in a pack, as int32."""
        return bool(pa.types.is_list(self.arrow))

    @property
    def is_null(self) -> bool:
        """Whether the type is null: there is no value and nothing is stored."""
        return bool(pa.types.is_null(self.arrow))

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The little-endian numpy type of what a pack holds; None if there is nothing in one."""
        return np.dtype("<i4") if self.coded or self.is_list else storage_dtype(self.item)

    @property
    def divisor(self) -> float:
        """By what a stored number is divided: 100 for a decimal of scale 2, 1 for others."""
        return 10.0**self.item.scale if pa.types.is_decimal(self.item) else 1.0

    @property
    def is_text(self) -> bool:
        """Whether a value is stored as bytes of any length, or as a code of such."""
        return not (self.is_list or self.is_null) and storage_dtype(self.item) is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """Columns of one dtype, or one column of tensors, row-major in one feature."""

    name: str
    dtype: np.dtype[Any]
    columns: tuple[str, ...]
    slots: int
    """Values of a row."""

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.dtype.itemsize * self.slots


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
        """The packs of a block, in their order there: a tensor has one of its own, at the end."""
        by_dtype: dict[np.dtype[Any], list[str]] = {}
        for column in self.columns:
            if column.dtype is not None and not column.shape:
                by_dtype.setdefault(column.dtype, []).append(column.name)
        chunks = [
            (dtype, chunk, len(chunk))
            for dtype, names in by_dtype.items()
            for start in range(0, len(names), PACK_COLUMNS)
            for chunk in [names[start : start + PACK_COLUMNS]]
        ]
        chunks += [(c.dtype, [c.name], c.slots) for c in self.columns if c.dtype and c.shape]
        return tuple(
            Pack(name=f"pack/{i:04d}", dtype=dtype, columns=tuple(names), slots=slots)
            for i, (dtype, names, slots) in enumerate(chunks)
        )

    @functools.cached_property
    def texts(self) -> dict[str, str]:
        """For each column of uncoded strings or of lists, the name of its feature."""
        names = [
            column.name
            for column in self.columns
            if column.is_list or (column.is_text and not column.coded)
        ]
        return {name: f"text/{i:04d}" for i, name in enumerate(names)}

    @functools.cached_property
    def validities(self) -> dict[str, str]:
        """For each column with nulls inside its lists or tensors, the name of their feature."""
        names = [column.name for column in self.columns if column.null_items]
        return {name: f"valid/{i:04d}" for i, name in enumerate(names)}

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

    @functools.cached_property
    def records(self) -> tuple[tuple[tuple[str, int], ...], ...]:
        """The records of a block: each its features of `fixed_features`; texts are in the last."""
        found: list[list[tuple[str, int]]] = [[]]
        rest = self.row_bytes
        for feature in self.fixed_features:
            # What is left over at the end is no record of its own.
            if _width(found[-1]) >= RECORD_ROW_BYTES <= rest:
                found.append([])
            found[-1].append(feature)
            rest -= feature[1]
        return tuple(map(tuple, found))

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in a block, without its texts."""
        return _width(self.fixed_features)

    def to_json(self) -> list[dict[str, Any]]:
        """The columns as plain values."""
        return [asdict(column) for column in self.columns]

    @classmethod
    def from_json(cls, values: Sequence[Mapping[str, Any]]) -> Schema:
        """The schema that `to_json` wrote."""
        columns = tuple(Column(**{f.name: v[f.name] for f in fields(Column)}) for v in values)
        for column in columns:
            _ = column.arrow
        return cls(columns)


def _width(features: Iterable[tuple[str, int]]) -> int:
    return sum(width for _, width in features)


@functools.cache
def storage_dtype(type_: pa.DataType) -> np.dtype[Any] | None:
    """The little-endian numpy type of a value of an Arrow type; None if it is stored as bytes."""
    if pa.types.is_boolean(type_):
        return np.dtype("u1")
    if pa.types.is_integer(type_) or pa.types.is_floating(type_):
        return np.dtype(type_.to_pandas_dtype()).newbyteorder("<")
    if pa.types.is_temporal(type_) and type_.bit_width in (32, 64):
        return np.dtype(f"<i{type_.bit_width // 8}")
    if pa.types.is_decimal(type_) and type_.precision <= DECIMAL_DIGITS:
        return np.dtype("<i8")
    return None


@functools.cache
def arrow_type(text: str) -> pa.DataType:
    """The Arrow type that pyarrow writes as `text`.

    Raises:
        DataError: if it is none that a data set can have.
    """
    nested = re.fullmatch(r"(?:list<item: (.+)>|fixed_size_list<item: (.+)>\[(\d+)\])", text)
    if nested:
        item, fixed_item, size = nested.groups()
        return pa.list_(arrow_type(item)) if item else pa.list_(arrow_type(fixed_item), int(size))
    head, _, rest = text.replace("(", "[").replace(")", "]").partition("[")
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
        "decimal128": lambda precision, scale: pa.decimal128(int(precision), int(scale)),
        "decimal256": lambda precision, scale: pa.decimal256(int(precision), int(scale)),
        "halffloat": pa.float16,
        "float": pa.float32,
        "double": pa.float64,
        "bool": pa.bool_,
        "string": pa.string,
        "binary": pa.binary,
        "fixed_size_binary": lambda size: pa.binary(int(size)),
        "null": pa.null,
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
