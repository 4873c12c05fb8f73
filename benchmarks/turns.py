"""Contenders prepared, then measured in turn, with a line of print each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmarks import jobs, runner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from benchmarks.workload import Task


def prepare(
    base: Task, chosen: dict[str, list[jobs.Entry]], console: Console
) -> tuple[Task, list[runner.Outcome]]:
    """Write what those who were chosen for each job read.

    Returns:
        The task that others are made of, with tfstream's window once that has told it; and what
        failed.
    """
    failed = []
    for prepared in jobs.prepare(base, chosen):
        console.print(
            f"prepared {prepared.task.contender}, {prepared.task.workload.rows:,} rows",
            prepared.error or "",
            markup=False,
        )
        if prepared.error:
            failed.append(prepared)
        if "window" in prepared.fields:
            window = prepared.fields["window"]
            base = replace(base, workload=replace(base.workload, window=window))
    return base, failed


def measure(
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
