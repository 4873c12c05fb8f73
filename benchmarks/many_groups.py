"""Job groups: the same rows into one group, into a million, and into numbers between."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

import tfstream
from benchmarks.runner import announce_measured
from tfstream.format.hashing import hashes

if TYPE_CHECKING:
    from benchmarks.workload import Task


def run(task: Task) -> dict[str, Any]:
    """Measure one conversion, grouped by a hash of the id; groups and ids are checked."""
    groups, rows = int(task.contender.removeprefix("groups-")), task.workload.rows
    out = task.folder / f"out-{os.getpid()}"
    # tfstream loads its parts when they are first named: here, and not on the time of the job.
    convert = tfstream.convert
    os.sync()  # Or the contender before would write back its pages on this one's time.
    try:
        start, cpu = time.perf_counter(), time.process_time()
        shards = convert(str(task.source / "*.parquet"), str(out), group_by=[f"hash(id, {groups})"])
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        announce_measured()
        findings = _findings(shards, rows, groups)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    return {
        "rows_per_s": rows / seconds,
        "timed_rows": rows,
        "timed_s": seconds,
        "cpu_s_per_million": cpu / rows * 1e6,
        "whole_epoch": True,
        "findings": findings,
    }


def _findings(shards: tfstream.Shards, rows: int, groups: int) -> list[str]:
    """What is wrong with the groups' rows or the ids."""
    found = []
    counts = np.bincount((hashes(pa.array(np.arange(rows))) % groups).astype(np.int64))
    if shards.groups["rows"].to_pylist() != counts[counts > 0].tolist():
        found.append("the groups have not the rows that they should")
    ids = shards.statistics["id"]
    if (ids.valid, ids.min, ids.max) != (rows, 0, rows - 1):
        found.append(f"ids from {ids.min} to {ids.max} in {ids.valid} rows")
    return found
