"""tfstream beside its peers; exit code 1 if a contender failed or delivered wrong rows."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from benchmarks import (
    cases,
    comparing,
    curves,
    data,
    drawing,
    environments,
    jobs,
    report,
    runner,
    saved,
    turns,
)
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
_CURVES = {"rows": 650_000, "repeats": 1}
_CURVE_EXAMPLES = 650_000
"""Rows of the textbook pipeline on curves, at most: a million take minutes to write."""
_MIB = 2**20


def main(arguments: Sequence[str]) -> int:
    """Run a child's task, or all of it."""
    if arguments[:1] == ["child"]:
        runner.serve(jobs.do, arguments[1])
    if arguments[:1] == ["setup"]:
        return _set_up(arguments[1:])
    if arguments[:1] == ["report"]:
        return _report(arguments[1:])
    command = arguments[0] if arguments[:1] in (["compare"], ["curves"]) else None
    options = _parse(arguments[1:] if command else arguments, command)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    root = options.folder.resolve()
    run = {"compare": _compare, "curves": _curves, None: _run}[command]
    try:
        return run(options, root, console)
    finally:
        shutil.rmtree(root / jobs.SCRATCH, ignore_errors=True)


def _parse(arguments: Sequence[str], command: str | None) -> argparse.Namespace:
    prog = " ".join(filter(None, ("python -m benchmarks", command)))
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    if command == "compare":
        parser.add_argument("base", help="a commit")
    elif command == "curves":
        _add_curves(parser)
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
        type=_numbers,
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
    sizes = _SMALL if options.small else _FULL | (_CURVES if command == "curves" else {})
    for name, value in sizes.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    usual = ",".join(job for job in JOBS if job not in LARGE)
    options.jobs = tuple((options.jobs or ("parquet" if options.parquet else usual)).split(","))
    _check(parser, options)
    options.contenders = tuple(filter(None, options.contenders.split(",")))
    return options


def _add_curves(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", choices=["all", *curves.CURVES], help="what is varied, from 650,000 rows, once"
    )
    parser.add_argument(
        "--values",
        type=_numbers,
        help="others of this curve, like 65000000 rows, for which 30 GB of disk are needed",
    )


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with an error that tells which option is out of its bounds."""
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
    least = data.MIN_ROWS if getattr(options, "name", "") == "rows" else 1
    if getattr(options, "name", "") == "all" and options.values:
        parser.error("--values: of which curve?")
    if not all(least <= value <= data.MAX_ROWS for value in getattr(options, "values", None) or ()):
        parser.error(f"--values: from {least:,} to {data.MAX_ROWS:,}")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


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
    """Draw what was saved, and print the README's table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks report", description=_report.__doc__
    )
    parser.add_argument("results", type=Path, nargs="?", default=report.RESULTS)
    parser.add_argument("--out", type=Path, help="folder of the pictures (default: results)")
    parser.add_argument(
        "--readme", action="store_true", help="write picture and table into README.md, too"
    )
    options = parser.parse_args(arguments)
    out = options.out or options.results
    lines = saved.lines_of(options.results)
    paths = drawing.draw(lines, out)
    readme = runner.ROOT / "README.md"
    text = saved.section(lines, Path(os.path.relpath(out, readme.parent)).as_posix())
    if options.readme and text:
        saved.into_readme(readme, text)
    console = Console(soft_wrap=True)
    console.print(text or "no measurement of job read is saved", markup=False)
    for path in paths:
        console.print(str(path), markup=False)
    return 0 if paths else 1


def _curves(options: argparse.Namespace, root: Path, console: Console) -> int:
    """Measure scaling curves, each saved when it is done; exit code 1 if a child failed."""
    base = replace(_workload(options), examples=_CURVE_EXAMPLES)
    where = report.machine()
    report.show_conditions(console, base, where)
    session = curves.Session(root, repeats=options.repeats, prefixes=options.contenders or ("",))
    codes = []
    for name in curves.CURVES if options.name == "all" else (options.name,):
        curve = curves.CURVES[name]
        values = options.values or (curve.small if options.small else curve.values)
        codes.append(
            _end(curves.measure(name, base, values, session, console), where, options, console)
        )
    return max(codes)


def _compare(options: argparse.Namespace, root: Path, console: Console) -> int:
    """Print ratios of this tree to another commit; exit code 1 if a child failed, 2 if git did."""
    chosen = [job for job in options.jobs if job in comparing.JOBS]
    workload = _workload(options)
    folder = jobs.folder_of(root, workload.rows)
    task = Task(action="prepare", contender="source", folder=folder, workload=workload)
    try:
        with comparing.checkout(options.base) as place:
            outcomes = comparing.compare(task, place, chosen, options.repeats, console)
    except subprocess.CalledProcessError as error:  # What git said of it is on stderr.
        console.print(f"compare {options.base}: {error}", markup=False, soft_wrap=True)
        return 2
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

    base, outcomes = turns.prepare(base, chosen, console)
    for job, entries in chosen.items():
        console.print()
        measured = turns.measure(base, job, entries, options.repeats, console)
        outcomes += measured
        # The notes tell the window, which is known only now.
        now = {entry.name: entry for entry in jobs.entries(job, base.workload)}
        show = report.show_figures if job in OWN else report.show_job
        show(console, job, [now[entry.name] for entry in entries], measured)
    return _end(outcomes, where, options, console)


def _end(
    outcomes: Sequence[runner.Outcome],
    where: dict[str, Any],
    options: argparse.Namespace,
    console: Console,
) -> int:
    """Save what was measured, if asked to; exit code 1 if a child failed."""
    if options.save:
        console.print(f"saved to {report.save(outcomes, where)}", soft_wrap=True)
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
