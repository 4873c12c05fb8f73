"""Job constant: a fit on the stream against the same fit on one batch that comes again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from benchmarks import data, tfstream_cases
from benchmarks.fitting import EpochClock, small_model
from benchmarks.runner import announce_measured

if TYPE_CHECKING:
    from benchmarks.workload import Task

_LARGE_UNITS, _LARGE_LAYERS = 768, 4
_EPOCHS = 1_000
"""More than a clock waits for."""
_LARGE_STEPS = 300
"""Steps of an epoch of the large model."""


class CpuClock(EpochClock):
    """Takes the seconds of all threads, too."""

    cpu_seconds = 0.0
    _cpu_start = 0.0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """As `EpochClock`."""
        super().on_epoch_end(epoch, logs)
        if epoch == 0:
            self._cpu_start = time.process_time()
        self.cpu_seconds = time.process_time() - self._cpu_start


def run(task: Task) -> dict[str, Any]:
    """Measure a fit."""
    place = tfstream_cases.kept_shards(task)
    stream = tfstream_cases.open_stream(place, task, packed=True, with_id=False)
    fed, model = task.contender.split("-")
    dataset = stream.dataset()
    steps = stream.steps_per_epoch
    if model == "large":
        steps = min(steps, _LARGE_STEPS)
    if fed == "constant":
        batch = next(iter(dataset))
        dataset = tf.data.Dataset.from_tensors(batch).repeat(steps)
    clock = CpuClock(task.workload.floor_s)
    built = small_model("packed") if model == "small" else _large_model()
    built.fit(
        dataset,
        epochs=_EPOCHS,
        steps_per_epoch=steps if model == "large" and fed == "tfstream" else None,
        shuffle=False,
        verbose=0,
        callbacks=[clock],
    )
    announce_measured()
    done = clock.epochs * steps
    return {
        "figures": {
            "ms a step": clock.seconds / done * 1e3,
            "CPU ms a step": clock.cpu_seconds / done * 1e3,
        },
        "findings": [] if clock.epochs else ["no epoch was measured"],
    }


def _large_model() -> keras.Model:
    inputs = keras.Input((len(data.FEATURES),))
    hidden = inputs
    for _ in range(_LARGE_LAYERS):
        hidden = keras.layers.Dense(_LARGE_UNITS, activation="relu")(hidden)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(hidden))
    model.compile(optimizer="adam", loss="binary_crossentropy")
    return model
