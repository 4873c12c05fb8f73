"""Which columns a model gets, and what stands where a value is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import pyarrow as pa

from tfstream.errors import UsageError
from tfstream.format import statistics
from tfstream.format.manifest import Catalog
from tfstream.format.schema import Column, Schema, storage_dtype
from tfstream.pipeline.padding import Padded

NullPolicy = Literal["nan", "mask"] | int | float
StringForm = Literal["codes", "text"]

PACKED = "packed"
"""Name of the packed tensor where there are columns beside it."""
MISSING_SUFFIX = "_missing"
ITEM_MISSING_SUFFIX = "_item_missing"
LENGTH_SUFFIX = "_length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forms:
    """How the columns are to be delivered, as `StreamOptions` has it."""

    packed: bool | Sequence[str]
    nulls: Mapping[str, NullPolicy]
    padded: Mapping[str, Padded]
    strings: Mapping[str, StringForm]

    def packed_names(self, names: Sequence[str]) -> tuple[str, ...]:
        """The features that are packed, in their order in the tensor.

        Raises:
            UsageError: if one is no feature, or comes twice, or the tensor's name is taken.
        """
        if isinstance(self.packed, bool):
            return tuple(names) if self.packed else ()
        if isinstance(self.packed, str) or not self.packed:
            raise UsageError(f"packed must be True, False or columns, got {self.packed!r}")
        for i, name in enumerate(self.packed):
            _check_named("packed", name, names)
            if name in self.packed[:i]:
                raise UsageError(f"packed has {name!r} twice; name each column once")
        if PACKED in names and PACKED not in self.packed:
            raise UsageError(
                f"the packed columns would be the feature {PACKED!r}, which is a column already; "
                "pack it too or leave it out"
            )
        return tuple(self.packed)


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
    packed: bool = False
    """Whether it is a part of the packed tensor."""
    is_text: bool = False
    """Whether the values are `tf.string`."""
    padded: Padded | None = None
    """How a list becomes a tensor; None: it is ragged."""

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
    def length_name(self) -> str | None:
        """Name of the feature that tells the items of a padded list; None if there is none."""
        return self.name + LENGTH_SUFFIX if self.padded else None

    @property
    def beside_names(self) -> tuple[str, ...]:
        """Names of the features beside this one."""
        masks = (self.missing_name if self.mask else None, self.item_missing_name)
        return tuple(name for name in (*masks, self.length_name) if name)


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


def plan(catalog: Catalog, names: Sequence[str], forms: Forms) -> tuple[Feature, ...]:
    """The features, those that are packed first, with what stands for their nulls.

    Raises:
        UsageError: if what is asked for does not fit a column.
    """
    for option, named in (
        ("nulls", forms.nulls),
        ("padded", forms.padded),
        ("strings", forms.strings),
    ):
        for name in named:
            _check_named(option, name, names)
    packed, has_nulls = forms.packed_names(names), nulls_of(catalog)
    features = tuple(
        _feature(catalog.schema[name], forms, has_nulls=has_nulls[name], packed=name in packed)
        for name in (*packed, *(name for name in names if name not in packed))
    )
    taken = {*names, *(() if isinstance(forms.packed, bool) else (PACKED,))}
    for feature in features:
        for beside in feature.beside_names:
            if beside in taken:
                raise UsageError(
                    f"the {'length' if beside == feature.length_name else 'mask'} of "
                    f"{feature.name!r} would be {beside!r}, which is a feature already; "
                    'set nulls for it to "nan" or a number, or leave one out'
                )
            taken.add(beside)
    return features


def _check_named(option: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise UsageError(
            f"{option} has {name!r}, which is no feature; there are {', '.join(names)}"
        )


def _feature(column: Column, forms: Forms, *, has_nulls: bool, packed: bool) -> Feature:
    name = column.name
    is_text = _is_delivered_as_text(column, forms.strings.get(name))
    _check_kind(column, packed=packed, is_text=is_text)
    if (padded := forms.padded.get(name)) is not None:
        if not column.is_list:
            raise UsageError(f"padded has {name!r}, a {column.type}; only lists are padded")
        padded.value_of(column)
    policy = forms.nulls.get(name)
    if column.is_list:
        return replace(_list(column, policy, has_nulls=has_nulls), padded=padded)
    has_nulls = has_nulls or column.null_items
    plain = Feature(column=column, has_nulls=has_nulls, packed=packed, is_text=is_text)
    return _with_policy(plain, policy)


def _with_policy(plain: Feature, policy: NullPolicy | None) -> Feature:
    """The feature with what stands for its nulls."""
    column, has_nulls, packed = plain.column, plain.has_nulls, plain.packed
    name, is_float = column.name, _is_float(column)
    if policy is None:
        if column.is_text:
            return plain
        policy = "nan" if is_float or packed else "mask"
        if policy == "mask" and not has_nulls:
            return plain
    elif isinstance(policy, str) and policy not in ("nan", "mask"):
        raise UsageError(f'nulls for {name!r} must be "nan", "mask" or a number, got {policy!r}')
    if policy == "mask":
        if packed:
            raise UsageError(
                f'nulls for {name!r} is "mask", which packed features have no place for; '
                'use "nan", a number, or packed=False'
            )
        # The mask was asked for: it is there even if no value is missing.
        return replace(plain, mask=True)
    if plain.is_text:
        raise UsageError(f'nulls for the text {name!r} can only be "mask", got {policy!r}')
    if policy == "nan":
        return replace(plain, fill=float("nan"), as_float=not is_float)
    return replace(plain, fill=_number(column, policy, is_float=is_float, packed=packed))


def _is_delivered_as_text(column: Column, form: StringForm | None) -> bool:
    if form is None:
        return column.is_text and not column.coded
    if form not in get_args(StringForm):
        raise UsageError(f'strings for {column.name!r} must be "codes" or "text", got {form!r}')
    if not column.is_text:
        raise UsageError(f"strings has {column.name!r}, a {column.type}; it is no text")
    if form == "codes" and not column.coded:
        raise UsageError(
            f"{column.name!r} has too many values for codes; leave it out of strings, then it is "
            "text"
        )
    return form == "text"


def _check_kind(column: Column, *, packed: bool, is_text: bool) -> None:
    if column.is_null:
        raise UsageError(f"{column.name!r} has no value in any row; leave it out")
    if packed and (is_text or column.is_list):
        kind = "text" if is_text else "a list of any length"
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
