"""The rows of shards that follow each other, gathered from the run files."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfstream.conversion.placement import Slice
from tfstream.conversion.runs import Run, column_place, fixed_schema, opened, scattered
from tfstream.conversion.vocabularies import codes_of, read_codes
from tfstream.format.schema import Pack, Schema

_LONG_STRETCH = 32
"""Rows of a stretch, on average, from which it is copied faster by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSlice:
    """Consecutive rows of a run file that are wanted."""

    path: Path
    source: int
    """Ordinal of the source."""
    start: int
    stop: int
    begins: np.ndarray
    """(stretches,) int64: where among the wanted rows each stretch of them begins."""
    counts: np.ndarray
    """(stretches,) int64: rows of each."""

    @classmethod
    def of(cls, run: Run, piece: Slice) -> RunSlice:
        """The slice of a run."""
        return cls(
            path=run.path,
            source=run.source,
            start=piece.start,
            stop=piece.stop,
            begins=piece.begins,
            counts=piece.counts,
        )

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start

    def places(self) -> np.ndarray:
        """The place of each of its rows among those that are wanted."""
        before = np.cumsum(self.counts) - self.counts
        return np.asarray(np.repeat(self.begins - before, self.counts) + np.arange(self.rows))


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows in memory, as blocks hold them."""

    packs: list[np.ndarray]
    """The values of each pack, (rows, slots)."""
    lost: np.ndarray
    """(rows, masked columns) bool: whether a value is null."""
    texts: dict[str, pa.Array]
    """Binary values, or lists."""
    items: dict[str, np.ndarray]
    """For each column of tensors with nulls inside: (rows, slots) uint8, 1 for an item."""
    source: np.ndarray
    source_row: np.ndarray


def gather(schema: Schema, source_schema: pa.Schema, rows: int, slices: Sequence[RunSlice]) -> Rows:
    """Rows out of the run files, each slice to its places; a run file is opened once.

    Args:
        schema: the columns as they are stored.
        source_schema: the columns as the run files have them.
        rows: how many there are.
        slices: they, a slice a run file.

    Raises:
        StorageError: if a run file cannot be read.
    """
    places = {name: column_place(name, source_schema) for name in schema.names}
    coded = {column.name: places[column.name] for column in schema.columns if column.coded}
    run_packs = fixed_schema(source_schema).packs
    packs = [np.empty((rows, pack.slots), pack.dtype) for pack in schema.packs]
    lost = np.zeros((rows, len(schema.masked)), bool)
    texts: dict[str, list[pa.Array]] = {name: [] for name in schema.texts}
    items = {
        column.name: np.ones((rows, column.slots), np.uint8)
        for column in schema.columns
        if column.shape and column.null_items
    }
    source, source_row = np.empty((rows, 1), np.int32), np.empty((rows, 1), np.int64)
    with contextlib.ExitStack() as stack:
        for piece in slices:
            run = _SlicedRun(stack.enter_context(opened(piece.path)), run_packs, piece, coded)
            put = _Put(piece)
            for pack, matrix in zip(schema.packs, packs, strict=True):
                put(matrix, run.pack(pack, coded))
            if schema.masked:
                put(lost, run.lost([places[name] for name in schema.masked]))
            for name, values in texts.items():
                values.append(_text(run.column(f"text/{places[name]}")))
            for name, valid in items.items():
                there = run.items(places[name], valid.shape[1])
                if there is not None:
                    put(valid, there)
            put(source, np.full((piece.rows, 1), piece.source, np.int32))
            put(source_row, run.source_row)
        joined = _joined(texts, slices)
    for name in items.keys() & set(schema.masked):
        items[name][lost[:, schema.masked.index(name)]] = 0
    return Rows(packs, lost, joined, items, source[:, 0], source_row[:, 0])


class _Put:
    """Copies rows of a slice to their places."""

    def __init__(self, piece: RunSlice) -> None:
        self._stretches: list[tuple[int, int, int]] = []
        if piece.rows >= _LONG_STRETCH * len(piece.counts):
            ends = np.cumsum(piece.counts)
            starts = ends - piece.counts
            self._stretches = list(
                zip(piece.begins.tolist(), starts.tolist(), ends.tolist(), strict=True)
            )
        else:
            self._places = piece.places()

    def __call__(self, out: np.ndarray, values: np.ndarray) -> None:
        for begin, start, stop in self._stretches:
            out[begin : begin + stop - start] = values[start:stop]
        if not self._stretches:
            scattered(out, self._places, values)


class _SlicedRun:
    """A slice of a run file, its packs as matrices."""

    def __init__(
        self,
        batch: pa.RecordBatch,
        packs: Sequence[Pack],
        piece: RunSlice,
        coded: Mapping[str, str],
    ) -> None:
        self._columns: dict[str, pa.Array] = dict(
            zip(batch.schema.names, batch.slice(piece.start, piece.rows).columns, strict=True)
        )
        self._packs = {
            pack.columns: self._matrix(pack.name, pack.dtype, pack.slots) for pack in packs
        }
        self._plain = {
            name: view[:, j : j + 1]
            for names, view in self._packs.items()
            for j, name in enumerate(names)
        }
        dictionaries = {p: self._columns[f"text/{p}"].dictionary for p in coded.values()}
        self._codes = read_codes(piece.path, dictionaries)
        self.rows = piece.rows

    @property
    def source_row(self) -> np.ndarray:
        """(rows, 1) int64: their rows in the source."""
        return np.asarray(self._columns["source_row"].to_numpy()[:, np.newaxis])

    def column(self, name: str) -> pa.Array:
        """A column of the run file."""
        return self._columns[name]

    def pack(self, pack: Pack, coded: Mapping[str, str]) -> np.ndarray:
        """The values of a pack of the blocks, (rows, slots).

        A pack of the run file that is one of a block is taken whole, others by column: codes, and
        columns that codes pushed into another pack.
        """
        whole = self._packs.get(pack.columns)
        if whole is not None:
            return whole
        matrix = np.empty((self.rows, pack.slots), pack.dtype)
        for j, name in enumerate(pack.columns):
            if name in coded:
                place = coded[name]
                matrix[:, j] = codes_of(self._columns[f"text/{place}"], self._codes[place])
            else:
                matrix[:, j : j + 1] = self._plain[name]
        return matrix

    def lost(self, places: Sequence[str]) -> np.ndarray:
        """Which values are null, (rows, columns) bool, in columns by what the run calls them."""
        found = np.zeros((self.rows, len(places)), bool)
        for j, place in enumerate(places):
            valid, text = (self._columns.get(f"{kind}/{place}") for kind in ("valid", "text"))
            if valid is not None:
                np.logical_not(valid.to_numpy(zero_copy_only=False), out=found[:, j])
            elif text is not None and text.null_count:
                found[:, j] = pc.is_null(text).to_numpy(zero_copy_only=False)
        return found

    def items(self, place: str, slots: int) -> np.ndarray | None:
        """Which items of tensors are there, (rows, slots) uint8; None if all of the run's are."""
        name = f"items/{place}"
        return self._matrix(name, np.dtype(np.uint8), slots) if name in self._columns else None

    def _matrix(self, name: str, dtype: np.dtype[np.generic], slots: int) -> np.ndarray:
        column = self._columns[name]
        whole = np.frombuffer(column.buffers()[1], dtype).reshape(-1, slots)
        return whole[column.offset : column.offset + len(column)]


def _joined(texts: Mapping[str, list[pa.Array]], slices: Sequence[RunSlice]) -> dict[str, pa.Array]:
    """Each column's texts, slice by slice, in one array in the order of their places."""
    joined = {name: pa.concat_arrays(values) for name, values in texts.items()}
    places = np.concatenate([piece.places() for piece in slices]) if texts else np.empty(0)
    if (np.diff(places) < 0).any():
        order = np.empty(len(places), np.int64)
        order[places] = np.arange(len(places))
        joined = {name: values.take(pa.array(order)) for name, values in joined.items()}
    return joined


def _text(values: pa.Array) -> pa.Array:
    """Strings as bytes, null as the empty string; lists as they are."""
    if pa.types.is_list(values.type):
        return values
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    values = values.cast(pa.binary())
    return pc.fill_null(values, pa.scalar(b"", pa.binary())) if values.null_count else values
