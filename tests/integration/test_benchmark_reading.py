"""Every contender of job read that needs no environment of its own, small."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import contenders, environments, file_read, jobs, runner
from benchmarks.workload import Task
from tests.benchmarking import SMALL

HERE = [
    entry
    for entry in jobs.entries("read", SMALL)
    if environments.name_of(entry.name) is None and not entry.name.endswith("processes")
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


@pytest.mark.parametrize("change", ["flipped", "shorter", "longer"])
def test_other_bytes_do_not_count(base: Task, change: str) -> None:
    """Bare files have no rows to check, but every byte is checked; and it is said what was."""
    jobs.do(replace(base, contender="file-read"))
    source = file_read.ShardBytes(base.folder / contenders.SHARDS)
    ledger = source.ledger()
    rows = sum(ledger.record(*batch) for batch in source.epoch())
    assert ledger.findings(whole=True) == []
    assert ledger.totals()["checked"] == "bytes only"
    assert rows == ledger.totals()["rows"] == SMALL.rows
    other = source.ledger()
    for number, ((path, some), label) in enumerate(source.epoch()):
        came = bytearray(some)
        if number == 0:
            came[-1] ^= 1
            came = {"flipped": came, "shorter": came[:-1], "longer": came + b"x"}[change]
        other.record((path, memoryview(came)), label)
    said = "not those of the manifest" if change == "flipped" else "bytes came of"
    assert [said in finding for finding in other.findings(whole=True)] == [True]
    assert len(other.findings(whole=False)) == (change != "shorter")


def test_every_peer_names_its_document() -> None:
    """Those that are installed apart follow a document, and take no part in fit."""
    apart = {
        job: [one for one in jobs.entries(job, SMALL) if environments.name_of(one.name) is not None]
        for job in ("read", "fit", "convert", "mixed")
    }
    names = {environments.name_of(one.name) for found in apart.values() for one in found}
    assert names == set(environments.REQUIREMENTS)
    assert all(one.link for found in apart.values() for one in found)
    assert not apart["fit"]


@pytest.mark.parametrize(
    ("contender", "name"),
    [
        ("tfx-bsl", "tfx-bsl"),
        ("ray-batches", "ray"),
        ("tfio-parquet", "tfio"),
        ("tfstream-dict", None),
        ("tfx", None),
        ("rayless", None),
    ],
)
def test_an_environment_is_named_by_its_contenders(contender: str, name: str | None) -> None:
    """By whole words, for names of several words too."""
    assert environments.name_of(contender) == name
