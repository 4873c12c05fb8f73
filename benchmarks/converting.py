"""Job convert: from the source into groups; and bare reading of the source, the limit."""

from __future__ import annotations

import importlib
import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pds

from benchmarks import contenders, delivery
from benchmarks.delivery import Ledger
from benchmarks.runner import announce_measured
from benchmarks.workload import Task

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Converter:
    """One way to convert, and the way to check it."""

    convert: Callable[[Path, Path], Any]
    """From the source's folder into a new one."""
    findings: Callable[[Path, Task, Any], list[str]]
    """What is wrong with the output, given what `convert` returned."""


def run(task: Task) -> dict[str, Any]:
    """Measure one conversion into a new folder; the output is read back, checked and removed."""
    out = task.folder / f"out-{os.getpid()}"
    converter = _converter(task.contender)
    os.sync()  # Or the contender before would write back its pages on this one's time.
    try:
        start = time.perf_counter()
        returned = converter.convert(task.source, out)
        seconds = time.perf_counter() - start
        announce_measured()
        findings = converter.findings(out, task, returned)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    rows = task.workload.rows
    return {
        "rows_per_s": rows / seconds,
        "timed_rows": rows,
        "timed_s": seconds,
        "whole_epoch": True,
        "findings": findings,
    }


def _converter(name: str) -> Converter:
    if name == "tfstream-convert":
        convert = importlib.import_module("benchmarks.tfstream_cases").converter()
        return Converter(convert=convert, findings=_shard_findings)
    if name == "pyarrow-hive":
        return Converter(convert=_write_hive, findings=_hive_findings)
    return Converter(convert=_read, findings=_read_findings)


def _shard_findings(out: Path, task: Task, returned: object) -> list[str]:  # noqa: ARG001
    contender = contenders.find(task.workload, "tfstream-dict")
    read = Task(action="read", contender=contender.name, folder=out, workload=task.workload)
    ledger = Ledger(contender.rows)
    for features, label in contender.load().open_source(out, read, contender).epoch():
        ledger.record(features, label)
    return ledger.findings(whole=True)


def _write_hive(source: Path, out: Path) -> None:
    keys = pa.schema([("month", pa.int32()), ("day", pa.int32())])
    partitioning = pds.partitioning(keys, flavor="hive")
    pds.write_dataset(pds.dataset(source), out, format="parquet", partitioning=partitioning)


def _hive_findings(out: Path, task: Task, returned: object) -> list[str]:  # noqa: ARG001
    ids = pds.dataset(out).to_table(columns=["id"]).column("id").to_numpy()
    return delivery.covered(ids, task.workload.rows)


def _read(source: Path, out: Path) -> np.ndarray:  # noqa: ARG001
    batches = pds.dataset(source).to_batches()
    return np.concatenate([batch.column("id").to_numpy() for batch in batches])


def _read_findings(out: Path, task: Task, returned: np.ndarray) -> list[str]:  # noqa: ARG001
    return delivery.covered(returned, task.workload.rows)
