"""What a person reads: one table a job; and what a program reads: a JSON line a measurement."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import psutil
from rich.table import Table

from benchmarks import cases, environments, jobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from benchmarks.jobs import Entry
    from benchmarks.runner import Outcome
    from benchmarks.workload import Workload

_REFERENCES = {
    "read": ("tfstream-packed", "tfstream-dict"),
    "fit": ("tfstream-packed", "tfstream-dict"),
    "convert": ("tfstream-convert", "pyarrow-read"),
    "mixed": ("tfstream-convert", "pyarrow-read"),
    "scale": (),
    "bounded": (),
    "callback": (),
    "groups": (),
}
_CAPTIONS = {
    "read": "M rows/s and ratios: after the first batch of an epoch, so that windows read ahead of "
    "it count for nothing; with start: over whole epochs, where they count. MB/s: bytes delivered, "
    "129 a row (32 float32, int8 label), 137 with the int64 id. Peak MB holds up to 13 bytes a row "
    "of the delivery check.",
    "fit": "M rows/s, ratios and start as in read. Two Dense(64, relu) and a sigmoid, adam; "
    "features and label only, 129 bytes a row.",
    "convert": "145 bytes a row: 32 float32, int64 id, int8 label, int32 month and day.",
    "mixed": "About 480 bytes a row: 13 int64 with nulls, 26 categories of 40 to 5,000 strings, 2 "
    "strings, timestamp, label; groups of the first category.",
    "scale": "145 bytes a row, as in convert. A source and its output are removed afterwards.",
    "bounded": "145 bytes a row, as in convert. RLIMIT_DATA holds the process to the limit; its "
    "resident memory with that of its children is checked against it, too.",
    "callback": "Whole epochs after the first, their starts included.",
    "groups": "The source of convert. CPU s / M: seconds of all threads for a million rows.",
}
_STREAMING = ("read", "fit")
"""Jobs whose epochs are started again and again."""
_PER_MILLION = ("scale", "bounded")
"""Jobs that say how long a million rows take."""
_MEGA = 1e6
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What the measurements of one contender come to: medians over its repeats."""

    entry: Entry
    rows_per_s: float
    """Steady, where the job starts epochs."""
    whole_rows_per_s: float | None
    """Over whole epochs, their starts included."""
    start_s: float | None
    """From the last batch of an epoch to the first of the next."""
    slowest: float
    fastest: float
    cpu_s_per_million: float | None
    """Seconds of all threads for a million rows."""
    peak_bytes: float
    quality: float | None
    whole: bool
    """Whether every repeat saw at least one whole epoch."""


def summarize(entry: Entry, outcomes: Sequence[Outcome]) -> Line | None:
    """The line of a contender; None if no measurement of it counts."""
    good = [one for one in outcomes if one.task.contender == entry.name and not one.problems]
    if not good:
        return None
    rates = [one.fields["rows_per_s"] for one in good]
    return Line(
        entry=entry,
        rows_per_s=median(rates),
        whole_rows_per_s=_median_of("whole_rows_per_s", good),
        start_s=_median_of("start_s", good),
        slowest=min(rates),
        fastest=max(rates),
        cpu_s_per_million=_median_of("cpu_s_per_million", good),
        peak_bytes=median(one.peak_bytes for one in good),
        quality=_median_of("quality", good),
        whole=all(one.fields["whole_epoch"] for one in good),
    )


def _median_of(field: str, outcomes: Sequence[Outcome]) -> float | None:
    """The median of a field over those that have it."""
    values = [one.fields[field] for one in outcomes if one.fields.get(field) is not None]
    return median(values) if values else None


def machine() -> dict[str, Any]:
    """Where it ran, and with what."""
    return {
        "system": platform.platform(terse=True),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "versions": environments.versions(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def show_conditions(console: Console, workload: Workload, where: dict[str, Any]) -> None:
    """Say what every figure below rests on."""
    console.print(
        f"{workload.rows:,} rows: 32 float32, int64 id, int8 label, 365 groups; "
        f"batches of {workload.batch:,}; warm page cache"
    )
    console.print(
        f"{where['processor']}, {where['cores']} cores, {where['memory_gib']} GiB, "
        f"{where['system']}"
    )
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    console.print(f"Python {where['python']}, {versions}")


def show_job(
    console: Console, job: str, entries: Sequence[Entry], outcomes: Sequence[Outcome]
) -> None:
    """Print the table of a job, and why a contender has no line."""
    lines = {entry.name: summarize(entry, outcomes) for entry in entries}
    references = [(name, lines.get(name)) for name in _REFERENCES[job] if lines.get(name)]
    table = Table(title=f"{job}: medians, in turn", caption=_CAPTIONS[job], title_justify="left")
    table.add_column("contender", no_wrap=True)
    starts = ("with start", "start s") if job in _STREAMING else ()
    cpu = ("CPU s / M",) if job in {"convert", "mixed", "scale", "groups"} else ()
    per_million = ("s / M rows",) if job in _PER_MILLION else ()
    own = (*starts, *cpu, *per_million)
    for header in ("rows", "M rows/s", "from - to", *own, "MB/s", "peak MB"):
        table.add_column(header, justify="right", no_wrap=True)
    for name, _ in references:
        table.add_column(f"{name.removeprefix('tfstream-')} / it", justify="right", no_wrap=True)
    if job == "read":
        table.add_column("quality", justify="right", no_wrap=True)
    table.add_column("shuffles" if job in _STREAMING else "what", overflow="fold")
    for line in filter(None, lines.values()):
        ratios = [f"{other.rows_per_s / line.rows_per_s:.2f}" for _, other in references if other]
        quality = [_or_dash(line.quality, 2)] if job == "read" else []
        part = "" if line.whole else "; part of an epoch"
        table.add_row(
            *_figures(line, starts=bool(starts), cpu=bool(cpu), per_million=bool(per_million)),
            *ratios,
            *quality,
            line.entry.note + part,
        )
    console.print(table)
    for entry in entries:
        if entry.link and lines[entry.name]:
            console.print(f"{entry.name}: {entry.link}", soft_wrap=True, markup=False)
    if job == "callback":
        _show_cost(console, lines.get("without-callback"), lines.get("with-callback"))
    for outcome in outcomes:
        for problem in outcome.problems:
            console.print(f"{job} {outcome.task.contender}: {problem}", markup=False)


def show_figures(
    console: Console, job: str, entries: Sequence[Entry], outcomes: Sequence[Outcome]
) -> None:
    """Print the table of a job with figures of its own, and what they come to."""
    medians: dict[str, dict[str, float]] = {}
    for entry in entries:
        good = [o for o in outcomes if o.task.contender == entry.name and not o.problems]
        if good:
            names = good[0].fields["figures"]
            medians[entry.name] = {
                name: median(one.fields["figures"][name] for one in good) for name in names
            }
    described = cases.JOBS[job]
    columns = list(dict.fromkeys(name for found in medians.values() for name in found))
    table = Table(title=f"{job}: medians, in turn", caption=described.caption, title_justify="left")
    table.add_column("case", no_wrap=True)
    for name in (*columns, "peak MB"):
        table.add_column(name, justify="right")
    table.add_column("what", overflow="fold")
    for name, found in medians.items():
        cells = [f"{found[column]:,.4g}" if column in found else "-" for column in columns]
        peak = median(one.peak_bytes for one in outcomes if one.task.contender == name)
        table.add_row(name, *cells, f"{peak / _MEGA:,.0f}", described.cases[name])
    console.print(table)
    for sentence in described.sayings(medians):
        console.print(sentence, markup=False)
    for outcome in outcomes:
        for problem in outcome.problems:
            console.print(f"{job} {outcome.task.contender}: {problem}", markup=False)


def _or_dash(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _figures(line: Line, *, starts: bool, cpu: bool, per_million: bool) -> list[str]:
    whole = None if line.whole_rows_per_s is None else line.whole_rows_per_s / _MEGA
    return [
        line.entry.name,
        f"{line.entry.rows:,}",
        f"{line.rows_per_s / _MEGA:.4f}",
        f"{line.slowest / _MEGA:.3f} - {line.fastest / _MEGA:.3f}",
        *([_or_dash(whole, 4), _or_dash(line.start_s, 2)] if starts else []),
        *([_or_dash(line.cpu_s_per_million, 2)] if cpu else []),
        *([f"{_MEGA / line.rows_per_s:.2f}"] if per_million else []),
        f"{line.rows_per_s * line.entry.bytes_per_row / _MEGA:,.1f}",
        f"{line.peak_bytes / _MEGA:,.0f}",
    ]


def _show_cost(console: Console, without: Line | None, with_: Line | None) -> None:
    if without and with_:
        percent = (without.rows_per_s / with_.rows_per_s - 1) * 100
        console.print(f"LineageCallback: {percent:+.1f} % time a row, by the medians")


def _entry_of(outcome: Outcome) -> Entry | None:
    """The entry that was measured; None if it only prepared."""
    task = outcome.task
    if task.action == "prepare":
        return None
    found = jobs.entries(task.action, task.workload)
    return next(entry for entry in found if entry.name == task.contender)


def save(outcomes: Sequence[Outcome], where: dict[str, Any]) -> Path:
    """Append a JSON line a measurement to today's file."""
    now = dt.datetime.now(dt.timezone.utc)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{now.date().isoformat()}.jsonl"
    with path.open("a", encoding="utf-8") as file:
        for one in outcomes:
            entry = _entry_of(one)
            rows = one.fields.get("timed_rows")
            record = {
                "time": now.isoformat(timespec="seconds"),
                "job": one.task.action,
                "contender": one.task.contender,
                "shuffle": entry.note if entry else None,
                "bytes": rows * entry.bytes_per_row if entry and rows else None,
                "cpu_s": one.cpu_s,
                "peak_bytes": one.peak_bytes,
                "error": one.error,
                **one.fields,
                "workload": asdict(one.task.workload)
                | {"parquet": Path(one.task.workload.parquet).name},
                "machine": where,
            }
            file.write(json.dumps(record) + "\n")
    return path
