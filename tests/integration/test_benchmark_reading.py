"""Every contender of job read that needs no environment of its own, small; and what is saved."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import contenders, drawing, environments, file_read, jobs, report, runner
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


def test_what_is_saved_is_drawn(
    base: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved lines name conditions and shuffle; the report has a row and a picture of them."""
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    rates = {"tfstream-packed": 3e6, "numpy-limit": 9e6, "textbook-packed": 2e5}
    fields = {"whole_epoch": True, "findings": [], "timed_rows": 10, "quality": 1.1}
    outcomes = [
        runner.Outcome(
            task=replace(base, action="read", contender=name),
            fields=fields | {"rows_per_s": rate},
            peak_bytes=5_000_000,
            error=None,
            cpu_s=2.5,
        )
        for name, rate in rates.items()
    ]
    failed = replace(outcomes[0], fields={}, error="ended with status 1: no message")
    path = report.save([*outcomes, failed], SMALL, report.machine())
    lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    assert [line["bytes"] for line in lines] == [1_290, 1_290, 1_290, None]
    assert {line["cpu_s"] for line in lines[:3]} == {2.5}
    assert lines[1]["shuffle"] == "inside windows of 512 rows"
    text, pictures = drawing.report(tmp_path, tmp_path / "drawn")
    assert [row.split(" | ")[0] for row in text.splitlines()[4:]] == [
        "| numpy-limit",
        "| tfstream-packed",
        "| textbook-packed",
    ]
    assert "| tfstream-packed | 3 | 5 | 1.10 | blocks + windows of 512 rows |" in text
    assert sorted(path.name for path in pictures) == [
        f"{name}.{suffix}" for name in ("memory", "scaling", "speed") for suffix in ("png", "svg")
    ]
    assert all(path.stat().st_size > 1_000 for path in pictures)


def test_a_torn_line_is_named(tmp_path: Path) -> None:
    """By its file and number."""
    (tmp_path / "a.jsonl").write_text('{"job": "read"}\n{"job"', encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2"):
        drawing.lines_of(tmp_path)
