"""Every conversion that is measured, small: it delivers its rows, and a lack of rows is found."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pds
import pytest

from benchmarks import __main__ as command
from benchmarks import converting, delivery, environments, jobs, mixed_rows, runner
from benchmarks.workload import Task
from tests.benchmarking import SMALL

ROWS = 200
WORKLOAD = replace(SMALL, rows=ROWS, batch=256, bound_s=1, scale_rows=(100, 200))
IN_PROCESS = [
    (job, entry)
    for job in ("convert", "mixed", "scale")
    for entry in jobs.entries(job, WORKLOAD)
    if environments.name_of(entry.name) is None
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """The task that all tasks are made of, in a folder that all share."""
    folder = jobs.folder_of(tmp_path_factory.mktemp("benchmarks"), ROWS)
    return Task(action="prepare", contender="source", folder=folder, workload=WORKLOAD)


def prepared(base: Task, job: str, entry: jobs.Entry) -> Task:
    """The task of an entry, whose source is there."""
    task = jobs.task_of(base, job, entry)
    jobs.do(replace(task, action="prepare", contender=task.source.name))
    return task


@pytest.mark.parametrize(("job", "entry"), IN_PROCESS, ids=lambda x: getattr(x, "name", x))
def test_conversions_deliver_their_rows(base: Task, job: str, entry: jobs.Entry) -> None:
    """Each contender converts, its output is found whole, and is removed."""
    task = prepared(base, job, entry)
    result = jobs.do(Task.from_json(task.to_json()))
    assert result["findings"] == []
    assert result["rows"] == entry.rows
    assert not list(task.folder.glob("out-*"))


def test_the_limit_of_memory_is_one(base: Task) -> None:
    """A conversion is held to its limit in a child, and one that cannot keep to it has failed."""
    (entry,) = jobs.entries("bounded", WORKLOAD)
    task = prepared(base, "bounded", entry)
    outcome = runner.run_child(task)
    assert outcome.problems == []
    assert outcome.fields["source_bytes"] >= WORKLOAD.large_bytes
    assert 0 < outcome.peak_bytes <= outcome.fields["limit_bytes"]
    beyond = replace(outcome, peak_bytes=WORKLOAD.limit_bytes + 1)
    assert beyond.problems == ["took 2,147,483,649 bytes of memory, 2,147,483,648 were allowed"]
    tight = replace(task, workload=replace(task.workload, limit_bytes=100 << 20))
    assert "status" in runner.run_child(tight).problems[0]


def test_half_of_the_bounded_rows_are_of_one_group(base: Task) -> None:
    """So that a group is far larger than what is in memory at once."""
    (entry,) = jobs.entries("bounded", WORKLOAD)
    table = pds.dataset(prepared(base, "bounded", entry).source).to_table()
    first = ((table["month"].to_numpy() == 1) & (table["day"].to_numpy() == 1)).mean()
    assert table.num_rows == entry.rows
    assert 0.45 < first < 0.55


def test_a_full_disk_is_seen_before(base: Task) -> None:
    """The source of a large job is not begun where it could not end."""
    (entry,) = jobs.entries("bounded", replace(WORKLOAD, large_bytes=2**60))
    task = jobs.task_of(base, "bounded", entry)
    with pytest.raises(OSError, match="free"):
        jobs.do(replace(task, action="prepare", contender=task.source.name))
    assert not task.source.exists()


def test_mixed_rows_are_what_they_are_called() -> None:
    """Their kinds, their nulls, their distinct values; and the time tells the id."""
    ids = np.arange(100, 20_100)
    table = mixed_rows.table_of(ids)
    kinds = [pa.int64()] * 13 + [pa.string()] * 28 + [pa.timestamp("us", "UTC"), pa.int8()]
    assert table.schema.types == kinds
    assert [table[name].null_count > 0 for name in mixed_rows.INTEGERS] == [False] + [True] * 12
    assert len(table["c00"].unique()) == 40
    assert 3_000 < len(table["c25"].unique()) <= 5_000
    assert len(table["url"].unique()) == len(ids)
    assert np.array_equal(mixed_rows.ids_of(table[mixed_rows.TIME]), ids)


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (range(ROWS), []),
        (range(ROWS - 1), ["rows", "sum of ids", "sum of mixed ids"]),
        ([*range(3, ROWS), 0, 0, 3], ["sum of mixed ids"]),
    ],
)
def test_sums_find_what_is_missing(ids: list[int], names: list[str]) -> None:
    """Rows by their number, and rows that came twice instead of others by their sums."""
    found = delivery.summed([np.array(ids[:70]), np.array(ids[70:])], ROWS)
    assert [finding.partition(":")[0] for finding in found] == names


def test_wrong_output_does_not_count(base: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """A contender that loses rows has findings."""
    entry = next(entry for job, entry in IN_PROCESS if entry.name == "pyarrow-hive")
    task, dataset = prepared(base, "convert", entry), pds.dataset
    few = pds.field("id") >= 50
    monkeypatch.setattr(pds, "dataset", lambda place: dataset(place).filter(few))
    result = converting.run(task)
    assert result["findings"] == ["50 rows did not come"]


def test_the_command_skips_what_is_not_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ray by its name, with how to install it; large data goes, and the exit code is 0."""
    arguments = ["--small", "--rows", "1000", "--jobs", "mixed,scale", "--scale-rows", "1000"]
    chosen = ["--contenders", "ray,tfx,tfstream-1000", "--folder", str(tmp_path)]
    assert command.main([*arguments, *chosen]) == 0
    printed = capsys.readouterr().out
    assert "mixed ray-tfrecords: skipped, not installed" in printed
    assert "mixed tfx-bsl: skipped, not installed; python -m benchmarks setup tfx-bsl" in printed
    assert "1 of 1 children delivered what they should" in printed
    assert not (tmp_path / jobs.SCRATCH).exists()


def test_what_cannot_be_installed_is_skipped_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pip says is told by setup, and by the runs after it."""

    def bare(place: Path, **_: object) -> None:
        """An environment without what takes long: the link to a Python that has pip."""
        (place / "bin").mkdir(parents=True)
        (place / "bin" / "python").symlink_to(Path(sys.executable).resolve())

    monkeypatch.setattr(environments.venv, "create", bare)
    missing = tmp_path / "ray-1.0-py3-none-any.whl"
    monkeypatch.setitem(environments.REQUIREMENTS, "ray", (str(missing),))
    folder = ["--folder", str(tmp_path)]
    assert command.main(["setup", "ray", *folder]) == 1
    assert "ray cannot be installed here: " in capsys.readouterr().err
    few = ["--small", "--rows", "1000", "--jobs", "mixed", "--contenders", "ray", *folder]
    assert command.main(few) == 0
    printed = capsys.readouterr().out
    assert "mixed ray-tfrecords: skipped, cannot be installed here: " in printed
    assert missing.name in printed
