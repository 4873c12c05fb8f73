"""The jobs that convert: from a source into groups; and bare reading of the source, the limit."""

from __future__ import annotations

import importlib
import os
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pds

from benchmarks import contenders, delivery, mixed_rows
from benchmarks.delivery import Ledger
from benchmarks.runner import announce_measured
from benchmarks.workload import Task

if TYPE_CHECKING:
    from collections.abc import Callable

_DAYS = (pa.field("month", pa.int32()), pa.field("day", pa.int32()))
_CATEGORY = (pa.field(mixed_rows.CATEGORIES[0], pa.string()),)
_BUFFERED_ROWS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Converter:
    """One way to convert, and the way to check it."""

    convert: Callable[[Path, Path], Any]
    """From the source's folder into a new one."""
    findings: Callable[[Path, Task, Any], list[str]]
    """What is wrong with the output, given what `convert` returned."""


def run(task: Task) -> dict[str, Any]:
    """Measure one conversion into a new folder; the output is read back, checked and removed."""
    limit = task.workload.limit_bytes if task.action == "bounded" else None
    if limit is not None:
        import resource  # Of Unix only, as is the limit.

        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    out = task.folder / f"out-{os.getpid()}"
    converter = _converter(task)
    os.sync()  # Or the contender before would write back its pages on this one's time.
    try:
        start, cpu = time.perf_counter(), _cpu_s()
        returned = converter.convert(task.source, out)
        seconds, cpu = time.perf_counter() - start, _cpu_s() - cpu
        peak_bytes = _own_peak()
        announce_measured()
        findings = converter.findings(out, task, returned)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    rows = task.workload.rows
    return {
        "rows": rows,
        "rows_per_s": rows / seconds,
        "timed_rows": rows,
        "timed_s": seconds,
        "cpu_s_per_million": cpu / rows * 1e6,
        "whole_epoch": True,
        "source_bytes": sum(path.stat().st_size for path in task.source.iterdir()),
        "own_peak_bytes": peak_bytes,
        "limit_bytes": limit,
        "findings": findings,
    }


def _cpu_s() -> float:
    """Seconds of all threads, and of children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _own_peak() -> int:
    """The most memory that this process has had so far, which samples may miss; 0 if unknown."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    lines = status.read_text(encoding="utf-8").splitlines()
    kib = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kib) * 1_024


def _converter(task: Task) -> Converter:
    name, fields = task.contender, _CATEGORY if task.action == "mixed" else _DAYS
    if name.startswith("tfstream"):
        cases = importlib.import_module("benchmarks.tfstream_cases")
        convert = cases.converter([field.name for field in fields])
        whole = _shard_findings if task.action == "convert" else _block_findings
        return Converter(convert=convert, findings=whole)
    if name == "dask-hive":
        frames = importlib.import_module("dask.dataframe")
        convert = partial(_write_dask, frames, fields)
        return Converter(convert=convert, findings=_hive_findings)
    if name == "ray-tfrecords":
        case = importlib.import_module("benchmarks.ray_case")
        return Converter(convert=case.converter(), findings=partial(_example_findings, case))
    if name in {"tfx-bsl", "plain-examples"}:
        case = importlib.import_module("benchmarks.examples")
        return Converter(convert=case.converter(name), findings=partial(_example_findings, case))
    if name.startswith("pyarrow-read"):
        return Converter(convert=partial(_read, task), findings=_read_findings)
    buffered_rows = _BUFFERED_ROWS if name == "pyarrow-hive-buffered" else 0
    return Converter(convert=partial(_write_hive, fields, buffered_rows), findings=_hive_findings)


def _shard_findings(out: Path, task: Task, returned: object) -> list[str]:  # noqa: ARG001 - one signature for all
    contender = contenders.find(task.workload, "tfstream-dict")
    read = Task(action="read", contender=contender.name, folder=out, workload=task.workload)
    ledger = Ledger(contender.rows)
    for features, label in contender.load().open_source(out, read, contender).epoch():
        ledger.record(features, label)
    return ledger.findings(whole=True)


def _block_findings(out: Path, task: Task, returned: object) -> list[str]:  # noqa: ARG001 - one signature for all
    """Block by block, since this may be held to a limit of memory."""
    cases = importlib.import_module("benchmarks.tfstream_cases")
    parts = (_ids(table, task) for table in cases.tables(out, _id_column(task)))
    return delivery.summed(parts, task.workload.rows)


def _write_dask(frames: Any, fields: tuple[pa.Field, ...], source: Path, out: Path) -> None:
    keys = [field.name for field in fields]
    frames.read_parquet(str(source)).to_parquet(str(out), partition_on=keys, write_index=False)


def _write_hive(fields: tuple[pa.Field, ...], buffered_rows: int, source: Path, out: Path) -> None:
    partitioning = pds.partitioning(pa.schema(fields), flavor="hive")
    pds.write_dataset(
        pds.dataset(source),
        out,
        format="parquet",
        partitioning=partitioning,
        min_rows_per_group=buffered_rows,
    )


def _hive_findings(out: Path, task: Task, returned: object) -> list[str]:  # noqa: ARG001 - one signature for all
    table = pds.dataset(out).to_table(columns=[_id_column(task)])
    return delivery.covered(_ids(table, task), task.workload.rows)


def _read(task: Task, source: Path, out: Path) -> np.ndarray:  # noqa: ARG001 - one signature for all
    column = _id_column(task)
    batches = pds.dataset(source).to_batches()
    return np.concatenate([_ids(pa.table([b.column(column)], [column]), task) for b in batches])


def _read_findings(out: Path, task: Task, returned: np.ndarray) -> list[str]:  # noqa: ARG001 - one signature for all
    return delivery.covered(returned, task.workload.rows)


def _example_findings(case: Any, out: Path, task: Task, returned: object) -> list[str]:  # noqa: ARG001 - one signature for all
    ids = pa.chunked_array([case.ids_of(out, _id_column(task))])
    return delivery.covered(_ids(pa.table([ids], [_id_column(task)]), task), task.workload.rows)


def _id_column(task: Task) -> str:
    return mixed_rows.TIME if task.action == "mixed" else "id"


def _ids(table: pa.Table, task: Task) -> np.ndarray:
    """The ids of the rows of a table that has the job's column of them."""
    column = table[_id_column(task)]
    return mixed_rows.ids_of(column) if task.action == "mixed" else column.to_numpy()
