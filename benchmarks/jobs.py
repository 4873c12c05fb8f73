"""The jobs: which contenders each has, what must be prepared, and what a child does for it."""

from __future__ import annotations

import importlib
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from benchmarks import contenders, data
from benchmarks.runner import Outcome, run_child

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.workload import Task, Workload

_FUNCTIONS = {
    "read": ("benchmarks.reading", "run"),
    "fit": ("benchmarks.fitting", "run_fit"),
    "convert": ("benchmarks.converting", "run"),
    "callback": ("benchmarks.fitting", "run_callback"),
    "groups": ("benchmarks.many_groups", "run"),
}
_CONVERTERS = {
    "tfstream-convert": "TFRecord shards of blocks, provenance, hashes",
    "pyarrow-hive": "write_dataset, a folder per month and day",
    "pyarrow-read": "nothing is written: the limit",
}
_CALLBACKS = {"without-callback": "plain fit", "with-callback": "tfstream.LineageCallback"}
_GROUPS = (1, 36, 365, 10_000, 1_000_000)
_TFSTREAM = "tfstream"


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


def entries(job: str, workload: Workload) -> tuple[Entry, ...]:
    """Those who take part in a job."""
    size = data.PACKED_BYTES + data.ID_BYTES + data.KEY_BYTES
    if job == "groups":
        return tuple(
            Entry(
                name=f"groups-{groups}",
                rows=workload.rows,
                bytes_per_row=size,
                note=f"hash(id, {groups:,}), {workload.rows / groups:,.1f} rows a group",
            )
            for groups in _GROUPS
        )
    if job == "convert":
        return tuple(
            Entry(name=name, rows=workload.rows, bytes_per_row=size, note=note)
            for name, note in _CONVERTERS.items()
        )
    if job == "callback":
        return tuple(
            Entry(name=name, rows=workload.rows, bytes_per_row=data.PACKED_BYTES, note=note)
            for name, note in _CALLBACKS.items()
        )
    found = contenders.contenders(workload)
    if job == "fit":  # No model gets an id, so the two limits are one.
        found = tuple(one for one in found if one.name != "numpy-limit-id")
    return tuple(
        Entry(
            name=one.name,
            rows=one.rows,
            bytes_per_row=one.bytes_per_row if job == "read" else data.PACKED_BYTES,
            note=one.shuffle,
        )
        for one in found
    )


def do(task: Task) -> dict[str, Any]:
    """Do a task; this is what a child runs."""
    if task.action == "prepare":
        return _prepare(task)
    module, function = _FUNCTIONS[task.action]
    return getattr(importlib.import_module(module), function)(task)  # type: ignore[no-any-return]


def _prepare(task: Task) -> dict[str, Any]:
    """Write what a contender keeps on disk; tfstream tells its window."""
    if task.contender == "source":
        data.keep(task.source, lambda place: data.write_source(place, task.workload.rows))
        return {}
    contender = contenders.find(task.workload, task.contender)
    module = contender.load()
    place = task.folder / contender.layout
    if contender.name.startswith(_TFSTREAM):
        # Always anew: shards of another version of tfstream are not what is measured.
        shutil.rmtree(place, ignore_errors=True)
    data.keep(place, lambda draft: module.prepare(draft, task, contender))
    if contender.name.startswith(_TFSTREAM):
        cases = importlib.import_module("benchmarks.tfstream_cases")
        return {"window": cases.window_rows(place, task)}
    return {}


def prepare(base: Task, jobs: tuple[str, ...], names: tuple[str, ...]) -> Iterator[Outcome]:
    """Write, in children, whatever the contenders of `names` read; the source first."""
    yield run_child(replace(base, action="prepare", contender="source"))
    wanted = set(names)
    if wanted & set(_CALLBACKS) and "callback" in jobs:
        wanted.add("tfstream-packed")
    written: set[str] = set()
    for contender in contenders.contenders(base.workload):
        if contender.name in wanted and contender.layout not in written:
            written.add(contender.layout)
            yield run_child(replace(base, action="prepare", contender=contender.name))
