"""Every case with figures of its own, small: it delivers its rows, and its table is drawn."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import fsspec.config
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks import cases, examples, jobs, object_store, report, runner
from benchmarks.runner import Outcome
from benchmarks.workload import OWN, Task
from tests.benchmarking import SMALL
from tfstream import remote

pytestmark = pytest.mark.slow
"""One stack is enough."""

OWN_ROWS = 600
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
    workload = replace(SMALL, parquet=str(own(folder)), label="late", group_by=("carrier",))
    return Task(action="prepare", contender="source", folder=folder, workload=workload)


def own(folder: Path) -> Path:
    """A folder of two files that a reader may have, with nulls, texts, times and lists."""
    place = folder / "own" / "year=2024"
    place.mkdir(parents=True)
    ids = pa.array(range(OWN_ROWS))
    table = pa.table(
        {
            "carrier": pa.array([f"c{i % 7}" for i in range(OWN_ROWS)]),
            "delay": pa.array([None if i % 5 == 0 else i for i in range(OWN_ROWS)]),
            "number": pc.multiply(ids, 3),
            "distance": pc.divide(ids.cast(pa.float64()), 7),
            "late": pc.greater(ids, 100).cast(pa.int8()),
            "at": ids.cast(pa.timestamp("us")),
            "stops": [[1, 2]] * OWN_ROWS,
        }
    )
    pq.write_table(table.slice(0, 250), place / "a.parquet", row_group_size=100)
    pq.write_table(table.slice(250), place / "b.parquet")
    return folder / "own"


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


def test_own_parquet_needs_no_column_of_a_kind(base: Task, tmp_path: Path) -> None:
    """Texts alone: nothing to pack, rows are counted; groups are made where none are asked for."""
    path = tmp_path / "texts.parquet"
    pq.write_table(pa.table({"s": ["a", "b", None] * 50}), path)
    workload = replace(SMALL, parquet=str(path))
    for name, rows in (("tfstream-packed", 0), ("tfstream-dict", 150), ("examples-write", 150)):
        result = jobs.do(replace(base, action="parquet", contender=name, workload=workload))
        assert result["findings"] == []
        assert result["checked"] == ["rows"]
        assert result["figures"]["rows"] == rows


@pytest.mark.parametrize(
    ("again", "said"), [(0, "rows came"), (1, "the values of column number are others")]
)
def test_own_rows_that_are_lost_are_found(
    base: Task, monkeypatch: pytest.MonkeyPatch, again: int, said: str
) -> None:
    """By their number, and where others came again instead, by the values of a column."""
    encode = examples.plainly

    def without_first(batch: pa.RecordBatch) -> list[bytes]:
        _, *records = encode(batch)
        return records + records[:again]

    monkeypatch.setattr(examples, "plainly", without_first)
    findings = jobs.do(replace(base, action="parquet", contender="examples-write"))["findings"]
    assert len(findings) == 2 - again
    assert said in findings[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--jobs", "parquet"], "go together"),
        (["--parquet", "PLACE", "--jobs", "read"], "go together"),
        (["--parquet", "PLACE/none.parquet"], "is no file, and no folder"),
        (["--parquet", "PLACE"], "is no file, and no folder"),
    ],
)
def test_own_parquet_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """Before anything is written."""
    told = [argument.replace("PLACE", str(tmp_path)) for argument in arguments]
    with pytest.raises(SystemExit, match="2"):
        command.main([*told, "--folder", str(tmp_path / "out")])
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
