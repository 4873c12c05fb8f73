"""Ray Data: one tf.train.Example per row, without groups; in an environment of its own."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pyarrow as pa
import ray

from benchmarks import examples

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np


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


def ids_of(out: Path, column: str) -> np.ndarray:
    """The integers of a column of the rows that were written."""
    ray.shutdown()
    return examples.ids_of(out, column)


def _plain(table: pa.Table) -> pa.Table:
    return pa.Table.from_batches([examples.plain(batch) for batch in table.to_batches()])
