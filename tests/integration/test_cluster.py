"""Conversions on a cluster of separate processes, workers of which die."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kill_loop import contents, write_source
from tfstream.conversion.convert import convert
from tfstream.conversion.options import ConvertOptions
from tfstream.conversion.progress import Progress
from tfstream.conversion.scheduling import Scheduler
from tfstream.errors import WorkerError

distributed = pytest.importorskip("distributed")

OPTIONS = ConvertOptions(block_rows=20, shard_bytes=3_000, partition_bytes=12_000)


@pytest.fixture
def client() -> Iterator[Any]:
    """A client of two worker processes, which come again when they die."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def heavy_modules() -> set[str]:
    """What a worker has loaded in vain."""
    return {"tensorflow", "keras"} & set(sys.modules)


def test_killed_workers_leave_no_trace(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One dies in each stage; the bytes are those of a conversion in threads."""
    monkeypatch.setattr("tfstream.conversion.shards._BATCH_SHARDS", 3)
    source = write_source(tmp_path / "source")
    convert(source, tmp_path / "threads", group_by=["g"], options=OPTIONS)
    killed = []

    def progress(now: Progress) -> None:
        if now.stage in {"sort by group", "write shards"} and now.tasks_done == 1:
            pid = min(client.run(os.getpid).values())
            os.kill(pid, signal.SIGKILL)
            killed.append(now.stage)

    convert(
        source,
        tmp_path / "cluster",
        group_by=["g"],
        options=OPTIONS,
        scheduler=client,
        progress=progress,
    )
    assert killed == ["sort by group", "write shards"]
    assert contents(tmp_path / "cluster") == contents(tmp_path / "threads")
    assert set().union(*client.run(heavy_modules).values()) == set()
    prefixes = set(client.cluster.scheduler.task_prefixes)
    assert {"hash sources", "sort by group", "write shards", "write provenance"} <= prefixes


def die(_: int) -> None:
    """As the kernel ends a process for lack of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("scheduler", ["processes", "cluster"])
def test_processes_that_die_again_and_again_are_told_of(
    request: pytest.FixtureRequest, scheduler: str
) -> None:
    """With the stage, and what to do about the memory."""
    chosen = request.getfixturevalue("client") if scheduler == "cluster" else scheduler
    with pytest.raises(WorkerError) as caught:
        Scheduler(chosen).run("sort by group", die, [(1,)])
    who = "a process died at" if scheduler == "processes" else "several workers died at a task of"
    assert str(caught.value) == (
        f"{who} the stage 'sort by group', most likely for lack of memory; call again to go on, "
        "with fewer workers, more memory for each, or smaller partitions "
        "(ConvertOptions(partition_bytes=), which begins anew)"
    )
    assert pickle.loads(pickle.dumps(caught.value)).exit_code == 6  # noqa: S301 - our own error


@pytest.mark.parametrize(
    "error",
    [
        distributed.comm.CommClosedError("gone"),
        distributed.client.FutureCancelledError("x-1", "gone"),
    ],
)
def test_a_cluster_that_goes_is_told_of(error: Exception) -> None:
    """By our error, not by one of distributed; an error of a task itself stays what it is."""

    def progress(now: Progress) -> None:
        if now.tasks_done:
            raise error

    with (
        distributed.Client(
            processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None
        ) as client,
        pytest.raises(WorkerError, match="^the cluster was lost at the stage 'x': .*gone"),
    ):
        Scheduler(client, progress).run("x", abs, [(-1,)])


_BEGUN, _GATE, _ENDED = threading.Event(), threading.Event(), threading.Event()


def wait_or_fail(kind: str) -> None:
    """A task that fails while the other one runs, which ends a little later."""
    if kind == "fails":
        assert _BEGUN.wait(60)
        threading.Timer(0.5, _GATE.set).start()
        raise KeyError(kind)
    _BEGUN.set()
    assert _GATE.wait(60)
    _ENDED.set()


def test_an_error_waits_for_the_tasks_that_run() -> None:
    """A task that has begun would else write into a folder that is gone."""
    with (
        distributed.Client(
            processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None
        ) as client,
        pytest.raises(KeyError, match="fails"),
    ):
        try:
            Scheduler(client).run("wait", wait_or_fail, [("runs",), ("fails",)])
        finally:
            assert _ENDED.is_set()
