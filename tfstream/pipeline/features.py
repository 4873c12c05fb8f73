"""Which columns a model gets, and what stands where a value is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from tfstream.errors import UsageError
from tfstream.format import statistics
from tfstream.format.manifest import Catalog
from tfstream.format.schema import Column, Schema

NullPolicy = Literal["nan", "mask"] | int | float

MISSING_SUFFIX = "_missing"


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


def nulls_of(catalog: Catalog) -> dict[str, bool]:
    """For each column, whether it has a null anywhere in the data set.

    Of the whole data set, so that streams over parts of it have the same features.
    """
    found = statistics.merge(catalog.statistics, None)
    return {
        column.name: (column.nullable or column.coded)
        and (column.name not in found or found[column.name].nulls > 0)
        for column in catalog.schema.columns
    }


def choose(
    schema: Schema, asked: Sequence[str] | None, others: Sequence[str | None]
) -> tuple[str, ...]:
    """The names of the features: those asked for, or all columns but the others.

    Raises:
        UsageError: if one is not there, or comes twice, or none is left.
    """
    if isinstance(asked, str):
        raise UsageError(f"features must be a list of columns, got the string {asked!r}")
    if asked is None:
        names = tuple(name for name in schema.names if name not in others)
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
        if feature.mask and feature.missing_name in names:
            raise UsageError(
                f"the mask of {feature.name!r} would be {feature.missing_name!r}, which is a "
                'feature already; set nulls for it to "nan" or a number, or leave one out'
            )
    return features


def _feature(
    column: Column, policy: NullPolicy | None, *, has_nulls: bool, packed: bool
) -> Feature:
    is_float = not column.is_text and pa.types.is_floating(column.arrow)
    uncoded = column.is_text and not column.coded
    if packed and uncoded:
        raise UsageError(
            f"{column.name!r} is text, which cannot be packed; leave it out or set packed=False"
        )
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


def _number(column: Column, policy: NullPolicy, *, is_float: bool, packed: bool) -> int | float:
    if not isinstance(policy, (int, float)):
        raise UsageError(
            f'nulls for {column.name!r} must be "nan", "mask" or a number, got {policy!r}'
        )
    if is_float or packed:
        return float(policy)
    storage = pa.int32() if column.coded else column.arrow
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
