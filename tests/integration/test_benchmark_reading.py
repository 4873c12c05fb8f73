"""Every contender of job read that needs no environment of its own, small."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import contenders, environments, jobs, runner
from benchmarks.workload import Task
from tests.benchmarking import SMALL

HERE = [
    entry
    for entry in jobs.entries("read", SMALL)
    if entry.name.partition("-")[0] not in environments.REQUIREMENTS
    and not entry.name.endswith("processes")
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """The task that all tasks are made of, in a folder whose source is there."""
    folder = jobs.folder_of(tmp_path_factory.mktemp("benchmarks"), SMALL.rows)
    task = Task(action="prepare", contender="source", folder=folder, workload=SMALL)
    jobs.do(task)
    return task


@pytest.mark.parametrize("entry", HERE, ids=lambda entry: entry.name)
def test_readers_deliver_each_row_once(base: Task, entry: jobs.Entry) -> None:
    """Prepared, then read by whole epochs; the ledger finds nothing wrong."""
    jobs.do(replace(base, contender=entry.name))
    result = jobs.do(replace(base, action="read", contender=entry.name))
    assert result["findings"] == []
    assert result["whole_epoch"]
    assert result["delivered"]["rows"] == entry.rows


def test_the_limit_takes_the_windows_of_tfstream(
    base: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chosen alone, too: tfstream is prepared first, to tell its window."""
    prepared: list[str] = []

    def noted(task: Task) -> runner.Outcome:
        prepared.append(task.contender)
        return runner.Outcome(task=task, fields={}, peak_bytes=0, error=None)

    monkeypatch.setattr(jobs, "run_child", noted)
    alone = [entry for entry in HERE if entry.name == "numpy-limit"]
    assert len(list(jobs.prepare(base, {"read": alone}))) == len(prepared)
    assert prepared == ["source", "tfstream-packed", "numpy-limit"]


def test_every_peer_names_its_document() -> None:
    """Those that are installed apart follow a document, and take no part in fit."""
    apart = [
        one
        for one in contenders.contenders(SMALL)
        if one.name.partition("-")[0] in environments.REQUIREMENTS
    ]
    assert {one.name.partition("-")[0] for one in apart} == set(environments.REQUIREMENTS)
    assert all(one.link and not one.fits for one in apart)
