"""Every case with figures of its own, small: it delivers its rows, and its table is drawn."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import cases, jobs, report
from benchmarks.runner import Outcome
from benchmarks.workload import OWN, Task
from tests.benchmarking import SMALL

ALIKE = {
    *("columns-200", "columns-512", "columns-4-of-512-label", "memory-dict", "step-1000000"),
    *("constant-small", "tfstream-large"),
}
"""Cases that differ from others in a number alone."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """The task that all tasks are made of, in a folder that all share."""
    folder = jobs.folder_of(tmp_path_factory.mktemp("benchmarks"), SMALL.rows)
    folder.mkdir(parents=True)
    return Task(action="prepare", contender="source", folder=folder, workload=SMALL)


@pytest.mark.parametrize("job", OWN)
def test_cases_deliver_their_rows(base: Task, job: str) -> None:
    """Each has figures and no finding; the table has a row for each."""
    outcomes = []
    names = [name for name in cases.JOBS[job].cases if name not in ALIKE]
    for name in names:
        task = replace(base, action=job, contender=name)
        result = jobs.do(Task.from_json(task.to_json()))
        assert result["findings"] == []
        assert not [name for name, value in result["figures"].items() if math.isnan(value)]
        outcomes.append(Outcome(task=task, fields=result, peak_bytes=1, error=None))
    console = Console(record=True, width=200)
    report.show_figures(console, job, jobs.entries(job, SMALL), outcomes)
    printed = console.export_text()
    assert all(name in printed for name in names)
    if job == "mixing":
        drawn = base.folder / "mixing.svg"
        assert Path(drawn).read_text(encoding="utf-8").count("quality") >= len(outcomes)
