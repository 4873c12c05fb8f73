"""The jobs: which contenders each has, what must be prepared, and what a child does for it."""

from __future__ import annotations

import importlib
import os
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from benchmarks import cases, contenders, data, environments, mixed_rows
from benchmarks.runner import Outcome, run_child
from benchmarks.workload import CONVERSIONS, LARGE, OWN, SEED, Task, Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_FUNCTIONS = {
    "read": ("benchmarks.reading", "run"),
    "fit": ("benchmarks.fitting", "run_fit"),
    "callback": ("benchmarks.fitting", "run_callback"),
    "groups": ("benchmarks.many_groups", "run"),
    **dict.fromkeys(OWN, ("benchmarks.cases", "run")),
    **dict.fromkeys(CONVERSIONS, ("benchmarks.converting", "run")),
}
_CONVERTERS = {
    "tfstream-convert": "TFRecord shards of blocks, provenance, hashes",
    "pyarrow-hive": "write_dataset, a folder per group",
    "pyarrow-hive-buffered": "the same, min_rows_per_group=100,000",
    "dask-hive": "to_parquet(partition_on=…), threads",
    "pyarrow-read": "nothing is written: the limit",
}
_EXAMPLES = {
    "tfx-bsl": (
        "RecordBatchToExamplesEncoder and tf.io.TFRecordWriter, one thread",
        "https://www.tensorflow.org/tfx/tfx_bsl/api_docs/python/tfx_bsl/public/tfxio/RecordBatchToExamplesEncoder",
    ),
    "plain-examples": (
        "tf.train.Example and tf.io.TFRecordWriter, one thread",
        "https://www.tensorflow.org/tutorials/load_data/tfrecord",
    ),
    "ray-tfrecords": (
        "write_tfrecords",
        "https://docs.ray.io/en/latest/data/api/doc/ray.data.Dataset.write_tfrecords.html",
    ),
}
"""Converters to one Example a row, without groups: what they use, and its document."""
_SLOW = ("plain-examples", "ray-tfrecords")
"""Those whose rate is what counts, and who get fewer rows."""
_SOURCES: dict[str, Callable[[Path, Workload], None]] = {
    "source": lambda place, workload: data.write_source(
        place,
        workload.rows,
        columns=workload.columns,
        groups=workload.groups,
        files=workload.source_files,
    ),
    "mixed-source": lambda place, workload: mixed_rows.write_source(place, workload.rows),
    "skewed-source": lambda place, workload: data.write_skewed(place, workload.rows),
}
_WIDE_BYTES = data.stored_bytes(data.COLUMNS)
_COPIES = 3
"""Copies of a large source that the disk must have room for: itself, run files and shards."""
_CALLBACKS = {"without-callback": "plain fit", "with-callback": "tfstream.LineageCallback"}
_GROUPS = (1, 36, 365, 10_000, 1_000_000)
_WINDOWED = ("numpy", "saved-blocks")
"""Contenders whose windows are as large as tfstream's."""
SCRATCH = "scratch"
"""Folder, below that of all benchmarks, of what large jobs write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a job's table."""

    name: str
    rows: int
    """Rows that the contender has."""
    bytes_per_row: int
    """Bytes of a row for MB/s."""
    note: str
    """What its shuffle reaches, or what it does."""
    link: str | None = None
    """The document that its configuration follows."""


def entries(job: str, workload: Workload) -> tuple[Entry, ...]:
    """Those who take part in a job."""
    if job == "groups":
        return tuple(
            Entry(
                name=f"groups-{groups}",
                rows=workload.rows,
                bytes_per_row=_WIDE_BYTES,
                note=f"hash(id, {groups:,}), {workload.rows / groups:,.1f} rows a group",
            )
            for groups in _GROUPS
        )
    if job in CONVERSIONS:
        return tuple(_conversions(job, workload))
    if job in OWN:
        return tuple(
            Entry(name=name, rows=workload.rows, bytes_per_row=data.PACKED_BYTES, note=note)
            for name, note in cases.JOBS[job].cases.items()
        )
    if job == "callback":
        return tuple(
            Entry(name=name, rows=workload.rows, bytes_per_row=data.PACKED_BYTES, note=note)
            for name, note in _CALLBACKS.items()
        )
    found = contenders.contenders(workload)
    if job == "fit":  # No model gets an id, so the two limits are one.
        found = tuple(one for one in found if one.fits and one.name != "numpy-limit-id")
    return tuple(
        Entry(
            name=one.name,
            rows=one.rows,
            bytes_per_row=one.bytes_per_row if job == "read" else data.PACKED_BYTES,
            note=one.shuffle,
            link=one.link,
        )
        for one in found
    )


def _conversions(job: str, workload: Workload) -> Iterator[Entry]:
    """Those who take part in a job that converts."""
    if job in {"convert", "mixed"}:
        size = _WIDE_BYTES if job == "convert" else mixed_rows.ROW_BYTES
        for name, note in _CONVERTERS.items():
            yield Entry(name=name, rows=workload.rows, bytes_per_row=size, note=note)
        for name, (note, link) in _EXAMPLES.items():
            rows = min(workload.ray_rows, workload.rows) if name in _SLOW else workload.rows
            few = f"; only {rows:,} rows: its rate is what counts" if name in _SLOW else ""
            told = f"{note}, no groups{few}"
            yield Entry(name=name, rows=rows, bytes_per_row=size, note=told, link=link)
    elif job == "scale":
        for rows in workload.scale_rows:
            note = "does time grow with rows?"
            yield Entry(name=f"tfstream-{rows}", rows=rows, bytes_per_row=_WIDE_BYTES, note=note)
            note = _CONVERTERS["pyarrow-read"]
            name = f"pyarrow-read-{rows}"
            yield Entry(name=name, rows=rows, bytes_per_row=_WIDE_BYTES, note=note)
    else:
        yield Entry(
            name="tfstream-skewed",
            rows=-(-workload.large_bytes // data.SKEWED_ROW_BYTES),
            bytes_per_row=_WIDE_BYTES,
            note=f"{workload.large_bytes / workload.limit_bytes:.3g} times its limit of "
            f"{workload.limit_bytes / 2**30:.3g} GiB; half of the rows in one group",
        )


def task_of(base: Task, job: str, entry: Entry) -> Task:
    """What a child does for an entry; `base` lies in the folder of the workload's rows."""
    task = replace(base, action=job, contender=entry.name)
    root = base.folder.parent
    if job not in CONVERSIONS:
        return replace(task, python=environments.interpreter(root, entry.name) or task.python)
    large = job in LARGE
    own = entry.rows == base.workload.rows and not large
    return replace(
        task,
        folder=base.folder if own else folder_of(root / SCRATCH if large else root, entry.rows),
        workload=replace(base.workload, rows=entry.rows),
        python=environments.interpreter(root, entry.name) or task.python,
    )


def folder_of(root: Path, rows: int) -> Path:
    """The folder of so many rows."""
    return root / f"rows-{rows}-seed-{SEED}"


def do(task: Task) -> dict[str, Any]:
    """Do a task; this is what a child runs."""
    if task.action == "prepare":
        return _prepare(task)
    if task.workload.workers:  # Before TensorFlow is loaded, which counts its cores once.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: task.workload.workers])
    module, function = _FUNCTIONS[task.action]
    return getattr(importlib.import_module(module), function)(task)  # type: ignore[no-any-return]


def _prepare(task: Task) -> dict[str, Any]:
    """Write what a contender keeps on disk; tfstream tells its window."""
    if write := _SOURCES.get(task.contender):
        if task.folder.parent.name == SCRATCH:
            _check_space(task)
        data.keep(task.folder / task.contender, lambda place: write(place, task.workload))
        return {}
    contender = contenders.find(task.workload, task.contender)
    module = contender.load()
    place = task.folder / contender.layout
    if contender.layout == contenders.SHARDS:
        # Always anew: shards of another version of tfstream are not what is measured.
        shutil.rmtree(place, ignore_errors=True)
    data.keep(place, lambda draft: module.prepare(draft, task, contender))
    if contender.layout == contenders.SHARDS:
        cases = importlib.import_module("benchmarks.tfstream_cases")
        return {"window": cases.window_rows(place, task)}
    return {}


def _check_space(task: Task) -> None:
    task.folder.mkdir(parents=True, exist_ok=True)
    needed = _COPIES * task.workload.rows * data.SKEWED_ROW_BYTES
    free = shutil.disk_usage(task.folder).free
    if free < needed:
        raise OSError(
            f"{task.folder} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are needed; "
            "give another --folder, or ask for less"
        )


def prepare(base: Task, chosen: dict[str, list[Entry]]) -> Iterator[Outcome]:
    """Write, in children, whatever those who were chosen for each job read; the sources first."""
    # Those with figures of their own keep what they need by themselves.
    tasks = [
        task_of(base, job, entry)
        for job, found in chosen.items()
        for entry in found
        if job not in OWN
    ]
    sources = [(task.source, task) for task in tasks]
    if any(job not in (*CONVERSIONS, *OWN) for job in chosen):
        sources.append((base.source, base))
    for place, task in dict(sources).items():
        yield run_child(replace(task, action="prepare", contender=place.name, python=base.python))
    yield from _prepare_streams(base, tuple(chosen), {task.contender for task in tasks})


def _prepare_streams(base: Task, jobs: tuple[str, ...], wanted: set[str]) -> Iterator[Outcome]:
    if wanted & set(_CALLBACKS) and "callback" in jobs:
        wanted.add("tfstream-packed")
    if any(name.startswith(_WINDOWED) for name in wanted):
        wanted.add("tfstream-packed")  # Which tells its window to those who take the same.
    written: set[str] = set()
    for contender in contenders.contenders(base.workload):
        if contender.name in wanted and contender.layout not in written:
            written.add(contender.layout)
            python = environments.interpreter(base.folder.parent, contender.name) or base.python
            task = replace(base, action="prepare", contender=contender.name, python=python)
            yield run_child(task)
