"""What is logged of an attempt as TensorBoard's event files, on request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfstream import order
from tfstream.errors import StorageError
from tfstream.lineage.records import Metrics, Record, Steps, WindowShards
from tfstream.order import Spec

FOLDER = "tensorboard"
"""In the run's folder; it has a folder for each log, which TensorBoard shows as a run."""

_SCALAR = tf.compat.v1.SummaryMetadata(
    plugin_data={"plugin_name": "scalars"}, data_class="DATA_CLASS_SCALAR"
)
"""As `tf.summary.scalar` has it, which is TensorBoard's own: TensorFlow may be there without it."""

Scalar = tuple[str, int, float]
"""Its name, the step of the run, and the value."""


class Board:
    """Writes the scalars of one attempt."""

    def __init__(self, log: Path, metrics: tuple[str, ...], spec: Spec) -> None:
        """Nothing is written yet.

        Args:
            log: the attempt's.
            metrics: their names.
            spec: tells the rows of a step, and the first step of a window.
        """
        self._folder = log.parent / FOLDER / log.stem
        self._metrics, self._spec = metrics, spec
        self._writer: Any = None
        self._before_s: float | None = None

    def write(self, records: Sequence[Record]) -> None:
        """Write what was logged at once.

        Raises:
            StorageError: if it cannot be written.
        """
        if not records:
            return
        try:
            if self._writer is None:
                self._writer = tf.summary.create_file_writer(str(self._folder))
            with self._writer.as_default():
                for name, step, value in scalars(
                    records, self._metrics, self._spec, self._before_s
                ):
                    tf.summary.write(name, value, step=step, metadata=_SCALAR)
            self._writer.flush()
        except tf.errors.OpError as error:
            raise StorageError(f"cannot write below {self._folder}: {error.message}") from error
        times = [record.time_s for record in records if isinstance(record, Steps)]
        self._before_s = max(times, default=self._before_s)

    def close(self) -> None:
        """End the file, if there is one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def scalars(
    records: Sequence[Record], metrics: Sequence[str], spec: Spec, before_s: float | None
) -> Iterator[Scalar]:
    """What TensorBoard shows of records that were logged at once.

    Each metric by step; `input/wait_s` at the first step of each window; `epoch` and
    `input/rows_per_s` at the last step that was logged.

    Args:
        records: of an attempt.
        metrics: names of those in `Metrics`, in its order.
        spec: the stream's.
        before_s: when steps were logged last, in seconds since 1970; None if these are the first,
            which have no rate: nobody knows when the first of them began.
    """
    steps = np.empty(0, np.int64)
    for record in records:
        if isinstance(record, Metrics):
            for place, i in np.argwhere(~np.isnan(record.values)).tolist():
                yield metrics[i], record.first_step + place, float(record.values[place, i])
        elif isinstance(record, WindowShards):
            first = record.epoch * spec.steps_per_epoch + spec.first_step(record.window)
            yield "input/wait_s", first, record.wait_s
        elif isinstance(record, Steps):
            steps = np.append(steps, np.arange(record.piece.first_step, record.piece.stop))
            now_s = record.time_s
    if not len(steps):
        return
    epoch, in_epoch = np.divmod(steps, spec.steps_per_epoch)
    last = int(steps[-1])
    yield "epoch", last, float(epoch[-1])
    if before_s is not None and now_s > before_s:
        rows = int(order.rows_of_steps(spec, epoch, in_epoch).sum())
        yield "input/rows_per_s", last, rows / (now_s - before_s)
