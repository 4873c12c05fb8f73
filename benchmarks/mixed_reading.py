"""Job mixed-read: rows of many kinds with every column, from tfstream and from the textbook."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

import tfstream
from benchmarks import data, examples, mixed_rows, tfstream_cases
from benchmarks.clock import Clock
from benchmarks.runner import announce_measured
from benchmarks.workload import SEED

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from benchmarks.workload import Task

_FILES = 16
_WORDS = (*mixed_rows.CATEGORIES, "url", "query")


def run(task: Task) -> dict[str, Any]:
    """Measure a contender; epoch 0 is checked by the times, which tell the ids."""
    rows = task.workload.rows
    if task.contender == "textbook-mixed":
        rows = min(rows, task.workload.examples)
        place = data.keep(task.folder / f"mixed-examples-{rows}", lambda p: _write(p, rows))
        dataset: Iterable[Any] = _textbook(place, task)
    else:
        source = data.keep(task.folder / "mixed-source", lambda p: mixed_rows.write_source(p, rows))
        place = tfstream_cases.keep(task.folder / "mixed-shards", lambda p: _convert(source, p))
        # Nulls with a mask, as by default; the textbook delivers them as a number of its own.
        dataset = (
            tfstream.open(str(place))
            .stream(batch_size=task.workload.batch, label="label", seed=SEED)
            .dataset()
        )
    clock = Clock(floor_s=task.workload.floor_s, bound_s=task.workload.bound_s)
    ids, cpu, cpu_rows, is_over, epoch = [], 0.0, 0, False, 0
    while not is_over:
        begin = time.process_time()
        for features, label in dataset:
            if epoch == 0:
                ids.append(features[mixed_rows.TIME].numpy())
            is_over = clock.tick(epoch, len(label))
            cpu_rows += len(label) if epoch else 0
            if is_over:
                break
        cpu += time.process_time() - begin if epoch else 0.0
        epoch += 1
    announce_measured()
    came = mixed_rows.ids_of(pa.chunked_array([np.concatenate(ids)]))
    found = (
        np.sort(came).tolist() == list(range(rows)) if clock.whole else len(set(came)) == len(came)
    )
    result = clock.result()
    return {
        "figures": {
            "M rows/s": float(str(result["rows_per_s"])) / 1e6,
            "rows": rows,
            "CPU s / M rows": cpu / cpu_rows * 1e6 if cpu_rows else float("nan"),
        },
        "findings": [] if found else ["the rows are others"],
    }


def _convert(source: Path, place: Path) -> None:
    tfstream.convert(str(source / "*.parquet"), str(place), group_by=["c00"])


def _write(place: Path, rows: int) -> None:
    """One Example a row, every column, nulls left out."""
    writers = [tf.io.TFRecordWriter(str(place / f"{n:03d}.tfrecord")) for n in range(_FILES)]
    for start in range(0, rows, data.CHUNK):
        table = mixed_rows.table_of(np.arange(start, min(start + data.CHUNK, rows)))
        for batch in table.to_batches():
            for number, row in enumerate(examples.plain(batch).to_pylist()):
                writers[number % _FILES].write(examples.serialized(row))
    for writer in writers:
        writer.close()


def _textbook(place: Path, task: Task) -> tf.data.Dataset:
    specs = {name: tf.io.FixedLenFeature([], tf.string) for name in _WORDS}
    specs |= {
        name: tf.io.FixedLenFeature([], tf.int64, default_value=0) for name in mixed_rows.INTEGERS
    }
    specs |= {name: tf.io.FixedLenFeature([], tf.int64) for name in (mixed_rows.TIME, "label")}

    batches = examples.pipeline(place, specs, task)
    return batches.map(lambda row: ({n: row[n] for n in specs if n != "label"}, row["label"]))
