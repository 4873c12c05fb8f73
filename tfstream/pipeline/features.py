"""Which columns a model gets, and what stands where a value is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from tfstream.errors import UsageError
from tfstream.format import statistics
from tfstream.format.manifest import Catalog
from tfstream.format.schema import Column, Schema, storage_dtype

NullPolicy = Literal["nan", "mask"] | int | float

MISSING_SUFFIX = "_missing"
ITEM_MISSING_SUFFIX = "_item_missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One column as the model gets it."""

    column: Column
    has_nulls: bool
    """Whether a value is missing anywhere in the data set."""
    fill: int | float | None = None
    """What stands where a value is missing; None: 0, the code 0 or an empty string, as stored."""
    as_float: bool = False
    """Whether the column becomes float32, so that NaN fits in."""
    mask: bool = False
    """Whether a second feature, `missing_name`, tells where values are missing."""

    @property
    def name(self) -> str:
        """The column's name."""
        return self.column.name

    @property
    def missing_name(self) -> str:
        """Name of the feature that tells where values are missing."""
        return self.name + MISSING_SUFFIX

    @property
    def item_missing_name(self) -> str | None:
        """Name of the feature that tells which items of lists are null; None if there is none.

        Floating point items are NaN instead.
        """
        column = self.column
        marked = column.is_list and column.null_items and not _is_float(column)
        return self.name + ITEM_MISSING_SUFFIX if marked else None

    @property
    def mask_names(self) -> tuple[str, ...]:
        """Names of the features beside this one."""
        names = (self.missing_name if self.mask else None, self.item_missing_name)
        return tuple(name for name in names if name)


def nulls_of(catalog: Catalog) -> dict[str, bool]:
    """For each column, whether it has a null anywhere in the data set.

    Of the whole data set, so that streams over parts of it have the same features.
    """
    found = statistics.nulls(catalog.statistics)
    return {
        column.name: (column.nullable or column.coded) and found.get(column.name, 1) > 0
        for column in catalog.schema.columns
    }


def choose(
    schema: Schema, asked: Sequence[str] | None, others: Sequence[str | None]
) -> tuple[str, ...]:
    """The names of the features: those asked for, or all columns but the others and those of nulls.

    Raises:
        UsageError: if one is not there, or comes twice, or none is left.
    """
    if isinstance(asked, str):
        raise UsageError(f"features must be a list of columns, got the string {asked!r}")
    if asked is None:
        names = tuple(c.name for c in schema.columns if c.name not in others and not c.is_null)
    else:
        names = tuple(schema[name].name for name in asked)
    for i, name in enumerate(names):
        if name in names[:i]:
            raise UsageError(f"features has {name!r} twice; name each column once")
    if not names:
        raise UsageError("there is no feature; name at least one column")
    return names


def plan(
    catalog: Catalog,
    names: Sequence[str],
    policies: Mapping[str, NullPolicy],
    *,
    packed: bool,
) -> tuple[Feature, ...]:
    """The features, with what stands for their nulls.

    Raises:
        UsageError: if a policy does not fit its column.
    """
    for name in policies:
        if name not in names:
            raise UsageError(
                f"nulls has {name!r}, which is no feature; there are {', '.join(names)}"
            )
    has_nulls = nulls_of(catalog)
    features = tuple(
        _feature(catalog.schema[name], policies.get(name), has_nulls=has_nulls[name], packed=packed)
        for name in names
    )
    for feature in features:
        for mask in feature.mask_names:
            if mask in names:
                raise UsageError(
                    f"the mask of {feature.name!r} would be {mask!r}, which is a "
                    'feature already; set nulls for it to "nan" or a number, or leave one out'
                )
    return features


def _feature(
    column: Column, policy: NullPolicy | None, *, has_nulls: bool, packed: bool
) -> Feature:
    is_float, uncoded = _is_float(column), column.is_text and not column.coded
    _check_kind(column, packed=packed)
    if column.is_list:
        return _list(column, policy, has_nulls=has_nulls)
    has_nulls = has_nulls or column.null_items
    if policy is None:
        if column.is_text:
            return Feature(column=column, has_nulls=has_nulls)
        policy = "nan" if is_float or packed else "mask"
        if policy == "mask" and not has_nulls:
            return Feature(column=column, has_nulls=False)
    elif isinstance(policy, str) and policy not in ("nan", "mask"):
        raise UsageError(
            f'nulls for {column.name!r} must be "nan", "mask" or a number, got {policy!r}'
        )
    if policy == "mask":
        if packed:
            raise UsageError(
                f'nulls for {column.name!r} is "mask", which packed features have no place for; '
                'use "nan", a number, or packed=False'
            )
        # The mask was asked for: it is there even if no value is missing.
        return Feature(column=column, has_nulls=has_nulls, mask=True)
    if uncoded:
        raise UsageError(f'nulls for the text {column.name!r} can only be "mask", got {policy!r}')
    if policy == "nan":
        return Feature(column=column, has_nulls=has_nulls, fill=float("nan"), as_float=not is_float)
    fill = _number(column, policy, is_float=is_float, packed=packed)
    return Feature(column=column, has_nulls=has_nulls, fill=fill)


def _check_kind(column: Column, *, packed: bool) -> None:
    if column.is_null:
        raise UsageError(f"{column.name!r} has no value in any row; leave it out")
    uncoded = column.is_text and not column.coded
    if packed and (uncoded or column.is_list):
        kind = "text" if uncoded else "a list of any length"
        raise UsageError(
            f"{column.name!r} is {kind}, which cannot be packed; leave it out or set packed=False"
        )


def _list(column: Column, policy: NullPolicy | None, *, has_nulls: bool) -> Feature:
    if policy not in (None, "mask"):
        raise UsageError(f'nulls for the list {column.name!r} can only be "mask", got {policy!r}')
    return Feature(column=column, has_nulls=has_nulls, mask=has_nulls or policy == "mask")


def _number(column: Column, policy: NullPolicy, *, is_float: bool, packed: bool) -> int | float:
    if not isinstance(policy, (int, float)):
        raise UsageError(
            f'nulls for {column.name!r} must be "nan", "mask" or a number, got {policy!r}'
        )
    if is_float or packed:
        return float(policy)
    storage = pa.int32() if column.coded else column.item
    if pa.types.is_boolean(storage):
        if policy not in (0, 1):
            raise UsageError(f"nulls for the bool {column.name!r} must be 0 or 1, got {policy!r}")
        return int(policy)
    if pa.types.is_temporal(storage):
        storage = pa.int32() if storage.bit_width == 32 else pa.int64()  # noqa: PLR2004 - bits
    try:
        whole = int(policy)
        pa.scalar(whole, storage)
    except (ValueError, OverflowError, pa.ArrowException):
        whole = None
    if whole is None or whole != policy:
        raise UsageError(
            f"nulls for {column.name!r} must be a whole number that fits {column.type}, "
            f"got {policy!r}"
        )
    return whole


def _is_float(column: Column) -> bool:
    """Whether the model gets floating point numbers: decimals of few digits too."""
    is_number = storage_dtype(column.item) is not None
    return is_number and (pa.types.is_floating(column.item) or pa.types.is_decimal(column.item))
