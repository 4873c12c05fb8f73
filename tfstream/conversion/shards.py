"""Stage 2: shards that follow each other, gathered from the run files and written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfstream import storage
from tfstream.conversion import rows
from tfstream.conversion.plan import ShardPlan, near_equal
from tfstream.conversion.rows import Rows, RunSlice
from tfstream.conversion.runs import write
from tfstream.format import block, provenance, statistics
from tfstream.format.schema import MASK, Schema, storage_dtype
from tfstream.format.values import stored_bytes, stored_numbers

_BATCH_BYTES = 16 << 20
"""Bytes of shards after which a worker gets no more of them at once."""
_BATCH_SHARDS = 256
"""Shards of a batch at most."""
_WRITE_BYTES = 4 << 20
"""Bytes of blocks that are hashed and written at once, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """A shard that is to be written."""

    path: str
    ordinal: int
    token: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTask:
    """What a worker needs to know to write shards that follow each other."""

    folder: Path
    """Where the shards' paths begin."""
    notes: Path
    """Where their statistics lie until all are known."""
    first_row: int
    """Row id of the first row."""
    schema: Schema
    source_schema: pa.Schema
    shards: tuple[ShardTask, ...]
    slices: tuple[RunSlice, ...]
    """The rows, a slice a run file."""
    block_rows: int
    """Rows of a block at most."""
    spans: np.ndarray
    """(spans + 1,) int64: where each span of the statistics begins, and the number of rows."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(shard.rows for shard in self.shards)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRecord:
    """What was written of a batch."""

    shards: Sequence[ShardRecord]
    statistics: Path
    """An Arrow file of their statistics."""
    vocabulary_counts: Path
    """Another one."""


def batched(plans: Iterable[ShardPlan], row_bytes: int) -> Iterator[list[ShardPlan]]:
    """Consecutive shards for one worker, which opens the run files once for all of them.

    Args:
        plans: the shards.
        row_bytes: bytes of a row, texts included.
    """
    batch: list[ShardPlan] = []
    count = 0
    for plan in plans:
        if batch and (
            (count + plan.rows) * row_bytes > _BATCH_BYTES or len(batch) == _BATCH_SHARDS
        ):
            yield batch
            batch, count = [], 0
        batch.append(plan)
        count += plan.rows
    if batch:
        yield batch


def write_shards(task: BatchTask) -> BatchRecord:
    """Gather the rows of some shards and write them, with provenance.

    Raises:
        StorageError: if a run file cannot be read or a file cannot be written.
    """
    gathered = rows.gather(task.schema, task.source_schema, task.rows, task.slices)
    texts = {
        name: block.Listed(values)
        for name, values in gathered.texts.items()
        if not task.schema[name].is_list
    }
    records, first = [], 0
    for shard in task.shards:
        records.append(_write_shard(task, shard, gathered, texts, first))
        first += shard.rows
    lost = dict(zip(task.schema.masked, gathered.lost.T, strict=True))
    entries, counts = statistics.compute(
        task.schema,
        gathered.packs,
        {name: flags for name, flags in lost.items() if flags.any()},
        gathered.texts,
        task.spans,
        task.first_row,
    )
    first_shard = task.shards[0].ordinal
    record = BatchRecord(
        shards=records,
        statistics=task.notes / f"{first_shard:06d}.arrow",
        vocabulary_counts=task.notes / f"{first_shard:06d}-codes.arrow",
    )
    write(record.statistics, entries)
    write(record.vocabulary_counts, counts)
    return record


def noted(files: Iterable[Path]) -> pa.Table:
    """The statistics in files of one kind, one after the other.

    Raises:
        StorageError: if one cannot be read.
    """
    return pa.concat_tables(
        pa.ipc.open_file(pa.py_buffer(storage.read(path))).read_all() for path in files
    )


def _write_shard(
    task: BatchTask, shard: ShardTask, rows: Rows, texts: Mapping[str, block.Listed], first: int
) -> ShardRecord:
    stop = first + shard.rows
    sizes = near_equal(shard.rows, task.block_rows)
    framed, digest = [], hashlib.sha256()
    # Not durable yet: the manifest waits for the disk once, for all shards.
    with storage.publishing(task.folder / shard.path, durable=False) as file:
        parts: list[block.Buffer] = []
        held, start = 0, first
        for size in sizes.tolist():
            header = block.Header(first_row=task.first_row + start, rows=size, token=shard.token)
            own = _encode(header, task.schema, rows, texts, start)
            parts += own
            start += size
            framed.append(sum(map(len, own)))
            held += framed[-1]
            if held >= _WRITE_BYTES or start == stop:
                # Many blocks at once: fewer calls, and long ones, which other threads run beside.
                data = block.joined(parts)
                digest.update(data)
                file.write(data)
                parts, held = [], 0
    source, source_row = rows.source[first:stop], rows.source_row[first:stop]
    return ShardRecord(
        files=(
            task.folder / shard.path,
            provenance.by_row_path(task.folder, shard.ordinal),
        ),
        size_bytes=sum(framed),
        sha256=digest.hexdigest(),
        provenance_sha256=provenance.write_by_row(task.folder, shard.ordinal, source, source_row),
        block_sizes=np.array(framed, np.int64),
        block_rows=sizes,
    )


def _encode(
    header: block.Header,
    schema: Schema,
    rows: Rows,
    texts: Mapping[str, block.Listed],
    start: int,
) -> list[block.Buffer]:
    count, stop = header.rows, start + header.rows
    fixed: dict[str, block.Buffer] = {}
    if schema.masked:
        fixed[MASK] = block.pack_mask(~rows.lost[start:stop]).reshape(-1)
    for pack, matrix in zip(schema.packs, rows.packs, strict=True):
        fixed[pack.name] = matrix[start:stop].reshape(-1).view(np.uint8)
    wide: dict[str, block.Buffer] = {
        feature: texts[name].between(start, stop)
        if name in texts
        else _listed(rows.texts[name].slice(start, count))
        for name, feature in schema.texts.items()
    }
    for name, feature in schema.validities.items():
        if name in rows.items:
            valid = rows.items[name][start:stop]
        else:
            items = rows.texts[name].slice(start, count).flatten()
            valid = np.asarray(items.is_valid().cast(pa.uint8()))
        wide[feature] = _one(valid)
    return block.framed(schema, header, fixed, wide)


def _listed(lists: pa.Array) -> np.ndarray:
    """The feature of lists: a text an item, or all numbers as one."""
    items = lists.flatten()
    dtype = storage_dtype(items.type)
    if dtype is not None:
        return _one(stored_numbers(items, dtype))
    values = pc.fill_null(stored_bytes(items), b"")
    return block.Listed(values).between(0, len(values))


def _one(values: np.ndarray) -> np.ndarray:
    """The feature of one value."""
    return block.Listed(pa.array([values.tobytes()], pa.binary())).between(0, 1)
