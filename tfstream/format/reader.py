"""Blocks read without TensorFlow, back into Arrow tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tfstream import storage
from tfstream.errors import CorruptionError, UsageError
from tfstream.format import block as blocks
from tfstream.format import index_files
from tfstream.format.manifest import Catalog
from tfstream.format.schema import (
    FIRST_CODE,
    MASK,
    NULL_CODE,
    Column,
    Schema,
    storage_dtype,
)
from tfstream.format.values import (
    restored_bytes,
    restored_lists,
    restored_numbers,
    restored_tensors,
)


def read_block(catalog: Catalog, block: int, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a block, checked against its CRC and the index.

    Args:
        catalog: the data set.
        block: its ordinal.
        columns: those wanted, in this order; all if None.

    Raises:
        CorruptionError: if the bytes are not those that were written, with shard, block and row
        ids.
        UsageError: if a column is not there.
    """
    schema = catalog.schema
    wanted = [schema[name] for name in (schema.names if columns is None else columns)]
    rows = int(catalog.block_rows[block])
    with _checked(catalog, block, wanted) as features:
        arrays = [_column(schema, column, features, rows, catalog) for column in wanted]
    return pa.table(arrays, names=[column.name for column in wanted])


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Rows as a block stores them, of some columns."""

    packs: list[NDArray[Any]]
    """The values of each pack of the columns' schema, (rows, columns of the pack)."""
    missing: dict[str, NDArray[Any]]
    """For each nullable column: (rows,) bool, true for null."""
    texts: dict[str, pa.Array]
    """For each column of uncoded text: (rows,) binary, empty where null."""

    rows: int
    """Number of rows."""

    def __len__(self) -> int:
        """Number of rows."""
        return self.rows

    @classmethod
    def joined(cls, parts: Sequence[StoredRows]) -> StoredRows:
        """The rows of at least one part, one part after the other."""
        first = parts[0]
        return cls(
            [np.concatenate([p.packs[i] for p in parts]) for i in range(len(first.packs))],
            {name: np.concatenate([p.missing[name] for p in parts]) for name in first.missing},
            {name: pa.concat_arrays([p.texts[name] for p in parts]) for name in first.texts},
            sum(map(len, parts)),
        )


def read_stored(catalog: Catalog, block: int, schema: Schema, keep: NDArray[Any]) -> StoredRows:
    """Some rows of a block as they are stored.

    Args:
        catalog: the data set.
        block: the block's ordinal.
        schema: those columns of the data set that are wanted.
        keep: (rows of the block,) bool: which rows.

    Raises:
        CorruptionError: if the bytes are not those that were written.
    """
    whole, rows = catalog.schema, len(keep)
    with _checked(catalog, block, schema.columns) as features:
        stored = {
            column.name: _packed(whole, column, features, rows)[keep]
            for column in schema.columns
            if column.dtype is not None
        }
        return StoredRows(
            [np.hstack([stored[name] for name in pack.columns]) for pack in schema.packs],
            {name: ~_there(whole, name, features, rows)[keep] for name in schema.masked},
            {
                name: pa.array(features[whole.texts[name]], pa.binary()).filter(pa.array(keep))
                for name in schema.texts
                if not schema[name].is_list
            },
            int(keep.sum()),
        )


@contextmanager
def _checked(
    catalog: Catalog, block: int, columns: Sequence[Column]
) -> Iterator[dict[str, list[bytes]]]:
    """The features of some columns of a block; what fails with them is told as damage."""
    path = catalog.shard_path(int(catalog.block_shard[block]))
    index_files.refuse_links(catalog.folder, path)
    records, (start, stop) = _read_for(catalog, block, columns)
    framed = storage.read_range(path, int(catalog.block_offset[block]) + start, stop - start)
    with _told(catalog, block):
        yield decoded(catalog, block, framed, records)


def _read_for(
    catalog: Catalog, block: int, columns: Sequence[Column]
) -> tuple[range, tuple[int, int]]:
    """From the first record to the last that hold something of some columns, and their bytes."""
    schema, where = catalog.schema, blocks.layout(catalog.schema)
    names = {pack.name for pack in schema.packs if any(c.name in pack.columns for c in columns)}
    names |= {MASK for column in columns if column.nullable}
    for features in (schema.texts, schema.validities):
        names |= {features[column.name] for column in columns if column.name in features}
    found = [where.record_of(name) for name in names] or [0]
    low, high = min(found), max(found) + 1
    rows, size = int(catalog.block_rows[block]), int(catalog.block_size[block])
    begins = [begin + width * rows for begin, width in where.records] + [size]
    return range(low, high), (begins[low], begins[high])


def decoded(
    catalog: Catalog, block: int, framed: bytes, records: range | None = None
) -> dict[str, list[bytes]]:
    """The features of a block from its framed bytes, checked.

    Args:
        catalog: the data set.
        block: its ordinal.
        framed: the bytes of consecutive records.
        records: which ones; all if None.

    Raises:
        CorruptionError: if the bytes are not those that were written.
    """
    with _told(catalog, block):
        header, features = blocks.unframed(catalog.schema, framed, records)
        _check_header(catalog, block, header)
        return features


def check(catalog: Catalog, block: int, framed: bytes) -> None:
    """Compare the framed bytes of a block with their CRCs, and its headers with the index.

    Raises:
        CorruptionError: if the bytes are not those that were written.
    """
    with _told(catalog, block):
        blocks.check(catalog.schema, framed, _expected_header(catalog, block))


@contextmanager
def _told(catalog: Catalog, block: int) -> Iterator[None]:
    """Tell what fails with a block as damage of it."""
    first, rows = int(catalog.block_first[block]), int(catalog.block_rows[block])
    path = catalog.shard_path(int(catalog.block_shard[block]))
    try:
        yield
    except (ValueError, KeyError, IndexError, pa.ArrowException) as error:
        raise CorruptionError(
            f"{path}: block {block}, rows {first} to {first + rows - 1}, is not what was written: "
            f"{error}; convert again"
        ) from error


def take(
    catalog: Catalog, row_ids: Sequence[int] | NDArray[Any], columns: Sequence[str] | None = None
) -> pa.Table:
    """Rows by their ids, in the order of the ids.

    Raises:
        UsageError: if there is no such row or column, or the row was forgotten.
        CorruptionError: if a block is not what was written.
    """
    ids = np.asarray(row_ids, np.int64).reshape(-1)
    outside = ids[(ids < 0) | (ids >= catalog.rows)]
    if len(outside):
        raise UsageError(f"row ids go from 0 to {catalog.rows - 1}, there is no row {outside[0]}")
    for one in catalog.manifest.forgotten:
        edges = np.array(one.ranges).reshape(-1)
        gone = ids[np.searchsorted(edges, ids, side="right") % 2 == 1]
        if len(gone):
            raise UsageError(f"row {gone[0]} was forgotten on {one.date}")
    found = np.searchsorted(catalog.block_first, ids, side="right") - 1
    parts, places = [], np.empty(len(ids), np.int64)
    taken = 0
    for block in np.unique(found):
        wanted = np.flatnonzero(found == block)
        table = read_block(catalog, int(block), columns)
        parts.append(table.take(pa.array(ids[wanted] - catalog.block_first[block])))
        places[wanted] = taken + np.arange(len(wanted))
        taken += len(wanted)
    if not parts:
        names = catalog.schema.names if columns is None else columns
        return pa.schema([(name, catalog.schema[name].arrow) for name in names]).empty_table()
    return pa.concat_tables(parts).take(pa.array(places)).combine_chunks()


def _expected_header(catalog: Catalog, block: int) -> blocks.Header:
    return blocks.Header(
        first_row=int(catalog.block_first[block]),
        rows=int(catalog.block_rows[block]),
        token=int(catalog.shard_tokens[catalog.block_shard[block]]),
    )


def _check_header(catalog: Catalog, block: int, header: blocks.Header) -> None:
    expected = _expected_header(catalog, block)
    if header != expected:
        raise ValueError(f"its header is {header}, expected {expected}")


def _column(
    schema: Schema, column: Column, features: dict[str, list[bytes]], rows: int, catalog: Catalog
) -> pa.Array:
    if column.is_null:
        return pa.nulls(rows)
    there = items = None
    if column.nullable:
        there = _there(schema, column.name, features, rows)
    if column.null_items:
        items = np.frombuffer(features[schema.validities[column.name]][0], np.uint8) > 0
    if column.name in schema.texts:
        found = features[schema.texts[column.name]]
        if column.is_list:
            values = _items(found, column, items)
            return restored_lists(values, _packed(schema, column, features, rows)[:, 0], there)
        if len(found) != rows:
            raise ValueError(f"{column.name!r} has {len(found)} values for {rows} rows")
        return restored_bytes(pa.array(found, pa.binary()), column.arrow, there)
    stored = _packed(schema, column, features, rows)
    if column.shape:
        return restored_tensors(stored, column, items, there)
    if column.coded:
        codes = pa.array(stored[:, 0], mask=stored[:, 0] == NULL_CODE)
        return catalog.vocabularies[column.name].take(pc.subtract(codes, FIRST_CODE))
    return restored_numbers(stored[:, 0], column.arrow, there)


def _there(schema: Schema, name: str, features: dict[str, list[bytes]], rows: int) -> NDArray[Any]:
    """Whether a nullable column has a value, (rows,) bool."""
    bits = np.frombuffer(features[MASK][0], np.uint8).reshape(rows, schema.mask_bytes)
    place = schema.masked.index(name)
    there: NDArray[Any] = (bits[:, place // 8] >> (place % 8) & 1) > 0
    return there


def _packed(
    schema: Schema, column: Column, features: dict[str, list[bytes]], rows: int
) -> NDArray[Any]:
    """What a pack holds of a column, (rows, slots)."""
    pack = next(pack for pack in schema.packs if column.name in pack.columns)
    matrix = np.frombuffer(features[pack.name][0], pack.dtype).reshape(rows, pack.slots)
    place = pack.columns.index(column.name)
    return np.ascontiguousarray(matrix[:, place : place + column.slots])


def _items(found: list[bytes], column: Column, valid: NDArray[Any] | None) -> pa.Array:
    """The items of all lists of a block."""
    dtype = storage_dtype(column.item)
    if dtype is None:
        return restored_bytes(pa.array(found, pa.binary()), column.item, valid)
    return restored_numbers(np.frombuffer(found[0], dtype), column.item, valid)
