"""Tables as lines of text, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa


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


def number(value: float, type_: pa.DataType) -> str:
    """A statistic for people: a date or a time where the column holds such, timestamps in UTC."""
    if not pa.types.is_temporal(type_) or pa.types.is_duration(type_):
        return f"{value:.6g}"
    bare = pa.timestamp(type_.unit) if pa.types.is_timestamp(type_) else type_
    return str(
        pa.array([round(value)]).cast(f"int{type_.bit_width}").view(bare).cast(pa.string())[0]
    )
