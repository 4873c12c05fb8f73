"""Job epochs: the memory of a process that reads a stream for ten epochs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

import tfstream
from benchmarks import tfstream_cases
from benchmarks.runner import announce_measured

if TYPE_CHECKING:
    from benchmarks.workload import Task

_EPOCHS, _SETTLED = 10, 2
_MEGA = 1e6


def run(task: Task) -> dict[str, Any]:
    """Read ten epochs."""
    place = tfstream_cases.kept_shards(task)
    packed = task.contender == "memory-packed"
    stream = tfstream_cases.open_stream(place, task, packed=packed, with_id=False)
    dataset, process = stream.dataset(), psutil.Process()
    before, start = process.memory_info().rss, time.perf_counter()
    resident, rows = [], 0
    for _ in range(_EPOCHS):
        rows += sum(len(label) for _, label in dataset)
        resident.append(process.memory_info().rss / _MEGA)
    seconds = time.perf_counter() - start
    announce_measured()
    expected = _EPOCHS * tfstream.open(str(place)).rows
    slope = float(np.polyfit(np.arange(_SETTLED, _EPOCHS), resident[_SETTLED:], 1)[0])
    return {
        "figures": {
            "M rows/s": rows / seconds / _MEGA,
            "MB before": before / _MEGA,
            "MB after epoch 1": resident[0],
            "3": resident[2],
            "10": resident[-1],
            "MB an epoch": slope,
        },
        "resident_mb": resident,
        "findings": [] if rows == expected else [f"{rows} rows came, {expected} should"],
    }
