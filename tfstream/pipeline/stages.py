"""Where the time of a stream goes: the pipeline cut off after each stage, measured in turn."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import tensorflow as tf

from tfstream.order import Spec
from tfstream.pipeline import graph

if TYPE_CHECKING:
    from tfstream.pipeline.stream import Stream

KNOBS = {
    "order": "a larger batch_size leaves less to permute apart; shuffle='none' nothing at all",
    "reading": "fewer, larger blocks (ConvertOptions(block_rows=...)), or a faster disk; the first "
    "epoch after a start reads from the disk, later ones from memory if the data fits",
    "decoding": "fewer features: only the packs that hold them are decoded",
    "batches": "packed=True makes one tensor of the features; else fewer features",
    "loop": "Python takes each batch by itself: a larger batch_size; in fit, steps_per_execution",
}
"""For each stage what makes it faster."""

_REPEATS = 2
_SOME_EPOCHS = sys.maxsize


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of the pipeline."""

    name: str
    """A key of `KNOBS`."""
    seconds: float
    """What the pipeline up to here took longer than up to the stage before; at least 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast a stream is, and why."""

    rows: int
    """Rows that were measured."""
    block_bytes: int
    """Bytes of their blocks in the shards, about."""
    stages: tuple[Stage, ...]
    """In the order of the pipeline; together they take `seconds`."""
    cpu_seconds: float
    """Of all threads, for the whole pipeline."""

    @property
    def seconds(self) -> float:
        """Time of the whole pipeline."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def rows_per_s(self) -> float:
        """Rows a second, in a loop that does nothing with them."""
        return self.rows / self.seconds

    @property
    def mb_per_s(self) -> float:
        """Megabytes of blocks a second."""
        return self.block_bytes / self.seconds / 1e6

    @property
    def slowest(self) -> Stage:
        """The stage that binds."""
        return max(self.stages, key=lambda stage: stage.seconds)

    @property
    def advice(self) -> str:
        """What would make the slowest stage faster."""
        return KNOBS[self.slowest.name]


def measure(stream: Stream, rows: int) -> Speed:
    """Measure each part of the pipeline on about `rows` rows behind the first window, twice.

    The first window has what starts once; the shorter time counts.
    """
    spec = stream.spec
    windows = 1
    while _rows_until(spec, windows) - _rows_until(spec, 1) < rows:
        windows += 1
    measured = _rows_until(spec, windows) - _rows_until(spec, 1)
    plan, epochs, times = stream.prepared(), range(_SOME_EPOCHS), {}
    for part in get_args(graph.Part):
        made = graph.stateless_windows(plan, epochs, 0, parallelism=stream.parallelism, until=part)
        times[part] = min(_between(made, 1, windows) for _ in range(_REPEATS))
    made = graph.stateless_batches(plan, epochs, 0, parallelism=stream.parallelism)
    counts = [_steps_until(spec, n) for n in (1, windows)]
    times["batches"] = min(_between(made, *counts) for _ in range(_REPEATS))
    dataset = stream.dataset(epochs=epochs)
    loops = [_loop(dataset, *counts) for _ in range(_REPEATS)]
    times["loop"], cpu_seconds = min(loops)
    catalog, blocks = stream.subset.catalog, stream.subset.blocks
    return Speed(
        rows=measured,
        block_bytes=int(catalog.block_size[blocks].sum()) * measured // stream.subset.rows,
        stages=stages_of(times),
        cpu_seconds=cpu_seconds,
    )


def stages_of(times: Mapping[str, float]) -> tuple[Stage, ...]:
    """What each stage adds to the pipelines that end with it.

    Where one more stage made it no slower, since another core had the time, it adds nothing.
    """
    ends = list(itertools.accumulate(times.values(), max))
    return tuple(
        Stage(name=name, seconds=end - before)
        for name, before, end in zip(times, [0.0, *ends[:-1]], ends, strict=True)
    )


def _steps_until(spec: Spec, windows: int) -> int:
    epochs, rest = divmod(windows, spec.windows_per_epoch)
    return epochs * spec.steps_per_epoch + spec.first_step(rest)


def _rows_until(spec: Spec, windows: int) -> int:
    epochs, rest = divmod(windows, spec.windows_per_epoch)
    # Of shorter batches before the last window of an epoch only that they have no more is known.
    whole = spec.full_steps * spec.batch_size + spec.tail_rows + sum(spec.tails)
    return epochs * whole + min(whole, spec.first_step(rest) * spec.batch_size)


def _between(dataset: tf.data.Dataset, first: int, last: int) -> float:
    """Seconds from element `first` to element `last`, with no Python between them."""
    return _seconds(dataset.take(last).skip(last - 1)) - _seconds(
        dataset.take(first).skip(first - 1)
    )


def _seconds(dataset: Iterable[object]) -> float:
    start = time.perf_counter()
    for _ in dataset:
        pass
    return time.perf_counter() - start


def _loop(dataset: tf.data.Dataset, first: int, last: int) -> tuple[float, float]:
    """Seconds, and those of all threads, from one batch to another, taken by Python."""
    batches = iter(dataset)
    for _ in range(first):
        next(batches)
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(last - first):
        next(batches)
    return time.perf_counter() - start, time.process_time() - cpu
