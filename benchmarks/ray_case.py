"""Ray Data: one tf.train.Example per row, without groups; in an environment of its own."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import ray
import tensorflow as tf

from benchmarks import mixed_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def converter() -> Callable[[Path, Path], None]:
    """A function that writes TFRecord files; Ray is started and warmed up here.

    Timestamps are cast to integers, since an Example has none.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Sockets lie there, whose names must be short.
    ray.init(include_dashboard=False, log_to_driver=False, _temp_dir=tempfile.gettempdir())
    ray.data.DataContext.get_current().enable_progress_bars = False
    # Workers load TensorFlow when they first write: before the conversion, as tfstream's parts are.
    with tempfile.TemporaryDirectory() as place:
        ray.data.range(1_000).write_tfrecords(f"local://{place}")

    def by_row(source: Path, out: Path) -> None:
        rows = ray.data.read_parquet(str(source))
        rows.map_batches(_plain, batch_format="pyarrow").write_tfrecords(f"local://{out}")

    return by_row


def ids_of(out: Path) -> np.ndarray:
    """The ids of the rows that were written."""
    ray.shutdown()
    paths = sorted(map(str, out.iterdir()))
    feature = {mixed_rows.TIME: tf.io.FixedLenFeature([], tf.int64)}
    records = tf.data.TFRecordDataset(paths).batch(1_024)
    parsed = [tf.io.parse_example(batch, feature)[mixed_rows.TIME].numpy() for batch in records]
    return mixed_rows.ids_of(pa.chunked_array(parsed))


def _plain(table: pa.Table) -> pa.Table:
    place = table.schema.get_field_index(mixed_rows.TIME)
    return table.set_column(place, mixed_rows.TIME, table[mixed_rows.TIME].cast(pa.int64()))
