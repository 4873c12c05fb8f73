"""tfstream beside its peers; exit code 1 if a contender failed or delivered wrong rows."""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from benchmarks import cases, comparing, data, drawing, environments, jobs, report, runner
from benchmarks.workload import (
    JOBS,
    LARGE,
    OWN,
    UNKNOWN_WINDOW,
    Task,
    Workload,
    parquet_files,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH = 170
_FULL = {
    "rows": 4_000_000,
    "batch": 1_024,
    "repeats": 3,
    "ray_rows": 100_000,
    "scale_rows": (1_000_000, 4_000_000, 16_000_000),
    "large_mib": 16_384,
}
_SMALL = {
    "rows": 5_000,
    "batch": 256,
    "repeats": 1,
    "ray_rows": 500,
    "scale_rows": (1_000, 4_000),
    "large_mib": 4,
}
_MIB = 2**20


def main(arguments: Sequence[str]) -> int:
    """Run a child's task, or all of it."""
    if arguments[:1] == ["child"]:
        runner.serve(jobs.do, arguments[1])
    if arguments[:1] == ["setup"]:
        return _set_up(arguments[1:])
    if arguments[:1] == ["report"]:
        return _report(arguments[1:])
    base = None
    if arguments[:1] == ["compare"]:
        base, *arguments = arguments[1:] or [""]
    options = _parse(arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    root = options.folder.resolve()
    try:
        if base is not None:
            return _compare(base, options, root, console)
        return _run(options, root, console)
    finally:
        shutil.rmtree(root / jobs.SCRATCH, ignore_errors=True)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", type=int, help="rows of the source (default 4,000,000)")
    parser.add_argument("--batch", type=int, help="rows of a batch (default 1,024)")
    parser.add_argument("--repeats", type=int, help="measurements of each contender (default 3)")
    parser.add_argument(
        "--jobs",
        help=f"some of {', '.join(JOBS)} (default all but {', '.join(LARGE)})",
    )
    parser.add_argument(
        "--parquet", type=Path, help="your own file, or folder of .parquet files: job parquet"
    )
    parser.add_argument("--label", help="a column of it")
    parser.add_argument(
        "--group-by", nargs="+", default=(), help="columns of it, or expressions (default a hash)"
    )
    parser.add_argument(
        "--ray-rows", type=int, help="rows for Ray Data and plain Examples (default 100,000)"
    )
    parser.add_argument(
        "--scale-rows",
        type=lambda text: tuple(map(int, text.split(","))),
        help="rows of job scale (default 1000000,4000000,16000000)",
    )
    parser.add_argument(
        "--limit-mib", type=int, default=2_048, help="memory for job bounded (default 2,048)"
    )
    parser.add_argument("--large-mib", type=int, help="source of job bounded (default 16,384)")
    parser.add_argument(
        "--contenders", default="", help="only those whose name begins so; several by commas"
    )
    parser.add_argument(
        "--small",
        action="store_true",
        help="5,000 rows, batches of 256, one repeat: asserts delivery, its figures mean nothing",
    )
    _add_folder(parser)
    parser.add_argument(
        "--bound", type=float, default=20.0, help="seconds of a measurement, at most (default 20)"
    )
    parser.add_argument(
        "--save", action="store_true", help="append to benchmarks/results/<date>.jsonl"
    )
    options = parser.parse_args(arguments)
    for name, value in (_SMALL if options.small else _FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    usual = ",".join(job for job in JOBS if job not in LARGE)
    options.jobs = tuple((options.jobs or ("parquet" if options.parquet else usual)).split(","))
    if unknown := set(options.jobs) - set(JOBS):
        parser.error(f"--jobs: {', '.join(sorted(unknown))} is none of {', '.join(JOBS)}")
    if ("parquet" in options.jobs) != bool(options.parquet):
        parser.error("--parquet PATH and job parquet go together")
    files = parquet_files(str(options.parquet)) if options.parquet else []
    if options.parquet and not (files and all(Path(file).is_file() for file in files)):
        parser.error(f"--parquet: {options.parquet} is no file, and no folder of .parquet files")
    if not data.MIN_ROWS <= options.rows <= data.ID_SCALE:
        parser.error(f"--rows must lie between {data.MIN_ROWS} and {int(data.ID_SCALE):,}")
    for name in ("batch", "repeats", "ray_rows", "limit_mib", "large_mib"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if not all(data.MIN_ROWS <= rows <= data.ID_SCALE for rows in options.scale_rows):
        parser.error(f"--scale-rows: from {data.MIN_ROWS} to {int(data.ID_SCALE):,}")
    options.contenders = tuple(filter(None, options.contenders.split(",")))
    return options


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()) / "tfstream-benchmarks",
        help="where data and environments lie, kept for the next time (default %(default)s)",
    )


def _set_up(arguments: Sequence[str]) -> int:
    """Install contenders into environments of their own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks setup", description=_set_up.__doc__)
    parser.add_argument("contenders", nargs="+", choices=sorted(environments.REQUIREMENTS))
    _add_folder(parser)
    options = parser.parse_args(arguments)
    failed = False
    for name in options.contenders:
        if why := environments.set_up(options.folder.resolve(), name):
            sys.stderr.write(f"{name} cannot be installed here: {why}\n")
            failed = True
    return 1 if failed else 0


def _report(arguments: Sequence[str]) -> int:
    """Draw what was saved, and print the tables of the README."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks report", description=_report.__doc__
    )
    parser.add_argument("results", type=Path, nargs="?", default=report.RESULTS)
    parser.add_argument("--out", type=Path, help="folder of the pictures (default: results)")
    options = parser.parse_args(arguments)
    text, paths = drawing.report(options.results, options.out or options.results)
    console = Console(soft_wrap=True)
    console.print(text, markup=False)
    for path in paths:
        console.print(str(path), markup=False)
    return 0 if paths else 1


def _compare(commit: str, options: argparse.Namespace, root: Path, console: Console) -> int:
    """Print ratios of this tree to another commit; exit code 1 if a child failed."""
    chosen = [job for job in options.jobs if job in comparing.JOBS]
    workload = _workload(options)
    folder = jobs.folder_of(root, workload.rows)
    task = Task(action="prepare", contender="source", folder=folder, workload=workload)
    with comparing.checkout(commit) as place:
        outcomes = comparing.compare(task, place, chosen, options.repeats, console)
    return 1 if any(one.problems for one in outcomes) else 0


def _workload(options: argparse.Namespace) -> Workload:
    small = options.small
    return Workload(
        rows=options.rows,
        batch=options.batch,
        files=(500, 1_000) if small else (65_000, 650_000),
        examples=2_000 if small else 400_000,
        buffer=1_000 if small else 100_000,
        window=UNKNOWN_WINDOW,
        floor_s=0.0 if small else 3.0,
        bound_s=options.bound,
        ray_rows=options.ray_rows,
        scale_rows=options.scale_rows,
        limit_bytes=options.limit_mib * _MIB,
        large_bytes=options.large_mib * _MIB,
        parquet=str(options.parquet.resolve()) if options.parquet else "",
        label=options.label,
        group_by=tuple(options.group_by),
    )


def _run(options: argparse.Namespace, root: Path, console: Console) -> int:
    workload = _workload(options)
    folder = jobs.folder_of(root, workload.rows)
    base = Task(action="prepare", contender="source", folder=folder, workload=workload)
    chosen = {job: _chosen(job, workload, options.contenders) for job in options.jobs}
    chosen = {job: entries for job, entries in chosen.items() if entries}
    if not chosen:
        console.print(f"no contender of {', '.join(options.jobs)} is named so")
        return 2
    where = report.machine()
    report.show_conditions(console, workload, where)
    console.print(f"data: {folder}", soft_wrap=True)
    if "parquet" in chosen:
        console.print(f"job parquet: {workload.parquet}", soft_wrap=True, markup=False)
    for job, entries in chosen.items():
        chosen[job] = [one for one in entries if _is_installed(root, job, one, console)]

    outcomes: list[runner.Outcome] = []
    for prepared in jobs.prepare(base, chosen):
        contender = prepared.task.contender
        console.print(
            f"prepared {contender}, {prepared.task.workload.rows:,} rows",
            prepared.error or "",
            markup=False,
        )
        if prepared.error:
            outcomes.append(prepared)
        if "window" in prepared.fields:
            base = replace(base, workload=replace(workload, window=prepared.fields["window"]))

    for job, entries in chosen.items():
        console.print()
        measured = list(_in_turn(base, job, entries, options.repeats, console))
        outcomes += measured
        # The notes tell the window, which is known only now.
        now = {entry.name: entry for entry in jobs.entries(job, base.workload)}
        show = report.show_figures if job in OWN else report.show_job
        show(console, job, [now[entry.name] for entry in entries], measured)
    if options.save:
        console.print(f"saved to {report.save(outcomes, base.workload, where)}", soft_wrap=True)
    failed = [one for one in outcomes if one.problems]
    console.print(
        f"{len(outcomes) - len(failed)} of {len(outcomes)} children delivered what they should"
    )
    return 1 if failed else 0


def _chosen(job: str, workload: Workload, prefixes: tuple[str, ...]) -> list[jobs.Entry]:
    return [
        entry
        for entry in jobs.entries(job, workload)
        if not prefixes or entry.name.startswith(prefixes)
    ]


def _is_installed(root: Path, job: str, entry: jobs.Entry, console: Console) -> bool:
    """Whether a contender's environment, or a case's module, is there; if not, say why."""
    module = cases.JOBS[job].modules.get(entry.name) if job in OWN else None
    if module and importlib.util.find_spec(module) is None:
        console.print(f"{job} {entry.name}: skipped, there is no {module} in this environment")
        return False
    name = environments.name_of(entry.name)
    if name is None or environments.interpreter(root, entry.name) is not None:
        return True
    why = environments.why_not(root, name)
    how = f"python -m benchmarks setup {name} --folder {root}"
    said = f"cannot be installed here: {why}" if why else f"not installed; {how}"
    console.print(f"{job} {entry.name}: skipped, {said}", soft_wrap=True, markup=False)
    return False


def _in_turn(
    base: Task, job: str, entries: Sequence[jobs.Entry], repeats: int, console: Console
) -> list[runner.Outcome]:
    """Measure A B C, A B C, …, so that a slow minute of the machine meets all of them."""
    outcomes = []
    for repeat in range(1, repeats + 1):
        for entry in entries:
            outcome = runner.run_child(jobs.task_of(base, job, entry))
            said = "; ".join(outcome.problems) or _said(outcome.fields)
            console.print(f"{job} {repeat}/{repeats} {entry.name}: {said}", markup=False)
            outcomes.append(outcome)
    return outcomes


def _said(fields: dict[str, Any]) -> str:
    if figures := fields.get("figures"):
        return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
    return f"{fields['rows_per_s'] / 1e6:.4f} M rows/s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
