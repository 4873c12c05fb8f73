"""Stage 2: one shard, gathered from the run files."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfstream import storage
from tfstream.conversion.placement import Slice
from tfstream.conversion.plan import near_equal
from tfstream.conversion.runs import Run, column_place, fixed_schema, opened
from tfstream.conversion.vocabularies import codes_of, codes_path
from tfstream.format import block, framing, provenance, statistics
from tfstream.format.schema import MASK, Pack, Schema, storage_dtype
from tfstream.format.values import stored_bytes, stored_numbers

_BATCH_BYTES = 16 << 20
"""Bytes of shards after which a worker gets no more of them at once."""
_BATCH_SHARDS = 64
"""Shards of a batch at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSlice:
    """Consecutive rows of a run file that belong to a shard."""

    path: Path
    source: int
    """Ordinal of the source."""
    start: int
    stop: int
    begins: np.ndarray
    """(stretches,) int64: where in the shard each stretch of them begins."""
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

    def places(self) -> slice | np.ndarray:
        """The places of its rows in the shard: a slice if they follow each other there."""
        begin, rows = int(self.begins[0]), self.stop - self.start
        if int(self.begins[-1] + self.counts[-1]) == begin + rows:
            return slice(begin, begin + rows)
        before = np.cumsum(self.counts) - self.counts
        return np.asarray(np.repeat(self.begins - before, self.counts) + np.arange(rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """What a worker needs to know to write a shard."""

    folder: Path
    """Where the shard's path begins."""
    path: str
    ordinal: int
    first_row: int
    """Row id of its first row."""
    token: int
    schema: Schema
    source_schema: pa.Schema
    rows: int
    slices: tuple[RunSlice, ...]
    """Its rows, a slice a run file."""
    block_rows: int
    """Rows of a block at most."""
    spans: np.ndarray
    """(spans + 1,) int64: where each span of its statistics begins, and the number of rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRecord:
    """What was written."""

    files: Sequence[Path]
    """The shard and its provenance."""
    size_bytes: int
    sha256: str
    provenance_sha256: str
    block_sizes: np.ndarray
    """(blocks,) int64, framed bytes."""
    block_rows: np.ndarray
    """(blocks,) int64."""
    statistics: pa.Table
    vocabulary_counts: pa.Table


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of a shard in memory."""

    packs: list[np.ndarray]
    missing: dict[str, np.ndarray]
    texts: dict[str, pa.Array]
    """Binary values, or lists."""
    items: dict[str, np.ndarray]
    """For each column of tensors with nulls inside: (rows, slots) uint8, 1 for an item."""
    source: np.ndarray
    source_row: np.ndarray


def batched(tasks: Sequence[ShardTask]) -> Iterator[list[ShardTask]]:
    """Consecutive shards for one worker, which opens the run files once for all of them."""
    batch: list[ShardTask] = []
    rows = 0
    for task in tasks:
        batch.append(task)
        rows += task.rows
        if rows * task.schema.row_bytes >= _BATCH_BYTES or len(batch) == _BATCH_SHARDS:
            yield batch
            batch, rows = [], 0
    if batch:
        yield batch


def write_shards(tasks: Sequence[ShardTask]) -> list[ShardRecord]:
    """Gather the rows of some shards and write them, with provenance; each run is opened once.

    Raises:
        StorageError: if a run file cannot be read or a file cannot be written.
    """
    with contextlib.ExitStack() as stack:
        runs: dict[Path, _OpenRun] = {}
        return [_write_shard(task, runs, stack) for task in tasks]


class _OpenRun:
    """A run file, its packs as matrices."""

    def __init__(self, batch: pa.RecordBatch, packs: Sequence[Pack]) -> None:
        self.columns: dict[str, pa.Array] = dict(
            zip(batch.schema.names, batch.columns, strict=True)
        )
        self.packs = {
            pack.columns: np.frombuffer(self.columns[pack.name].buffers()[1], pack.dtype).reshape(
                -1, pack.slots
            )
            for pack in packs
        }
        self.source_row = self.columns["source_row"].to_numpy()
        self.codes: dict[str, np.ndarray] = {}
        """For the place of each coded column: the code of each entry of its dictionary here."""


def _write_shard(
    task: ShardTask, runs: dict[Path, _OpenRun], stack: contextlib.ExitStack
) -> ShardRecord:
    rows = _gather(task, runs, stack)
    sizes = near_equal(len(rows.source), task.block_rows)
    framed, digest = [], hashlib.sha256()
    # Not durable yet: the manifest waits for the disk once, for all shards.
    with storage.publishing(task.folder / task.path, durable=False) as file:
        first = 0
        for size in sizes.tolist():
            header = block.Header(first_row=task.first_row + first, rows=size, token=task.token)
            record = framing.frame(_encode(header, task.schema, rows, first))
            digest.update(record)
            file.write(record)
            framed.append(len(record))
            first += size
    entries, counts = statistics.compute(
        task.schema, rows.packs, rows.missing, rows.texts, task.spans, task.first_row
    )
    return ShardRecord(
        files=(
            task.folder / task.path,
            provenance.by_row_path(task.folder, task.ordinal),
        ),
        size_bytes=sum(framed),
        sha256=digest.hexdigest(),
        provenance_sha256=provenance.write_by_row(
            task.folder, task.ordinal, rows.source, rows.source_row
        ),
        block_sizes=np.array(framed, np.int64),
        block_rows=sizes,
        statistics=entries,
        vocabulary_counts=counts,
    )


def _encode(header: block.Header, schema: Schema, rows: _Rows, start: int) -> bytes:
    count, stop = header.rows, start + header.rows
    fixed: list[tuple[str, bytes | memoryview]] = []
    if schema.masked:
        there = np.ones(count, bool)
        present = [
            ~rows.missing[name][start:stop] if name in rows.missing else there
            for name in schema.masked
        ]
        fixed.append((MASK, block.pack_mask(present, count).tobytes()))
    for pack, matrix in zip(schema.packs, rows.packs, strict=True):
        fixed.append((pack.name, matrix[start:stop].data.cast("B")))
    texts = [
        (feature, _listed(rows.texts[name].slice(start, count)))
        for name, feature in schema.texts.items()
    ]
    for name, feature in schema.validities.items():
        if name in rows.items:
            valid = rows.items[name][start:stop]
        else:
            items = rows.texts[name].slice(start, count).flatten()
            valid = np.asarray(items.is_valid().cast(pa.uint8()))
        texts.append((feature, _one(valid)))
    return block.encode(header, fixed, texts)


def _listed(values: pa.Array) -> pa.Array:
    """The values of a text feature: a text a row or an item of a list, or all numbers as one."""
    if not pa.types.is_list(values.type):
        return values
    items = values.flatten()
    dtype = storage_dtype(items.type)
    if dtype is not None:
        return _one(stored_numbers(items, dtype))
    return pc.fill_null(stored_bytes(items), b"")


def _one(values: np.ndarray) -> pa.Array:
    return pa.array([values.tobytes()], pa.binary())


def _open(task: ShardTask, path: Path, stack: contextlib.ExitStack) -> _OpenRun:
    run = _OpenRun(stack.enter_context(opened(path)), fixed_schema(task.source_schema).packs)
    if any(column.coded for column in task.schema.columns):
        with np.load(codes_path(path)) as stored:
            run.codes = dict(stored.items())
    return run


def _gather(task: ShardTask, runs: dict[Path, _OpenRun], stack: contextlib.ExitStack) -> _Rows:
    """The rows of a shard out of the run files, each slice to its places."""
    schema, count = task.schema, task.rows
    places = {name: column_place(name, task.source_schema) for name in schema.names}
    coded = {column.name for column in schema.columns if column.coded}
    packs = schema.packs
    matrices = [np.empty((count, pack.slots), pack.dtype) for pack in packs]
    missing: dict[str, np.ndarray] = {}
    texts: dict[str, list[pa.Array]] = {name: [] for name in schema.texts}
    masked = [(name, places[name]) for name in schema.masked]
    items = {
        column.name: np.ones((count, column.slots), np.uint8)
        for column in schema.columns
        if column.shape and column.null_items
    }
    source, source_row = np.empty(count, np.int32), np.empty(count, np.int64)
    spans: list[slice | np.ndarray] = []
    for piece in task.slices:
        if piece.path not in runs:
            runs[piece.path] = _open(task, piece.path, stack)
        run = runs[piece.path]
        span = piece.places()
        spans.append(span)
        for pack, matrix in zip(packs, matrices, strict=True):
            # A pack of the run file that is one of a block is copied whole, others by column.
            whole = run.packs.get(pack.columns)
            if whole is not None:
                matrix[span] = whole[piece.start : piece.stop]
            else:
                _fill(matrix, span, pack, piece, run, {name: places[name] for name in coded})
        for name, place in masked:
            lost = _missing(run, place, piece)
            if lost is not None:
                missing.setdefault(name, np.zeros(count, bool))[span] = lost
        for name, values in texts.items():
            values.append(_text(run.columns[f"text/{places[name]}"], piece))
        for name, valid in items.items():
            _fill_items(valid, span, run.columns.get(f"items/{places[name]}"), piece)
        source[span] = piece.source
        source_row[span] = run.source_row[piece.start : piece.stop]
    for name in items.keys() & missing.keys():
        items[name][missing[name]] = 0
    return _Rows(matrices, missing, _joined(texts, spans), items, source, source_row)


def _joined(
    texts: dict[str, list[pa.Array]], spans: list[slice | np.ndarray]
) -> dict[str, pa.Array]:
    """Each column's texts, slice by slice, in one array in the order of their places."""
    joined = {name: pa.concat_arrays(values) for name, values in texts.items()}
    places = np.concatenate([np.r_[span] for span in spans])
    if texts and (np.diff(places) < 0).any():
        order = pa.array(np.argsort(places))
        joined = {name: values.take(order) for name, values in joined.items()}
    return joined


def _fill(  # noqa: PLR0913, PLR0917 - from where to where
    matrix: np.ndarray,
    span: slice | np.ndarray,
    pack: Pack,
    piece: RunSlice,
    run: _OpenRun,
    coded: dict[str, str],
) -> None:
    """A pack column by column: codes, and columns that codes pushed into another pack.

    Args:
        matrix: (rows of the shard, columns of the pack), filled.
        span: the places of the rows in it.
        pack: the pack.
        piece: the rows.
        run: the run file.
        coded: for each coded column: what it is called in the run file.
    """
    plain = {
        name: view[:, j] for columns, view in run.packs.items() for j, name in enumerate(columns)
    }
    for j, name in enumerate(pack.columns):
        if name in coded:
            values = run.columns[f"text/{coded[name]}"].slice(piece.start, piece.stop - piece.start)
            matrix[span, j] = codes_of(values, run.codes[coded[name]])
        else:
            matrix[span, j] = plain[name][piece.start : piece.stop]


def _fill_items(
    valid: np.ndarray, span: slice | np.ndarray, column: pa.Array | None, piece: RunSlice
) -> None:
    """Which items of tensors are there, (rows of the shard, slots); all if all of the run's are."""
    if column is not None:
        stored = np.frombuffer(column.buffers()[1], np.uint8).reshape(-1, valid.shape[1])
        valid[span] = stored[piece.start : piece.stop]


def _missing(run: _OpenRun, place: str, piece: RunSlice) -> np.ndarray | None:
    """Which values of the slice are null; None if none of the run is."""
    count = piece.stop - piece.start
    for name in (f"valid/{place}", f"text/{place}"):
        if name in run.columns:
            column = run.columns[name].slice(piece.start, count)
            lost = pc.is_null(column) if name.startswith("text") else pc.invert(column)
            return np.asarray(lost.to_numpy(zero_copy_only=False)) if pc.any(lost).as_py() else None
    return None


def _text(column: pa.Array, piece: RunSlice) -> pa.Array:
    """Strings as bytes, null as the empty string; lists as they are."""
    values = column.slice(piece.start, piece.stop - piece.start)
    if pa.types.is_list(values.type):
        return values
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    empty = pa.scalar(b"", pa.binary())
    return pc.fill_null(values.cast(pa.binary()), empty)
