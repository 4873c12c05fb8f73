"""Jobs fit and callback: the batches inside `model.fit` of a small model."""

from __future__ import annotations

import tempfile
import time
from typing import TYPE_CHECKING, Any, cast

import keras
import tensorflow as tf

import benchmarks.contenders
from benchmarks import data
from benchmarks.clock import Clock
from benchmarks.runner import announce_measured

if TYPE_CHECKING:
    from benchmarks.contenders import Contender, FitSource
    from benchmarks.workload import Task

Batch = Any
"""Features and label, as Keras hands them over."""

Logs = Any
"""What Keras calls logs."""

_ENDLESS = 1_000_000
"""Epochs of a fit that a callback stops."""


class SpyModel(keras.Model):
    """Counts in the graph the rows and the sum of the ids that `train_step` got."""

    def train_step(self, batch: Batch) -> Logs:
        """Count, then train."""
        features = batch[0]
        first = features[data.FEATURES[0]] if isinstance(features, dict) else features[:, 0]
        ids = tf.cast(tf.round(first * data.ID_SCALE), tf.int64)
        self.spy_rows.assign_add(tf.size(ids, out_type=tf.int64))
        self.spy_ids.assign_add(tf.reduce_sum(ids))
        return super().train_step(batch)


def small_model(form: str, model: type[keras.Model] = keras.Model) -> keras.Model:
    """Two Dense(64, relu) and a sigmoid, compiled; inputs packed, or by column."""
    if form == "packed":
        inputs: Any = keras.Input((len(data.FEATURES),))
        joined = inputs
    else:
        inputs = {name: keras.Input((1,), name=name) for name in data.FEATURES}
        joined = keras.layers.Concatenate()(list(inputs.values()))
    hidden = keras.layers.Dense(64, activation="relu")(joined)
    hidden = keras.layers.Dense(64, activation="relu")(hidden)
    built = model(inputs, keras.layers.Dense(1, activation="sigmoid")(hidden))
    built.compile(optimizer="adam", loss="binary_crossentropy")
    return built


class ClockCallback(keras.callbacks.Callback):
    """Ticks at the end of every step, and keeps what the spy saw in epoch 0."""

    def __init__(self, clock: Clock, rows: int, batch: int) -> None:
        """For epochs of `rows` rows."""
        super().__init__()
        self._clock = clock
        self._rows = rows
        self._batch = batch
        self._epoch = 0
        self.seen: tuple[int, int] | None = None
        """Rows and sum of ids of epoch 0, once it is over."""

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:  # noqa: ARG002
        """Keep the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:  # noqa: ARG002
        """Tick."""
        rows = min(self._batch, self._rows - batch * self._batch)
        if self._clock.tick(self._epoch, rows):
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:  # noqa: ARG002
        """Keep what came in epoch 0."""
        if epoch == 0:
            self.seen = int(self.model.spy_rows), int(self.model.spy_ids)


def run_fit(task: Task) -> dict[str, Any]:
    """Measure a contender inside `fit`; the rows and the sum of the ids of epoch 0 are checked."""
    contender = benchmarks.contenders.find(task.workload, task.contender)
    source = cast(
        "FitSource", contender.load().open_source(task.folder / contender.layout, task, contender)
    )
    clock = Clock(floor_s=task.workload.floor_s, bound_s=task.workload.bound_s)
    callback = ClockCallback(clock, contender.rows, task.workload.batch)
    model = small_model(contender.form, SpyModel)
    model.spy_rows = tf.Variable(0, dtype=tf.int64)
    model.spy_ids = tf.Variable(0, dtype=tf.int64)
    model.fit(**source.fit_arguments(), epochs=_ENDLESS, verbose=0, callbacks=[callback])
    announce_measured()
    return clock.result() | {
        "findings": _findings(callback.seen, clock, contender, task.workload.batch)
    }


def _findings(
    seen: tuple[int, int] | None, clock: Clock, contender: Contender, batch: int
) -> list[str]:
    if not clock.whole:
        # Which rows they were, job read has proven; here their number is known, and the clock
        # started after the first batch.
        expected_rows = clock.rows + batch
        wrong = seen is None or seen[0] != expected_rows
        return [f"rows and sum of ids {seen}, not {expected_rows} rows"] if wrong else []
    expected = contender.rows, contender.rows * (contender.rows - 1) // 2
    return [f"rows and sum of ids {seen}, not {expected}"] if seen != expected else []


class EpochClock(keras.callbacks.Callback):
    """Takes the time of whole epochs after the first, with no hook in the steps."""

    def __init__(self, floor_s: float) -> None:
        """Stop after epochs that take `floor_s` together."""
        super().__init__()
        self._floor_s = floor_s
        self._start = 0.0
        self.seconds = 0.0
        """Time of the epochs after the first."""
        self.epochs = 0
        """Their number."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:  # noqa: ARG002
        """Start after epoch 0; stop when it is enough."""
        now = time.perf_counter()
        if epoch == 0:
            self._start = now
            return
        self.seconds = now - self._start
        self.epochs = epoch
        self.model.stop_training = self.seconds >= self._floor_s


def run_callback(task: Task) -> dict[str, Any]:
    """Measure `fit` on tfstream with the lineage callback, or without it."""
    import tfstream

    contender = benchmarks.contenders.find(task.workload, "tfstream-packed")
    source: Any = contender.load().open_source(task.folder / contender.layout, task, contender)
    with tempfile.TemporaryDirectory(dir=task.folder, prefix="run-") as folder:
        # The clock comes last, so that what the lineage callback does at an epoch's end is inside.
        clock = EpochClock(task.workload.floor_s)
        lineage = task.contender == "with-callback"
        before = [tfstream.LineageCallback(f"{folder}/run", source.stream)] if lineage else []
        small_model(contender.form).fit(
            **source.fit_arguments(), epochs=_ENDLESS, verbose=0, callbacks=[*before, clock]
        )
        announce_measured()
        findings = _run_findings(f"{folder}/run") if lineage else []
    rows = clock.epochs * contender.rows
    return {
        "rows_per_s": rows / clock.seconds,
        "timed_rows": rows,
        "timed_s": clock.seconds,
        "whole_epoch": True,
        "findings": findings,
    }


def _run_findings(folder: str) -> list[str]:
    import tfstream

    return [str(finding) for finding in tfstream.open_run(folder).verify()]
