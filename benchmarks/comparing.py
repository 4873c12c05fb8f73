"""`compare BASE`: tfstream of another commit and of this tree, in turn, by the same benchmarks."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import jobs, runner

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from benchmarks.workload import Task

JOBS = ("read", "fit", "convert")
"""Jobs in which tfstream has a rate."""


@contextmanager
def checkout(base: str) -> Iterator[Path]:
    """A git worktree of a commit with the benchmarks of this tree, removed afterwards.

    Raises:
        subprocess.CalledProcessError: git knows no such commit.
    """
    with tempfile.TemporaryDirectory(prefix="tfstream-base-") as scratch:
        place = Path(scratch) / "base"
        git = ("git", "-C", str(runner.ROOT), "worktree")
        subprocess.run([*git, "add", "--quiet", "--detach", str(place), base], check=True)
        try:
            # Or the figures would differ by what the benchmarks changed in between.
            shutil.rmtree(place / "benchmarks", ignore_errors=True)
            shutil.copytree(
                runner.ROOT / "benchmarks",
                place / "benchmarks",
                ignore=shutil.ignore_patterns("results", "__pycache__"),
            )
            yield place
        finally:
            subprocess.run([*git, "remove", "--force", str(place)], check=True)


def compare(
    base: Task, other: Path, chosen: Sequence[str], repeats: int, console: Console
) -> list[runner.Outcome]:
    """Measure tfstream's contenders of the jobs in both trees, in turn, and print the ratios.

    Args:
        base: the task that others are made of.
        other: the root of the other commit.
        chosen: some of `JOBS`.
        repeats: pairs of measurements of each contender, at least 1.
        console: where ratios go, this tree over the other: above 1, this one is faster.
    """
    root = base.folder.parent
    sides = {
        "base": _on_side(base, root / "compare" / "base", other),
        "this": _on_side(base, root / "compare" / "this", runner.ROOT),
    }
    entries = {job: _of_tfstream(job, base) for job in chosen}
    outcomes = []
    for task in sides.values():
        prepared = list(jobs.prepare(task, entries))
        outcomes += [one for one in prepared if one.error]
    for job, found in entries.items():
        for entry in found:
            pairs = []
            for _ in range(repeats):
                pair = {
                    side: runner.run_child(jobs.task_of(task, job, entry))
                    for side, task in sides.items()
                }
                outcomes += pair.values()
                pairs.append(pair)
            console.print(f"{job} {entry.name}: {_saying(pairs)}", markup=False)
    return outcomes


def _of_tfstream(job: str, base: Task) -> list[jobs.Entry]:
    entries = jobs.entries(job, base.workload)
    return [entry for entry in entries if entry.name.startswith("tfstream")]


def _on_side(base: Task, folder: Path, root: Path) -> Task:
    return replace(base, folder=folder / base.folder.name, root=root)


def _saying(pairs: Sequence[dict[str, runner.Outcome]]) -> str:
    """The median ratio and its spread; or what went wrong."""
    problems = [
        f"{side}: {problem}"
        for pair in pairs
        for side, outcome in pair.items()
        for problem in outcome.problems
    ]
    if problems:
        return "; ".join(problems)
    ratios = [
        pair["this"].fields["rows_per_s"] / pair["base"].fields["rows_per_s"] for pair in pairs
    ]
    spread = f"from {min(ratios):.3f} to {max(ratios):.3f} over {len(ratios)} pairs"
    return f"{median(ratios):.3f} times the speed of the base ({spread})"
