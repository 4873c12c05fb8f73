"""The logs of several workers in one run: each row once, each worker proven."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import tfstream
from tests.streams import converted, table
from tests.workers import stream_of
from tfstream.errors import UsageError
from tfstream.lineage import attempts

FIRST, STOP = 13, 41
"""Where four workers stop in the middle of an epoch of 30 steps, and two in the next one."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """700 rows in seven groups: 29 full batches and 4 rows."""
    shards = converted(tmp_path_factory.mktemp("workers"), table())
    return str(shards.subset.catalog.folder)


def consume(folder: str, run: Path, count: int, first: int, stop: int) -> None:
    """Loops of several workers, side by side, from one step of the run to another."""
    parts = [stream_of(folder).shard(i, count) for i in range(count)]
    logs = [tfstream.LineageCallback(run, part, flush_steps=5) for part in parts]
    for log in logs:
        log.begin(first)
    iterators = [iter(part.dataset()) for part in parts]
    for step in range(first, stop):
        if step and step % parts[0].steps_per_epoch == 0:
            iterators = [iter(part.dataset()) for part in parts]
        for iterator, log in zip(iterators, logs, strict=True):
            next(iterator)
            log.step()
    for log in logs:
        log.close()


@pytest.fixture(scope="module")
def made(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four workers, then two."""
    run = tmp_path_factory.mktemp("made") / "run"
    consume(folder, run, 4, 0, FIRST)
    consume(folder, run, 2, FIRST, STOP)
    return run


@pytest.fixture
def run(made: Path, tmp_path: Path) -> tfstream.Run:
    """A copy of their run."""
    return tfstream.open_run(shutil.copytree(made, tmp_path / "run"))


def test_a_step_has_the_rows_of_all_workers(folder: str, run: tfstream.Run) -> None:
    """In the order of the one batch; and those of one worker are its part."""
    stream = stream_of(folder)
    assert {n: len(found) for n, found in run.workers.items()} == {0: 4, 1: 2}
    assert run.steps["step"].to_pylist() == list(range(STOP))
    assert run.steps["attempt"].to_pylist() == [0] * FIRST + [1] * (STOP - FIRST)
    for step in (0, FIRST - 1, FIRST, 29, STOP - 1):
        place = divmod(step, stream.steps_per_epoch)
        count = 4 if step < FIRST else 2
        rows = run.rows(step=step)["row_id"].to_pylist()
        parts = [run.rows(step=step, worker=i)["row_id"].to_pylist() for i in range(count)]
        assert rows == stream.row_ids(*place).tolist() == sum(parts, [])
        assert parts == [stream.shard(i, count).row_ids(*place).tolist() for i in range(count)]
    for several in ({"step": range(3)}, {"epoch": 0}):
        with pytest.raises(UsageError, match="rows of one worker are those of one step"):
            run.rows(**several, worker=0)
    with pytest.raises(UsageError, match="no log of worker 3; there are those of 0, 1"):
        run.rows(step=FIRST, worker=3)


def test_every_question_counts_each_row_once(folder: str, run: tfstream.Run) -> None:
    """Coverage, and the steps of a row."""
    stream = stream_of(folder)
    seen = np.concatenate(
        [stream.row_ids(*divmod(step, stream.steps_per_epoch)) for step in range(STOP)]
    )
    times = np.bincount(seen, minlength=700)
    for row in (0, 99, 350, 699):
        assert run.steps_of(row_ids=[row]).num_rows == times[row]
    assert run.verify(deep=True) == []


@pytest.mark.parametrize("how", ["swapped", "gone", "cut"])
def test_a_wrong_log_of_a_worker_is_named(run: tfstream.Run, how: str) -> None:
    """Two that have each other's name, one that is not there, one that lacks its last steps."""
    one, other = (found.path for found in run.workers[1])
    if how == "swapped":
        data = one.read_bytes(), other.read_bytes()
        one.write_bytes(data[1])
        other.write_bytes(data[0])
        named = "the log is of worker 1 of 2"
    elif how == "gone":
        other.unlink()
        named = "worker 1 of 2 has no log"
    else:
        shorter = one.parent / "shorter"
        consume(run.description.training.folder, shorter, 2, FIRST, STOP - 3)
        for suffix in (".log", ".parquet"):
            source = attempts.read_all(shorter)[0][0].path.with_suffix(suffix)
            one.with_suffix(suffix).write_bytes(source.read_bytes())
        named = "its steps are not those of"
    again = tfstream.open_run(run.folder)
    if how == "cut":
        assert again.steps["step"].to_pylist() == list(range(STOP))  # as the longer one tells
    found = [str(finding) for finding in again.verify()]
    assert any(named in text for text in found), found


def test_a_worker_that_comes_back_begins_an_attempt(folder: str, tmp_path: Path) -> None:
    """It has a log of the last one, so it is no late worker of that."""
    for _ in range(2):
        consume(folder, tmp_path / "run", 2, 0, 3)
    run = tfstream.open_run(tmp_path / "run")
    assert {n: len(found) for n, found in run.workers.items()} == {0: 2, 1: 2}
    assert run.verify() == []
