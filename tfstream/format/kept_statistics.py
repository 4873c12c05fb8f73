"""Statistics of exactly the rows of a subset.

Spans that are kept whole are added up from the index. Of spans that are kept in part, the kept rows
are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tfstream.format import damage, statistics
from tfstream.format.manifest import Catalog
from tfstream.format.reader import StoredRows, read_stored
from tfstream.format.schema import Schema
from tfstream.format.statistics import ColumnStatistics
from tfstream.format.subset import Subset

_described: WeakKeyDictionary[Subset, dict[str, ColumnStatistics]] = WeakKeyDictionary()
"""What was found of subsets that are still in use, lest their rows be read twice."""

_READ_ROWS = 1 << 16
"""Rows that are read and summed up at once."""


def describe(subset: Subset, columns: Sequence[str] | None = None) -> dict[str, ColumnStatistics]:
    """The statistics of each column over the rows of a subset, by the column's name.

    Args:
        subset: the rows.
        columns: those wanted; all if None.

    Raises:
        CorruptionError: if a block that must be read is not what was written.
    """
    names = subset.catalog.schema.names if columns is None else columns
    known = _described.setdefault(subset, {})
    missing = [name for name in dict.fromkeys(names) if name not in known]
    if missing:
        with damage.told(f"the statistics of {subset.catalog.folder}"):
            known.update(_describe(subset, missing))
    return {name: known[name] for name in names if name in known}


def _describe(subset: Subset, names: Sequence[str]) -> dict[str, ColumnStatistics]:
    """The same, of columns that are not known yet; one pass over what must be read."""
    catalog = subset.catalog
    schema = Schema(tuple(catalog.schema[name] for name in names))
    firsts, rows = _spans(catalog)
    kept = subset.kept_between(firsts, firsts + rows)
    whole = firsts[kept == rows]
    found = [
        (_entries(catalog.statistics, names, whole), _counts(catalog, schema, whole)),
        *(
            statistics.compute(
                schema, part.packs, part.missing, part.texts, np.array([0, count]), 0
            )
            for part, count in _read(subset, schema, firsts, (kept > 0) & (kept < rows))
        ),
    ]
    entries, counts = (pa.concat_tables(tables) for tables in zip(*found, strict=True))
    return statistics.merge(schema, entries, counts, catalog.vocabularies)


def without(before: Catalog, after: Catalog, row_ids: NDArray[Any]) -> tuple[pa.Table, pa.Table]:
    """The entries of all spans, and the counts of codes, when some rows are gone.

    Args:
        before: the data set with them.
        after: the same with the shards that no longer hold them.
        row_ids: (rows,) int64.
    """
    schema, firsts = before.schema, _spans(before)[0]
    touched = np.zeros(len(firsts), bool)
    touched[np.searchsorted(firsts, row_ids, side="right") - 1] = True
    parts = []
    left = Subset.whole(after)
    for span in np.flatnonzero(touched).tolist():
        own = np.arange(len(firsts)) == span
        read = [part for part, _ in _read(left, schema, firsts, own)]
        if not read:
            continue  # A span without any row has no entries.
        rows = StoredRows.joined(read)
        bounds, first = np.array([0, len(rows)]), int(firsts[span])
        parts.append(
            statistics.compute(schema, rows.packs, rows.missing, rows.texts, bounds, first)
        )

    def put_in(old: pa.Table, new: list[pa.Table]) -> pa.Table:
        kept = old.filter(pa.array(~np.isin(old["first_row"].to_numpy(), firsts[touched])))
        return pa.concat_tables([kept, *new]).sort_by("first_row")

    return (
        put_in(before.statistics, [entries for entries, _ in parts]),
        put_in(before.vocabulary_counts, [counts for _, counts in parts]),
    )


def may_be_null(subset: Subset, columns: Sequence[str]) -> bool:
    """Whether one of the columns may be null in a row of the subset; nothing is read for it."""
    firsts, rows = _spans(subset.catalog)
    touched = firsts[subset.kept_between(firsts, firsts + rows) > 0]
    entries = _entries(subset.catalog.statistics, columns, touched)
    return any(statistics.nulls(entries).values())


def _spans(catalog: Catalog) -> tuple[NDArray[Any], NDArray[Any]]:
    """First row id and rows of each span, in order."""
    firsts = np.unique(catalog.statistics["first_row"].to_numpy())
    return firsts, np.diff(firsts, append=catalog.rows)


def _entries(table: pa.Table, columns: Sequence[str], firsts: NDArray[Any]) -> pa.Table:
    """The entries of some columns in some spans."""
    named = pc.is_in(table["column"], value_set=pa.array(columns, pa.string()))
    chosen = np.isin(table["first_row"].to_numpy(), firsts)
    return table.filter(pc.and_(named, pa.array(chosen)))


def _counts(catalog: Catalog, schema: Schema, firsts: NDArray[Any]) -> pa.Table:
    coded = [column.name for column in schema.columns if column.coded]
    if not coded:
        return statistics.VOCABULARY_COUNTS.empty_table()
    return _entries(catalog.vocabulary_counts, coded, firsts)


def _read(
    subset: Subset, schema: Schema, firsts: NDArray[Any], partly: NDArray[Any]
) -> Iterator[tuple[StoredRows, int]]:
    """The kept rows of some of the spans, some blocks at a time, and how many they are."""
    catalog = subset.catalog
    first, rows = catalog.block_first[subset.blocks], catalog.block_rows[subset.blocks]
    low = np.searchsorted(firsts, first, side="right") - 1
    high = np.searchsorted(firsts, first + rows, side="left")
    before = np.concatenate([[0], np.cumsum(partly)])
    parts: list[StoredRows] = []
    count = 0
    for block in subset.blocks[before[high] > before[low]].tolist():
        ids = subset.row_ids_in(block)
        ids = ids[partly[np.searchsorted(firsts, ids, side="right") - 1]]
        keep = np.zeros(int(catalog.block_rows[block]), bool)
        keep[ids - catalog.block_first[block]] = True
        if len(ids):
            parts.append(read_stored(catalog, block, schema, keep))
            count += len(ids)
        if count >= _READ_ROWS:
            yield StoredRows.joined(parts), count
            parts, count = [], 0
    if count:
        yield StoredRows.joined(parts), count
