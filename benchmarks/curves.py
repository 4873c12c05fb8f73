"""`curves`: how rates and memory change with rows, columns, batch, groups, files and workers."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.table import Table

from benchmarks import data, jobs, turns
from benchmarks.workload import SEED, Task, Workload

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

    from benchmarks.jobs import Entry
    from benchmarks.runner import Outcome

_MINUTE_S = 60.0
_FILE_A_ROW = 65_000
"""Files of the one-file-per-observation Sequence, but on the curve of rows: there, all rows."""
_MANY_ROWS = 10_000_000
"""With more, those who have no gain from it are left out: the disk would not hold all."""
_OF_MANY_ROWS = ("tfstream-packed", "numpy-limit")
_EVERYONE = (*_OF_MANY_ROWS, "textbook-packed", "dask-groups", "npy-w1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What is varied, and who is measured at each of its values."""

    field: str
    """Of the workload."""
    values: tuple[int, ...]
    small: tuple[int, ...]
    """Values for a test."""
    kinds: tuple[str, ...] = _EVERYONE
    """Names of contenders, without their rows."""
    job: str = "read"


CURVES: Mapping[str, Curve] = {
    "rows": Curve(field="rows", values=(65_000, 650_000, 6_500_000), small=(1_000, 3_000)),
    "columns": Curve(field="columns", values=(8, 32, 128, 512), small=(8, 64)),
    "batch": Curve(field="batch", values=(128, 1_024, 8_192, 65_536), small=(64, 256)),
    "workers": Curve(
        field="workers",
        values=(1, 2),
        small=(1, 2),
        kinds=(*_EVERYONE, "npy-w2-threads", "npy-w2-processes"),
    ),
    "groups": Curve(
        field="groups",
        values=(1, 36, 365, 10_000, 100_000),
        small=(1, 400),
        kinds=("tfstream-packed", "numpy-limit", "dask-groups"),
    ),
    "files": Curve(
        field="source_files",
        values=(1, 8, 64, 512),
        small=(1, 16),
        kinds=("tfstream-convert", "pyarrow-hive-buffered", "pyarrow-read"),
        job="convert",
    ),
}
"""By name. Each number of columns has as many bytes; `files` are those that a conversion reads."""


def kind_of(contender: str) -> str:
    """A contender's name without its rows."""
    return re.sub(r"^npy-\d+", "npy", contender)


def rate_of(fields: Mapping[str, Any]) -> float:
    """Rows/s over whole epochs, their starts included, of a measurement; else those it has.

    Where all rows fit into one window they are there before the first batch, and a rate from there
    on would tell nothing.
    """
    return float(fields.get("whole_rows_per_s") or fields["rows_per_s"])


def points(name: str, base: Workload, values: Sequence[int]) -> Iterator[Workload]:
    """What is run at each point of a curve."""
    for value in values:
        changed: dict[str, Any] = {CURVES[name].field: value, "curve": name}
        if name == "columns":
            changed["rows"] = max(data.MIN_ROWS, base.rows * data.COLUMNS // value)
        rows = changed.get("rows", base.rows)
        changed["files"] = (rows if name == "rows" else min(rows, _FILE_A_ROW),)
        yield replace(base, **changed)


def measure(
    name: str, base: Workload, values: Sequence[int], session: Session, console: Console
) -> list[Outcome]:
    """Measure a curve, point after point, and print it; what was measured, and what failed."""
    curve, outcomes, rates = CURVES[name], [], dict[str, float]()
    for value, workload in zip(values, points(name, base, values), strict=True):
        console.print(f"{name} {value:,}", markup=False)
        entries = [
            entry
            for entry in taking_part(name, workload)
            if entry.name.startswith(session.prefixes)
            and _is_drawn(entry, workload, rates, console)
        ]
        task = Task(
            action="prepare", contender="source", folder=session.folder(workload), workload=workload
        )
        task, failed = turns.prepare(task, {curve.job: entries}, console)
        found = turns.measure(task, curve.job, entries, session.repeats, console)
        for entry in entries:
            good = [one for one in found if one.task.contender == entry.name and not one.problems]
            if good:
                rates[kind_of(entry.name)] = median(rate_of(one.fields) for one in good)
        outcomes += [*failed, *found]
    console.print(_table(name, values, outcomes))
    return outcomes


class Session:
    """What all curves of a command share: whom to measure, how often, and where the data lie.

    That is one number of rows, columns, groups and files at a time; points that share it follow
    each other.
    """

    def __init__(self, root: Path, *, repeats: int, prefixes: tuple[str, ...]) -> None:
        """Below a folder; measurements of each contender; how names of contenders begin."""
        self._root = root
        self._last: Path | None = None
        self.repeats = repeats
        self.prefixes = prefixes

    def folder(self, workload: Workload) -> Path:
        """The folder of a point; that of another kind of data is removed."""
        shape = f"{workload.rows}-{workload.columns}-{workload.groups}-{workload.source_files}"
        found = self._root / jobs.SCRATCH / f"curve-{shape}-seed-{SEED}"
        if self._last and self._last != found:
            shutil.rmtree(self._last, ignore_errors=True)
        self._last = found
        return found


def taking_part(name: str, workload: Workload) -> list[Entry]:
    """Those who are measured at a point of a curve, unless they are too slow."""
    curve = CURVES[name]
    return [
        entry
        for entry in jobs.entries(curve.job, workload)
        if _takes_part(curve, kind_of(entry.name), workload)
    ]


def _takes_part(curve: Curve, kind: str, workload: Workload) -> bool:
    if kind.startswith("npy-w") and workload.workers:
        return kind in curve.kinds and int(kind[len("npy-w")]) == workload.workers
    return kind in curve.kinds and (workload.rows <= _MANY_ROWS or kind in _OF_MANY_ROWS)


def _is_drawn(
    entry: Entry, workload: Workload, rates: Mapping[str, float], console: Console
) -> bool:
    """Whether an entry is measured at a point, by its rate at the one before; if not, say so."""
    why = None
    rate = rates.get(kind_of(entry.name))
    if rate and entry.rows / rate > _MINUTE_S:
        why = f"an epoch would take {entry.rows / rate:,.0f} s at its rate at the point before"
    elif workload.curve == "rows" and entry.rows < workload.rows:
        why = f"it has {entry.rows:,} rows only"
    if why:
        console.print(f"{entry.name}: not drawn, {why}", markup=False)
    return why is None


def _table(name: str, values: Sequence[int], outcomes: Sequence[Outcome]) -> Table:
    """M rows/s of each contender at each value, medians."""
    curve = CURVES[name]
    found: dict[str, dict[int, list[float]]] = {}
    for one in outcomes:
        if one.task.action == curve.job and not one.problems:
            of_kind = found.setdefault(kind_of(one.task.contender), {})
            value = getattr(one.task.workload, curve.field)
            of_kind.setdefault(value, []).append(rate_of(one.fields))
    over = " over whole epochs" if curve.job == "read" else ""
    table = Table(title=f"{name}: M rows/s{over}, medians", title_justify="left")
    table.add_column("contender", no_wrap=True)
    for value in values:
        table.add_column(f"{value:,}", justify="right", no_wrap=True)
    for kind, rates in found.items():
        cells = [f"{median(rates[value]) / 1e6:.4f}" if value in rates else "-" for value in values]
        table.add_row(kind, *cells)
    return table
