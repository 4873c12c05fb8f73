"""What the batches of a run were made of, step by step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tfstream.errors import UsageError
from tfstream.format import expressions, reader
from tfstream.lineage import whereabouts

if TYPE_CHECKING:
    from tfstream.format.manifest import Catalog
    from tfstream.lineage.run import Run

_READ_ROWS = 1 << 18
"""Rows whose values are read at once."""


def composition(run: Run, by: str | None, steps: Iterable[tuple[int, int, int]]) -> pa.Table:
    """How many rows of each value the batches had.

    Args:
        run: the run.
        by: a column or a key function such as "bucket(price, 10)"; the groups' keys if None.
        steps: (step of the run, epoch, step in the epoch) each.

    Returns:
        step, the keys or the value, and rows, by step and value.

    Raises:
        UsageError: if `by` does not parse, names a column that is not there, or one of lists.
    """
    catalog = run.catalog
    parts = []
    for numbers, row_ids in _portions(run, steps):
        values = _values(catalog, by, row_ids)
        coded = [column.combine_chunks().dictionary_encode() for column in values.columns]
        codes = [
            np.asarray(column.indices.fill_null(len(column.dictionary)).to_numpy())
            for column in coded
        ]
        _, first, counts = np.unique(
            np.stack([numbers, *codes]), axis=1, return_index=True, return_counts=True
        )
        lines = values.take(pa.array(first))
        parts.append(
            pa.table(
                {"step": pa.array(numbers[first])}
                | dict(zip(lines.column_names, lines.columns, strict=True))
                | {"rows": pa.array(counts)}
            )
        )
    if not parts:
        nothing = _values(catalog, by, np.empty(0, np.int64))
        ends = ("step", pa.int64()), ("rows", pa.int64())
        return pa.schema([ends[0], *nothing.schema, ends[1]]).empty_table()
    found = pa.concat_tables(parts)
    names = [(name, "ascending") for name in found.column_names[:-1]]
    return found.sort_by(names).combine_chunks()


def _portions(
    run: Run, steps: Iterable[tuple[int, int, int]]
) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """The rows of some whole steps at a time, and beside each its step."""
    numbers: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    count = 0
    for step, epoch, in_epoch in steps:
        found = run.places.rows_of(epoch, in_epoch)
        numbers.append(np.full(len(found), step))
        rows.append(found)
        count += len(found)
        if count >= _READ_ROWS:
            yield np.concatenate(numbers), np.concatenate(rows)
            numbers, rows, count = [], [], 0
    if rows:
        yield np.concatenate(numbers), np.concatenate(rows)


def _values(catalog: Catalog, by: str | None, row_ids: np.ndarray) -> pa.Table:
    """What is counted, a line a row."""
    taken = ("step", "rows")
    groups = whereabouts.groups_of(catalog, row_ids)
    if by is None:
        return pa.table(whereabouts.keys(catalog, groups, taken=taken))
    key = expressions.parse_key(by)
    name = f"value_{key.name}" if key.name in taken else key.name
    if isinstance(key.value, expressions.Column) and key.value.name in catalog.manifest.keys:
        return pa.table({name: catalog.groups[key.value.name].take(pa.array(groups))})
    table = reader.take(catalog, row_ids, expressions.columns(key.value))
    values = expressions.evaluate(key.value, table)
    if pa.types.is_nested(values.type) or pa.types.is_null(values.type):
        raise UsageError(
            f"{by!r} is {values.type}, whose values are not counted; name another column"
        )
    return pa.table({name: values})
