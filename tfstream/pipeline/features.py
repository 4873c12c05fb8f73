"""What the model gets of each column: its name, its dtype, and what stands for a null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from tfstream.errors import UsageError
from tfstream.format.schema import Column, Schema

MISSING = "_missing"
"""What the name of a mask feature ends with."""

Nulls = Literal["nan", "mask"] | float | int


@dataclass(frozen=True, slots=True)
class Feature:
    """One column as the model gets it."""

    column: Column
    nulls: Nulls | None
    """What stands for a null: NaN, a 0 with a mask beside it, a number; None where that is fixed by the type (code 0,
    an empty string) or there are none."""

    @property
    def name(self) -> str:
        """The name in the dict of features."""
        return self.column.name

    @property
    def mask_name(self) -> str | None:
        """The name of the mask beside it, if there is one."""
        return f"{self.name}{MISSING}" if self.nulls == "mask" else None


def plan(
    schema: Schema, names: Sequence[str], nulls: Mapping[str, Nulls], *, packed: bool
) -> tuple[Feature, ...]:
    """The features of these columns.

    Raises:
        UsageError: if a column is not there, comes twice, or cannot be what is asked.
    """
    if not names:
        raise UsageError("a stream needs at least one feature; name a column")
    for name in names:
        if list(names).count(name) > 1:
            raise UsageError(f"the feature {name!r} is given twice")
    for name in nulls:
        if name not in names:
            raise UsageError(f"nulls names {name!r}, which is not among the features")
    features = tuple(_feature(schema[name], nulls.get(name), packed=packed) for name in names)
    for feature in features:
        if feature.mask_name in names:
            raise UsageError(
                f"the mask of {feature.name!r} would be called {feature.mask_name!r}, as a column is; "
                f"choose another way for its nulls"
            )
    return features


def _feature(column: Column, asked: Nulls | None, *, packed: bool) -> Feature:
    if column.is_text:
        if packed and not column.coded:
            raise UsageError(f"the text {column.name!r} cannot be packed into numbers; leave it out")
        if asked is not None:
            raise UsageError(
                f'nulls of {column.name!r} have their own value already: {"code 0" if column.coded else "an empty"} '
                f"{'' if column.coded else 'string'}".rstrip()
            )
        return Feature(column, None)
    if asked is not None and not isinstance(asked, (int, float)) and asked not in ("nan", "mask"):
        raise UsageError(f'nulls of {column.name!r} can be "nan", "mask" or a number, not {asked!r}')
    if packed and asked == "mask":
        raise UsageError(f"a packed tensor has no place for the mask of {column.name!r}; use the dict")
    if not column.nullable:
        return Feature(column, None)
    if asked is None:
        asked = "nan" if packed or pa.types.is_floating(column.arrow) else "mask"
    return Feature(column, asked)


def as_plain(features: Sequence[Feature]) -> dict[str, Any]:
    """Names and nulls as plain values."""
    return {feature.name: feature.nulls for feature in features}
