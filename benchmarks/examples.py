"""Conversions into one tf.train.Example a row, in TFRecord files without groups.

Nulls are left out, and timestamps are integers, since an Example has neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pds
import tensorflow as tf

from benchmarks.workload import SEED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from benchmarks.workload import Task

    Encode = Callable[[pa.RecordBatch], Iterable[bytes]]
    """The serialized Examples of the rows of a batch of integers, floats and texts."""

_FILES = 8
_CYCLE = 16
"""Files that the pipeline reads at the same time."""
_BATCH_ROWS = 8_192


def converter(name: str) -> Callable[[Path, Path], None]:
    """A function that converts the Parquet files of a folder by the contender of that name.

    What it needs is loaded here, and not on the time of the conversion.
    """
    encode = _tfx_bsl() if name == "tfx-bsl" else plainly

    def by_row(source: Path, out: Path) -> None:
        write(pds.dataset(source).to_batches(batch_size=_BATCH_ROWS), out, encode)

    return by_row


def write(batches: Iterable[pa.RecordBatch], out: Path, encode: Encode) -> None:
    """Write all rows to a folder, batches dealt out to its files in turn."""
    out.mkdir(exist_ok=True)
    writers = [tf.io.TFRecordWriter(str(out / f"{n:03d}.tfrecord")) for n in range(_FILES)]
    for number, batch in enumerate(batches):
        writer = writers[number % _FILES]
        for record in encode(plain(batch)):
            writer.write(record)
    for writer in writers:
        writer.close()


def plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch, its timestamps as integers."""
    columns = [
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def serialized(row: Mapping[str, str | float | None]) -> bytes:
    """A row as an Example, without its nulls."""
    features = {name: _feature(value) for name, value in row.items() if value is not None}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def ids_of(out: Path, column: str) -> np.ndarray:
    """The integers of a column, as they are read back from the files."""
    return np.concatenate(list(values_of(out, column, tf.io.FixedLenFeature([], tf.int64))))


def values_of(out: Path, column: str, spec: tf.io.FixedLenFeature) -> Iterator[np.ndarray]:
    """The values of a column, some rows at a time."""
    for records in tf.data.TFRecordDataset(sorted(map(str, out.iterdir()))).batch(1_024):
        yield tf.io.parse_example(records, {column: spec})[column].numpy()


def specs_of(schema: pa.Schema) -> dict[str, tf.io.FixedLenFeature]:
    """Of the columns that an Example can have, with what stands for nulls."""
    kinds = (
        (tf.int64, 0, (pa.types.is_integer, pa.types.is_timestamp)),
        (tf.float32, float("nan"), (pa.types.is_float32, pa.types.is_float64)),
        (tf.string, "", (pa.types.is_string, pa.types.is_large_string)),
    )
    return {
        field.name: tf.io.FixedLenFeature([], dtype, null)
        for dtype, null, accepted in kinds
        for field in schema
        if any(is_kind(field.type) for is_kind in accepted)
    }


def pipeline(
    place: Path, specs: Mapping[str, tf.io.FixedLenFeature], task: Task
) -> tf.data.Dataset:
    """The textbook pipeline over TFRecord files: dicts of the columns of a batch, shuffled."""
    return (
        tf.data.Dataset.list_files(str(place / "*.tfrecord"), shuffle=True, seed=SEED)
        .interleave(
            tf.data.TFRecordDataset,
            cycle_length=_CYCLE,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=False,
        )
        .shuffle(task.workload.buffer, seed=SEED)
        .batch(task.workload.batch)
        .map(
            lambda records: tf.io.parse_example(records, specs),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .prefetch(tf.data.AUTOTUNE)
    )


def _feature(value: str | float) -> tf.train.Feature:
    if isinstance(value, str):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
    if isinstance(value, float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def plainly(batch: pa.RecordBatch) -> Iterable[bytes]:
    """The Examples of a batch, row by row in Python."""
    return map(serialized, batch.to_pylist())


def _tfx_bsl() -> Encode:
    from tfx_bsl.public.tfxio import RecordBatchToExamplesEncoder

    encoder = RecordBatchToExamplesEncoder()

    def encode(batch: pa.RecordBatch) -> Iterable[bytes]:
        lists = [_listed(column) for column in batch.columns]
        return encoder.encode(pa.RecordBatch.from_arrays(lists, names=batch.schema.names))

    return encode


def _listed(column: pa.Array) -> pa.ListArray:
    """A list for each value, empty for a null: what the encoder takes, in the types it takes."""
    if pa.types.is_integer(column.type):
        column = column.cast(pa.int64())
    elif pa.types.is_string(column.type):
        column = column.cast(pa.binary())
    offsets = np.zeros(len(column) + 1, np.int32)
    np.cumsum(np.asarray(column.is_valid()), out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), column.drop_null())
