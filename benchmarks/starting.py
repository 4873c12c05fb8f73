"""Job start: the time to the first batch, from the begin, from far on, and of the plan alone."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

import tfstream
from benchmarks import data, tfstream_cases
from benchmarks.runner import announce_measured
from benchmarks.workload import SEED
from tfstream.format.subset import Subset
from tfstream.pipeline import graph

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from benchmarks.workload import Task

_BATCH = 2
"""So few rows that there are 10^6 steps before the end of 4 M rows."""
_FAR = 1_000_000
_BLOCKS, _BLOCK_ROWS, _BLOCKS_A_SHARD = 1_000_000, 512, 1_000


def run(task: Task) -> dict[str, Any]:
    """Measure a case."""
    shards = tfstream.open(str(tfstream_cases.kept_shards(task)))
    if task.contender == "plan":
        return _plan(shards)
    if task.contender == "epoch":
        return _epoch(shards, task.workload.batch)
    step = int(task.contender.removeprefix("step-"))
    if step >= shards.rows // _BATCH:
        step = shards.rows // _BATCH - 1  # A small source has no such step.
    stream = _stream(shards, _BATCH)
    dataset = stream.dataset(start=stream.cursor(step))
    next(iter(dataset))
    seconds, cpu, batch = _first(lambda: stream.dataset(start=stream.cursor(step)))
    announce_measured()
    ids = data.ids_of(batch[0].numpy()[:, 0])
    source = shards.take(stream.row_ids(*divmod(step, stream.steps_per_epoch)), ["id"])["id"]
    findings = [] if ids.tolist() == source.to_pylist() else ["the first batch has other rows"]
    return {"figures": {"first batch s": seconds, "CPU s": cpu}, "findings": findings}


def _stream(shards: tfstream.Shards, batch: int) -> tfstream.Stream:
    options = tfstream.StreamOptions(packed=True)
    return shards.stream(
        batch_size=batch, features=list(data.FEATURES), label="label", seed=SEED, options=options
    )


def _first(dataset: Callable[[], Iterable[Any]]) -> tuple[float, float, Any]:
    """Seconds from `iter()` to the first batch, those of all threads, and the batch."""
    made = dataset()
    start, cpu = time.perf_counter(), time.process_time()
    batch = next(iter(made))
    return time.perf_counter() - start, time.process_time() - cpu, batch


def _epoch(shards: tfstream.Shards, batch: int) -> dict[str, Any]:
    stream = _stream(shards, batch)
    dataset = stream.dataset()
    rows = sum(len(label) for _, label in dataset)
    iterator = iter(dataset)
    next(iterator)
    start = time.perf_counter()
    rest = sum(len(label) for _, label in iterator)
    steady = rest / (time.perf_counter() - start)
    seconds, cpu, _ = _first(lambda: dataset)
    announce_measured()
    window = stream.spec.window_steps * batch / steady
    findings = [] if rows == shards.rows else [f"{rows} rows came, {shards.rows} should"]
    figures = {"first batch s": seconds, "CPU s": cpu, "one window s": window}
    return {"figures": figures | {"beyond a window s": seconds - window}, "findings": findings}


def _plan(shards: tfstream.Shards) -> dict[str, Any]:
    """10^6 blocks in 1,000 shards that are not there: nothing of them is read."""
    catalog, count = shards.subset.catalog, _BLOCKS // _BLOCKS_A_SHARD
    rows = np.full(_BLOCKS, _BLOCK_ROWS, np.int64)
    size = int(catalog.block_size[0])
    large = replace(
        catalog,
        digest="0" * 64,
        shards=pa.table({"path": [f"shards/{i // 1000:03d}/{i:06d}" for i in range(count)]}),
        block_rows=rows,
        block_first=np.cumsum(rows) - rows,
        block_shard=np.repeat(np.arange(count), _BLOCKS_A_SHARD),
        block_size=np.full(_BLOCKS, size, np.int64),
        block_offset=np.tile(np.arange(_BLOCKS_A_SHARD, dtype=np.int64) * size, count),
        shard_tokens=np.arange(count, dtype=np.uint64),
    )
    stream = _stream(tfstream.Shards(Subset.whole(large)), 1_024)
    elements = graph.Elements(features=stream.plan, packed=True, label=None, weight=None)
    nothing = stream.skips
    small = graph.Plan(shards.subset, _stream(shards, 2).spec, elements, layout=None, skips=nothing)
    next(iter(_ordered(small)))  # What TensorFlow starts once.
    start, cpu = time.perf_counter(), time.process_time()
    plan = graph.Plan(stream.subset, stream.spec, elements, layout=None, skips=nothing)
    dataset = _ordered(plan)
    built, built_cpu = time.perf_counter() - start, time.process_time() - cpu
    start, cpu = time.perf_counter(), time.process_time()
    blocks, _ = next(iter(dataset))
    ordered, ordered_cpu = time.perf_counter() - start, time.process_time() - cpu
    start = time.perf_counter()
    whole = graph.stateless_batches(plan, range(1), 0, parallelism=2)
    serialized = len(whole._as_serialized_graph().numpy())  # noqa: SLF001 - there is no other
    seconds = time.perf_counter() - start
    announce_measured()
    inside = len(np.unique(blocks)) == len(blocks) and blocks.numpy().max() < _BLOCKS
    return {
        "figures": {
            "first batch s": built + ordered,
            "CPU s": built_cpu + ordered_cpu,
            "of it the order, CPU s": ordered_cpu,
            "bytes a block": serialized / _BLOCKS,
            "serialised in s": seconds,
        },
        "findings": [] if inside else ["the window has blocks that are not there"],
    }


def _ordered(plan: graph.Plan) -> tf.data.Dataset:
    return graph.stateless_windows(plan, range(1), 0, parallelism=1, until="order")
