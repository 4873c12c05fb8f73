"""Job columns: reading all of 32, 200 and 512 columns, and 4 of 512."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

import tfstream
from benchmarks import data
from benchmarks.runner import announce_measured
from benchmarks.workload import SEED

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.workload import Task

_EPOCHS = 3
_PICKED = range(100, 104)
_GROUPS = 36
_MEGA = 1e6


def run(task: Task) -> dict[str, Any]:
    """Read a few epochs; the fastest after the first counts."""
    few = "-4-of-" in task.contender
    count = int(task.contender.removesuffix("-label").rpartition("-")[2])
    rows = max(data.MIN_ROWS, task.workload.rows * len(data.FEATURES) // count)
    source = data.keep(
        task.folder / f"columns-{count}-source",
        lambda place: data.write_files(place, rows, 4, lambda ids: _table(ids, count)),
    )
    shards = data.keep(task.folder / f"columns-{count}", lambda place: _convert(source, place))
    names = [_name(i) for i in (_PICKED if few else range(count))]
    stream = tfstream.open(str(shards)).stream(
        batch_size=task.workload.batch,
        features=names,
        label=None if few and not task.contender.endswith("-label") else "label",
        seed=SEED,
        options=tfstream.StreamOptions(packed=True),
    )
    dataset, measured, total = stream.dataset(), [], np.zeros(len(names))
    for epoch in range(_EPOCHS):
        start, cpu, came = time.perf_counter(), time.process_time(), 0
        for batch in dataset:
            features = batch if stream.label_text is None else batch[0]
            came += len(features)
            if epoch == 0:
                total += features.numpy().astype(np.float64).sum(axis=0)
        measured.append((time.perf_counter() - start, time.process_time() - cpu))
    announce_measured()
    seconds, cpu = (min(values) for values in zip(*measured[1:], strict=True))
    expected = np.array([tfstream.open(str(shards)).statistics[name].mean for name in names]) * rows
    findings = [] if came == rows else [f"{came} rows came, {rows} should"]
    if not np.allclose(total, expected, rtol=1e-3, atol=1e-3 * rows):
        findings.append("the sums of the columns are others")
    return {
        "figures": {
            "M rows/s": rows / seconds / _MEGA,
            "MB/s": rows * len(names) * 4 / seconds / _MEGA,
            "CPU s / M rows": cpu / rows * _MEGA,
            "CPU ns a value": cpu / rows / len(names) * 1e9,
        },
        "findings": findings,
    }


def _name(index: int) -> str:
    return f"x{index:03d}"


def _table(ids: np.ndarray, count: int) -> pa.Table:
    random = np.random.default_rng([SEED, count, int(ids[0])])
    values = random.standard_normal((count, len(ids)), dtype=np.float32)
    columns: dict[str, Any] = {_name(i): values[i] for i in range(count)}
    group = (data.mixed(ids) % np.uint64(_GROUPS)).astype(np.int16)
    return pa.table(columns | {"label": data.labels_of(ids), "group": group})


def _convert(source: Path, place: Path) -> None:
    tfstream.convert(str(source / "*.parquet"), str(place), group_by=["group"])
