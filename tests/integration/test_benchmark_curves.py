"""Every scaling curve, small: its rows are delivered at each point, and a slow contender stops."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks import curves, data, jobs, runner, turns
from benchmarks.delivery import Ledger
from benchmarks.workload import Task, Workload
from tests.benchmarking import SMALL

pytestmark = pytest.mark.slow
"""One stack is enough."""

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORKLOAD = replace(SMALL, rows=1_000, files=(50,))
HEAVY = ("textbook-packed", "pyarrow-hive-buffered", "pyarrow-read")
"""Contenders that the other tests have, and that know nothing of columns or groups."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all points."""
    return tmp_path_factory.mktemp("benchmarks")


@pytest.fixture
def cores() -> Iterator[set[int]]:
    """Those of this thread, given back afterwards."""
    before = os.sched_getaffinity(0)
    yield before
    os.sched_setaffinity(0, before)


@pytest.mark.parametrize("name", ["columns", "groups", "files"])
def test_rows_of_other_shapes_are_delivered(root: Path, name: str) -> None:
    """With more columns, groups beyond the days of a year, and a source of more files."""
    curve = curves.CURVES[name]
    *_, workload = curves.points(name, WORKLOAD, curve.small)
    workload = replace(workload, files=(50,))
    folder = curves.Session(root, repeats=1, prefixes=("",)).folder(workload)
    base = Task(action="prepare", contender="source", folder=folder, workload=workload)
    jobs.do(base)
    for entry in jobs.entries(curve.job, workload):
        if curves.kind_of(entry.name) not in set(curve.kinds) - set(HEAVY):
            continue
        if curve.job == "read":
            jobs.do(replace(base, contender=entry.name))
        task = jobs.task_of(base, curve.job, entry)
        assert task.folder == folder
        result = jobs.do(Task.from_json(task.to_json()))
        assert result["findings"] == [], entry.name
        assert result["whole_epoch"], entry.name
    assert len(list((folder / "source").iterdir())) == workload.source_files
    if curve.job == "read":
        groups = np.unique(data.groups_of(np.arange(workload.rows), workload.groups))
        assert len(list(folder.glob("groups/month=*/day=*/*.parquet"))) == len(groups)


def test_points_vary_one_thing() -> None:
    """And what must go with it: as many bytes at each number of columns, a file for every row."""
    for name, curve in curves.CURVES.items():
        found = list(curves.points(name, SMALL, curve.values))
        assert [getattr(one, curve.field) for one in found] == list(curve.values)
        also = {"rows": {"files"}, "columns": {"rows", "files"}}.get(name, set())
        for one in found:
            neutral = {field: getattr(SMALL, field) for field in {curve.field, "files", *also}}
            assert replace(one, curve=None, **neutral) == replace(SMALL, files=SMALL.files)
    rows, columns = (list(curves.points(name, SMALL, (64,))) for name in ("rows", "columns"))
    assert rows[0].files == (64,)
    assert columns[0].rows * 64 == SMALL.rows * data.COLUMNS


def test_a_contender_is_drawn_until_an_epoch_takes_a_minute(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its rate at the point before, and it is said."""
    rates = {"tfstream-packed": 1e6, "npy-w1": 1e3}

    def measured(base: Task, job: str, entries: list[jobs.Entry], *_: object) -> list[object]:
        return [
            runner.Outcome(
                task=replace(base, action=job, contender=entry.name),
                fields={"rows_per_s": rates[curves.kind_of(entry.name)]},
                peak_bytes=1,
                error=None,
            )
            for entry in entries
        ]

    monkeypatch.setattr(turns, "prepare", lambda base, *_: (base, []))
    monkeypatch.setattr(turns, "measure", measured)
    console = Console(record=True, width=200)
    session = curves.Session(root, repeats=1, prefixes=("tfstream", "npy"))
    outcomes = curves.measure("rows", SMALL, (1_000, 60_000, 61_000, 10**7), session, console)
    drawn = [(one.task.contender, one.task.workload.rows) for one in outcomes]
    assert [rows for name, rows in drawn if name == "tfstream-packed"] == [
        *(1_000, 60_000, 61_000, 10**7)
    ]
    assert [rows for name, rows in drawn if name != "tfstream-packed"] == [1_000, 60_000]
    printed = console.export_text()
    assert "npy-61000-w1: not drawn, an epoch would take 61 s at its rate at the point" in printed
    assert "│ npy-w1          │ 0.0010 │ 0.0010 │      - │" in printed


def test_a_worker_has_a_core(cores: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that measures is held to as many cores as there are workers."""
    seen = []

    def noted(_: Task) -> dict[str, object]:
        seen.append(len(os.sched_getaffinity(0)))
        return {}

    monkeypatch.setattr("benchmarks.reading.run", noted)
    for workers in (None, 1):
        task = Task(
            action="read",
            contender="tfstream-packed",
            folder=runner.ROOT,
            workload=replace(SMALL, workers=workers),
        )
        jobs.do(task)
    assert seen == [len(cores), 1]


def test_workers_of_a_sequence_are_those_of_the_point(root: Path) -> None:
    """Each number of workers has the Sequences of that number, and everybody else."""
    for workload in curves.points("workers", SMALL, (1, 2)):
        names = [
            curves.kind_of(entry.name)
            for entry in curves.taking_part("workers", workload)
            if entry.name.startswith(("npy", "tfstream"))
        ]
        own = ["npy-w1"] if workload.workers == 1 else ["npy-w2-threads", "npy-w2-processes"]
        assert names == ["tfstream-packed", *own]


@given(st.lists(st.integers(0, data.MAX_ROWS - 1), min_size=1))
def test_each_id_has_a_first_feature_of_its_own(ids: list[int]) -> None:
    """Below 2^24 the id scaled, beyond that still exact."""
    first = data.first_of(np.array(ids))
    assert first.dtype == np.float32
    assert data.ids_of(first).tolist() == ids


@pytest.mark.parametrize("groups", [2, 365, 1_000])
def test_quality_is_that_of_chi_square(groups: int) -> None:
    """Computed without the empty cells, against its definition."""
    rows, batch = 640, 64
    ledger = Ledger(rows, groups=groups)
    ids, features = next(data.chunks(rows))
    ledger.record(features, data.labels_of(ids))
    group = data.groups_of(ids, groups)
    share = np.bincount(group, minlength=groups) / rows
    counts = np.stack([np.bincount(part, minlength=groups) for part in group.reshape(-1, batch)])
    expected = batch * share[share > 0]
    squares = ((counts[:, share > 0] - expected) ** 2 / expected).sum(axis=1)
    wanted = np.sqrt(squares.mean() / ((share > 0).sum() - 1))
    assert ledger.quality(batch) == pytest.approx(wanted)


def test_one_group_has_no_quality() -> None:
    """There is nothing that batches could draw unevenly from."""
    ledger = Ledger(128, groups=1)
    ids, features = next(data.chunks(128))
    ledger.record(features, data.labels_of(ids))
    assert ledger.quality(64) is None


def test_data_of_another_shape_is_removed(tmp_path: Path) -> None:
    """When the next point has other rows, columns, groups or files; not when it has another batch."""
    session = curves.Session(tmp_path, repeats=1, prefixes=("",))
    first = session.folder(SMALL)
    first.mkdir(parents=True)
    assert session.folder(replace(SMALL, batch=7, workers=2)) == first
    assert first.exists()
    other: Workload = replace(SMALL, columns=8)
    assert session.folder(other) != first
    assert not first.exists()
