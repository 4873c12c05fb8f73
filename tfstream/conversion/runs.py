"""Stage 1: the rows of a partition, sorted by group, in run files that stage 2 gathers from.

A run file is one Arrow record batch. Each pack is a column of fixed-size values, a row of the pack
each; so the rows of a group are one stretch of bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfstream import storage
from tfstream.conversion import quarantine
from tfstream.conversion.keys import derive, grouped
from tfstream.conversion.reading import Bad
from tfstream.conversion.survey import Partition
from tfstream.errors import StorageError
from tfstream.format.expressions import Key
from tfstream.format.schema import VOCABULARY_SIZE, Column, Schema, storage_dtype
from tfstream.format.values import stored_bytes, stored_numbers, stored_tensors

_STRIP_BYTES = 1 << 18
"""Bytes of rows that are turned from columns into rows at once, so that they stay in the cache."""
_RADIX_KEYS = 1 << 16
"""Keys up to which numpy's stable sort is a radix sort."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run file holds."""

    path: Path
    source: int
    """Ordinal of the source."""
    first_row: int
    """0-based place of its first row in the source."""
    keys: pa.Table
    """The distinct keys, in key order."""
    counts: np.ndarray
    """(keys,) int64: rows of each."""
    nulls: np.ndarray
    """(columns,) int64: nulls of each column of the sources."""
    null_items: np.ndarray
    """(columns,) bool: whether a null is inside a list or a tensor of the column."""
    text_bytes: np.ndarray
    """(columns,) int64: bytes of each column's strings or of its lists' items, 0 for others."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.counts.sum())


def fixed_schema(schema: pa.Schema) -> Schema:
    """The columns as they are before any is coded: their packs are the columns of a run file."""
    return Schema(tuple(Column(name=field.name, type=str(field.type)) for field in schema))


def write_runs(
    partition: Partition, number: int, folder: Path, keys: Sequence[Key], schema: pa.Schema
) -> list[Run]:
    """Read a partition and write its run files, in the order of its rows.

    Rows that cannot be read, and may be left out, go to the quarantine.

    Raises:
        DataError: if the source cannot be read.
        StorageError: if a run file cannot be written.
    """
    runs: list[Run] = []
    bad: list[Bad] = []
    pieces = partition.read(schema)
    while True:
        read = next(pieces, None)
        if read is None:
            quarantine.keep(folder, number, partition.source, bad)
            return runs
        bad += read.bad
        if len(read.source_rows):
            path = folder / f"{number:06d}-{len(runs):06d}.arrow"
            first_row = int(read.source_rows[0])
            piece, batch = _sorted(read.table, keys, schema, read.source_rows)
            del read
            write(path, batch)
            runs.append(
                Run(
                    path=path,
                    source=partition.source.ordinal,
                    first_row=first_row,
                    keys=piece.keys,
                    counts=piece.counts,
                    nulls=piece.nulls,
                    null_items=piece.null_items,
                    text_bytes=piece.text_bytes,
                )
            )


@contextmanager
def opened(path: Path) -> Iterator[pa.RecordBatch]:
    """A run file, mapped into memory.

    Raises:
        StorageError: if it cannot be read.
    """
    try:
        file = pa.memory_map(str(path))
        batch = pa.ipc.open_file(file).get_batch(0)
    except (OSError, pa.ArrowInvalid) as error:
        raise StorageError(f"cannot read the run file {path}: {error}") from error
    with file:
        yield batch


def column_place(name: str, schema: pa.Schema) -> str:
    """What a column of the sources is called in a run file, whatever it is called there."""
    return f"{schema.get_field_index(name):06d}"


@dataclass(frozen=True, slots=True)
class _Piece:
    keys: pa.Table
    counts: np.ndarray
    nulls: np.ndarray
    null_items: np.ndarray
    text_bytes: np.ndarray


def _sorted(
    table: pa.Table, keys: Sequence[Key], schema: pa.Schema, source_rows: np.ndarray
) -> tuple[_Piece, pa.RecordBatch]:
    derived = derive(keys, table)
    groups = grouped(derived)
    narrow = groups.codes.astype(np.uint16) if len(groups.first) <= _RADIX_KEYS else groups.codes
    order = np.argsort(narrow, kind="stable")
    indices = pa.array(order)
    arrays: dict[str, pa.Array] = {"source_row": pa.array(source_rows[order])}
    columns = fixed_schema(schema)
    text_bytes, null_items = np.zeros(len(schema), np.int64), np.zeros(len(schema), bool)
    nulls = np.array([table[name].null_count for name in schema.names], np.int64)
    for i, column in enumerate(columns.columns):
        place, values = column_place(column.name, schema), table[column.name]
        if column.is_list:
            lists = _whole(values)
            items = lists.flatten()
            text_bytes[i], null_items[i] = _bytes_of(items, column), items.null_count > 0
            arrays[f"text/{place}"] = lists.take(indices)
        elif column.is_text:
            texts = _text(_whole(values))
            text_bytes[i] = _bytes_of(texts, column)
            arrays[f"text/{place}"] = texts.take(indices)
        elif nulls[i] and not column.is_null:
            arrays[f"valid/{place}"] = pc.is_valid(values).combine_chunks().take(indices)
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    for pack in columns.packs:
        column = columns[pack.columns[0]]
        if column.shape:
            matrix, valid = stored_tensors(_whole(table[column.name]), column, pack.dtype)
            matrix = matrix[order]
            if valid is not None:
                null_items[schema.get_field_index(column.name)] = True
                place = column_place(column.name, schema)
                arrays[f"items/{place}"] = _row_bytes(valid[order])
        else:
            matrix = _matrix(table, pack.columns, pack.dtype, places)
        arrays[pack.name] = _row_bytes(matrix)
    counts = np.bincount(groups.codes, minlength=len(groups.first))
    distinct = derived.take(pa.array(groups.first)).combine_chunks()
    piece = _Piece(distinct, counts, nulls, null_items, text_bytes)
    return piece, pa.RecordBatch.from_pydict(arrays)


def _row_bytes(matrix: np.ndarray) -> pa.Array:
    """The rows of a matrix as bytes."""
    width = matrix.shape[1] * matrix.itemsize
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(width), len(matrix), [None, pa.py_buffer(matrix)]
    )


def _matrix(
    table: pa.Table, columns: Sequence[str], dtype: np.dtype[np.generic], places: np.ndarray
) -> np.ndarray:
    """Columns of one dtype as rows, each at its place; null slots are zero.

    They become rows first and are ordered then: whole rows are moved faster than single values.
    """
    matrix = np.empty((len(places), len(columns)), dtype)
    views = [_stored(_whole(table[name]), dtype) for name in columns]
    rows = max(1, _STRIP_BYTES // (len(columns) * dtype.itemsize))
    for start in range(0, len(places), rows):
        stop = start + rows
        strip = np.stack([values[start:stop] for values in views], axis=1)
        scattered(matrix, places[start:stop], strip)
    return matrix


def scattered(out: np.ndarray, places: np.ndarray, rows: np.ndarray) -> None:
    """Put rows at places of a matrix: as one value each, which is twice as fast.

    Args:
        out: (any, columns), each row's bytes one after the other; changed.
        places: (rows,) int64.
        rows: (rows, columns) of the same dtype.
    """
    whole = np.dtype((np.void, out.shape[1] * out.itemsize))
    if out.shape[1]:
        out.view(whole)[places, 0] = np.ascontiguousarray(rows).view(whole)[:, 0]


def _stored(array: pa.Array, dtype: np.dtype[np.generic]) -> np.ndarray:
    """The numbers of a column, of lists their lengths."""
    if pa.types.is_list(array.type):
        array = pc.list_value_length(array)
    return stored_numbers(array, dtype)


def _whole(values: pa.ChunkedArray) -> pa.Array:
    if values.num_chunks == 1:
        return values.chunk(0)
    if pa.types.is_dictionary(values.type):
        values = values.unify_dictionaries()
    return pa.concat_arrays(values.chunks)


def _bytes_of(items: pa.Array, column: Column) -> int:
    """Bytes that texts, or the items of lists, take in blocks."""
    dtype = storage_dtype(column.item)
    if dtype is not None:
        return len(items) * dtype.itemsize
    if not pa.types.is_dictionary(items.type):
        return pc.sum(pc.binary_length(stored_bytes(items))).as_py() or 0
    lengths = pc.binary_length(items.dictionary).to_numpy(zero_copy_only=False)
    return int(_uses(items) @ lengths)


def _text(array: pa.Array) -> pa.Array:
    """Strings as a dictionary if they may become codes, else as they are, others as binary.

    All values of the dictionary are used, whatever the source's own had beside.
    """
    if pa.types.is_dictionary(array.type):
        used = _uses(array) > 0
        if used.sum() <= VOCABULARY_SIZE:
            if used.all():
                return array
            places = pa.array(np.cumsum(used, dtype=np.int32) - 1)
            dictionary = array.dictionary.filter(pa.array(used))
            return pa.DictionaryArray.from_arrays(places.take(array.indices), dictionary)
        array = array.dictionary_decode()
    if not pa.types.is_string(array.type):
        return stored_bytes(array)
    encoded = array.dictionary_encode()
    return encoded if len(encoded.dictionary) <= VOCABULARY_SIZE else array


def _uses(array: pa.Array) -> np.ndarray:
    """How often each value of a dictionary is used."""
    return np.bincount(array.indices.drop_null(), minlength=len(array.dictionary))


def write(path: Path, rows: pa.RecordBatch | pa.Table) -> None:
    """Write an Arrow file.

    Raises:
        StorageError: if it cannot be written.
    """
    # By rename: another attempt of the same task may have its file mapped.
    with (
        storage.publishing(path, durable=False) as file,
        pa.ipc.new_file(file, rows.schema) as writer,
    ):
        writer.write(rows)
