"""Every case with figures of its own, small: it delivers its rows, and its table is drawn."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import fsspec.config
import pytest
from rich.console import Console

from benchmarks import cases, jobs, object_store, report, runner
from benchmarks.runner import Outcome
from benchmarks.workload import OWN, Task
from tests.benchmarking import SMALL
from tfstream import remote

ALIKE = {
    *("columns-200", "columns-512", "columns-4-of-512-label", "memory-dict", "step-1000000"),
    *("constant-small", "tfstream-large", "remote-warm", "ceiling-whole"),
}
"""Cases that differ from others in a number alone."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """The task that all tasks are made of, in a folder that all share."""
    folder = jobs.folder_of(tmp_path_factory.mktemp("benchmarks"), SMALL.rows)
    folder.mkdir(parents=True)
    return Task(action="prepare", contender="source", folder=folder, workload=SMALL)


@pytest.mark.parametrize("job", OWN)
def test_cases_deliver_their_rows(
    base: Task, job: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has figures and no finding; the table has a row for each."""
    monkeypatch.setenv(object_store.URL, bucket)
    outcomes = []
    modules = cases.JOBS[job].modules
    names = [
        name
        for name in cases.JOBS[job].cases
        if name not in ALIKE and (name not in modules or find_spec(modules[name]))
    ]
    for name in names:
        task = replace(base, action=job, contender=name)
        if name in modules:
            # What such a module leaves behind may end the process.
            child = runner.run_child(task)
            assert child.problems == []
            result = child.fields
        else:
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


def test_a_data_set_lies_on_a_server_of_its_own(
    base: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless a place is named; s3:// then means what it did before."""
    monkeypatch.delenv(object_store.URL, raising=False)
    before = dict(os.environ), dict(fsspec.config.conf)
    folder = base.folder / "few"
    (folder / "shards").mkdir(parents=True)
    for name in ("manifest.json", "shards/a=1"):
        (folder / name).write_text(name, encoding="utf-8")
    with object_store.published(folder) as url:
        assert remote.below(url) == {"manifest.json": 13, "shards/a=1": 10}
    assert (dict(os.environ), dict(fsspec.config.conf)) == before
