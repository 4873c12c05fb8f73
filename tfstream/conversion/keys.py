"""The keys of the groups: columns or parts of timestamps, and their sorted distinct values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfstream.errors import UsageError
from tfstream.format import expressions
from tfstream.format.expressions import Key

_RESERVED = ("first_row", "rows", "first_shard", "shards")
"""Columns of the index of groups beside the keys."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """Rows by their key."""

    codes: np.ndarray
    """(rows,) int64: which distinct key each row has; 0 is the first in key order."""
    first: np.ndarray
    """(keys,) int64: for each distinct key, the first row that has it."""


def spelled(group_by: Sequence[str], columns: Sequence[str]) -> tuple[str, ...]:
    """The keys, in quotes where the name of a column means something else in the language."""
    return tuple(
        text if text not in columns or _is_column(text) else '"' + text.replace('"', '""') + '"'
        for text in group_by
    )


def _is_column(text: str) -> bool:
    try:
        return expressions.parse_key(text) == Key(text, expressions.Column(text))
    except UsageError:
        return False


def check(group_by: Sequence[str], schema: pa.Schema) -> tuple[Key, ...]:
    """The parsed keys, known to work on the columns of the sources.

    Raises:
        UsageError: if there is none, one does not parse or names no column, or a name is taken.
    """
    if not group_by:
        raise UsageError(
            f"group_by is empty; name at least one of the columns {', '.join(schema.names)}"
        )
    # What is called like a column means it, even if it is a word of the language.
    keys = tuple(
        Key(text, expressions.Column(text)) if text in schema.names else expressions.parse_key(text)
        for text in group_by
    )
    for text, key in zip(group_by, keys, strict=True):
        is_column = isinstance(key.value, expressions.Column) and key.value.name == key.name
        if key.name in schema.names and not is_column:
            raise UsageError(
                f"group_by {text!r} makes a key {key.name!r}, but the sources have a column of "
                f"that name; group by that column, or write {text!r} AS another name"
            )
        if [other.name for other in keys].count(key.name) > 1:
            raise UsageError(
                f"group_by makes the key {key.name!r} twice; write one of them AS another name"
            )
        if key.name in _RESERVED:
            raise UsageError(
                f"group_by {text!r} makes a key {key.name!r}, a name that the index uses itself; "
                "write it AS another name"
            )
    grouped(derive(keys, schema.empty_table()))
    return keys


def derive(keys: Sequence[Key], table: pa.Table) -> pa.Table:
    """The key columns of a table's rows.

    Raises:
        UsageError: if a column is not there or its type does not allow the key.
    """
    named = dict.fromkeys(name for key in keys for name in expressions.columns(key.value))
    for i, name in enumerate(table.column_names):
        if name in named and pa.types.is_dictionary(table[name].type):
            table = table.set_column(i, name, table[name].cast(table[name].type.value_type))
    columns = [expressions.evaluate(key.value, table) for key in keys]
    # -0.0 and 0.0 are equal, so they are one group, whichever comes first.
    plain = [
        pc.add(c, pa.scalar(0, c.type)) if c.type in {pa.float32(), pa.float64()} else c
        for c in columns
    ]
    return pa.table(plain, names=[key.name for key in keys])


def grouped(keys: pa.Table) -> Grouping:
    """The rows of key columns by their distinct keys.

    Keys are ordered by the first column, then by the next; nulls come last.

    Raises:
        UsageError: if a type cannot be grouped.
    """
    codes = np.zeros(keys.num_rows, np.int64)
    count = 1
    for name in keys.column_names:
        ranks, distinct = _ranks(name, keys[name])
        codes, count = _dense(codes * distinct + ranks, count * distinct)
    first = np.zeros(count, np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return Grouping(codes, first)


def _ranks(name: str, values: pa.ChunkedArray) -> tuple[np.ndarray, int]:
    """The rank of each value among the distinct ones, and how many there may be."""
    try:
        encoded = pa.concat_arrays(values.chunks).dictionary_encode() if values.num_chunks else None
        if encoded is None:
            encoded = pa.array([], values.type).dictionary_encode()
        order = pc.sort_indices(encoded.dictionary)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise UsageError(f"cannot group by {name!r} of type {values.type}: {error}") from error
    distinct = len(encoded.dictionary)
    rank = np.empty(distinct + 1, np.int64)
    rank[order.to_numpy()] = np.arange(distinct)
    rank[distinct] = distinct
    places = encoded.indices.fill_null(distinct).to_numpy(zero_copy_only=False)
    return rank[places], distinct + 1


def _dense(codes: np.ndarray, count: int) -> tuple[np.ndarray, int]:
    """The codes without gaps, in the same order, and how many there are."""
    if count <= 4 * len(codes) + 65_536:
        present = np.bincount(codes, minlength=count) > 0
        return (np.cumsum(present) - 1)[codes], int(present.sum())
    distinct, dense = np.unique(codes, return_inverse=True)
    return dense.reshape(-1), len(distinct)
