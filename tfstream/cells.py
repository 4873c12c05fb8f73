"""Tables as lines of text, for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from decimal import Decimal

import pyarrow as pa

from tfstream.format.distinct import MOST_LISTED
from tfstream.format.kept_statistics import describe
from tfstream.format.manifest import Catalog
from tfstream.format.subset import Subset

_SHOWN_LETTERS = 24


def cells(table: pa.Table) -> list[list[str]]:
    """The names and values of a table as text."""
    columns = [[_text(value) for value in column.to_pylist()] for column in table.columns]
    return [list(table.column_names), *map(list, zip(*columns, strict=True))]


def _text(value: object) -> str:
    """A value as one cell; what could steer a terminal is shown, not sent."""
    text = "" if value is None else str(value)
    return text if text.isprintable() else ascii(text)


def aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines whose cells stand below each other."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for cells in lines:
        yield "  ".join(
            cell.ljust(width) for cell, width in zip(cells, widths, strict=True)
        ).rstrip()


def column_table(catalog: Catalog) -> list[list[str]]:
    """A line a column: its type, and its statistics over all rows; ~ for an estimate."""
    found = describe(Subset.whole(catalog))
    lines = [["column", "type", "nulls", "distinct", "min", "max", "mean", "deviation"]]
    for column in catalog.schema.columns:
        values, type_ = found[column.name], column.arrow
        distinct = "" if values.distinct is None else f"{values.distinct:,}"
        exact = column.coded or values.distinct is None or values.distinct <= MOST_LISTED
        deviation = "" if values.variance is None else f"{math.sqrt(values.variance):.6g}"
        lines.append(
            [
                column.name,
                column.type,
                f"{values.nulls:,}",
                distinct if exact else f"~{distinct}",
                *(_shown(value, type_) for value in (values.min, values.max, values.mean)),
                deviation,
            ]
        )
    return lines


def _shown(value: float | Decimal | str | bytes | None, type_: pa.DataType) -> str:
    """A statistic for people: a date or a time where the column holds such, timestamps in UTC."""
    if value is None:
        return ""
    if isinstance(value, (str, bytes)):
        text = _text(value)
        return text if len(text) <= _SHOWN_LETTERS else text[: _SHOWN_LETTERS - 1] + "…"
    if not pa.types.is_temporal(type_) or pa.types.is_duration(type_):
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    bare = pa.timestamp(type_.unit) if pa.types.is_timestamp(type_) else type_
    return str(
        pa.array([round(value)]).cast(f"int{type_.bit_width}").view(bare).cast(pa.string())[0]
    )
