"""What the steps of a training tell of themselves: the loss and other metrics."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfstream.lineage.records import Metrics
from tfstream.order import Spec, rows_of_steps


class Told:
    """Metrics by step, until they are written down."""

    def __init__(self, names: tuple[str, ...], spec: Spec) -> None:
        """Of these names; the spec tells how many rows a step has."""
        self.names = names
        self._spec = spec
        self._lock = threading.Lock()
        self._values: dict[int, list[float]] = {}
        self._mean = self._weight = 0.0

    def begin_epoch(self, model: Any) -> None:  # noqa: ANN401 - a Keras model
        """Take over what Keras' mean of the loss counts already, which a checkpoint restored."""
        if not self.names:
            return
        tracker: Any = next((m for m in model.metrics if m.name == "loss"), None)
        self._weight = 0.0 if tracker is None else float(tracker.count)
        self._mean = float(tracker.total) / self._weight if self._weight else 0.0

    def add(self, start: int, stop: int, logs: Mapping[str, Any]) -> None:
        """Note what Keras told after the steps from `start` to `stop`; its loss is a running mean.

        The mean m over the rows w and m' over w' make (m' w' - m w) / (w' - w) of those between.
        """
        if start >= stop:
            return
        values = [float(logs.get(name, np.nan)) for name in self.names]
        if "loss" in self.names:
            place = self.names.index("loss")
            rows = sum(self._rows(step) for step in range(start, stop))
            mean, weight = values[place], self._weight + rows
            values[place] = (mean * weight - self._mean * self._weight) / rows
            self._mean, self._weight = mean, weight
        with self._lock:
            self._values[stop - 1] = values

    def set(self, step: int, metrics: Mapping[str, float]) -> None:
        """Note what a loop told of a step."""
        if self.names:
            with self._lock:
                self._values[step] = [float(metrics.get(name, np.nan)) for name in self.names]

    def take(self, stop: int) -> list[Metrics]:
        """What was told of the steps before `stop`, and is not kept any longer."""
        with self._lock:
            steps = sorted(step for step in self._values if step < stop)
            found = [self._values.pop(step) for step in steps]
        if not steps:
            return []
        values = np.full((steps[-1] - steps[0] + 1, len(self.names)), np.nan, np.float32)
        values[np.array(steps) - steps[0]] = found
        return [Metrics(first_step=steps[0], values=values)]

    def _rows(self, step: int) -> int:
        epoch, in_epoch = (np.array([n]) for n in divmod(step, self._spec.steps_per_epoch))
        return int(rows_of_steps(self._spec, epoch, in_epoch)[0])
