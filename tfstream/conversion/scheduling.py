"""Tasks on a Dask scheduler."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import dask
import dask.local
import dask.multiprocessing
import dask.threaded
from dask.callbacks import Callback
from dask.system import CPU_COUNT

from tfstream.conversion.progress import Progress, ProgressCallback
from tfstream.errors import UsageError, WorkerError

# The functions and not their names, by which Dask would first import distributed: half a second.
_LOCAL = {
    None: dask.threaded.get,
    "threads": dask.threaded.get,
    "processes": dask.multiprocessing.get,
    "synchronous": dask.local.get_sync,
}
_QUEUED = 8
"""Tasks that a cluster has at least, however few its workers are."""
_LESS = (
    "with fewer workers, more memory for each, or smaller partitions "
    "(ConvertOptions(partition_bytes=), which begins anew)"
)
T = TypeVar("T")


class Scheduler:
    """Where tasks run: threads by default, processes, or a cluster."""

    def __init__(self, scheduler: Any = None, progress: ProgressCallback | None = None) -> None:  # noqa: ANN401
        """Choose it.

        Args:
            scheduler: None, "threads", "processes", "synchronous", or a `distributed.Client` or its
                address.
            progress: called when a stage begins, and as its tasks end.

        Raises:
            UsageError: if it is none of these, or a cluster cannot be reached.
        """
        self._progress = progress
        self._client: Any = None
        self._own = False
        if isinstance(scheduler, str) and "://" in scheduler:
            self._client, self._own = _connect(scheduler), True
        elif scheduler is not None and hasattr(scheduler, "submit"):
            self._client = scheduler
        elif isinstance(scheduler, (str, type(None))) and scheduler in _LOCAL:
            self._local = _LOCAL[scheduler]
        else:
            raise UsageError(
                f"unknown scheduler {scheduler!r}; give threads, processes, synchronous, "
                "the address of a Dask cluster, or a distributed.Client"
            )

    def close(self) -> None:
        """End the connection to a cluster that was given by its address."""
        if self._client is not None and self._own:
            self._client.close()

    def run(  # noqa: PLR0913 - the last three are for the progress alone
        self,
        stage: str,
        function: Callable[..., T],
        calls: Iterable[Sequence[Any]],
        *,
        done: int = 0,
        rows: Sequence[int] | None = None,
        size_bytes: int | None = None,
    ) -> list[T]:
        """The results of a function for each list of arguments, in order.

        The first error is raised when no task runs any more, on a cluster neither.

        Args:
            stage: what the tasks do; Dask's dashboard calls them so.
            function: what each of them calls.
            calls: its arguments.
            done: tasks of the stage that had ended before; they count for the progress alone.
            rows: how many rows each task is about, first those that had ended; for the progress.
            size_bytes: how many bytes all of them are about, for the progress.
        """
        listed = list(calls)
        report = _Report(stage, done, done + len(listed), rows, size_bytes, self._progress)
        report.start()
        if not listed:
            return []
        if self._client is not None:
            with _told_deaths(stage):
                return _run_on_cluster(self._client, function, listed, report)
        # An opaque call: Dask would search every field of the arguments for tasks.
        names = _names(stage, len(listed))
        tasks = [
            dask.delayed(partial(function, *arguments), traverse=False)(dask_key_name=name)
            for name, arguments in zip(names, listed, strict=True)
        ]
        places = {name: place for place, name in enumerate(names)}

        def posttask(key: str, *_: object) -> None:
            if key in places:
                report.advance(places[key])

        advance = Callback(posttask=posttask)
        # A pool of its own: leaving it waits for the tasks that still run when one has failed.
        with advance, ThreadPoolExecutor(CPU_COUNT) as pool:
            threads = {"pool": pool} if self._local is dask.threaded.get else {}
            with _told_deaths(stage):
                return list(
                    dask.compute(*tasks, scheduler=self._local, optimize_graph=False, **threads)
                )

    def compute(self, stage: str, tasks: Sequence[Any]) -> list[Any]:
        """The values of Delayed tasks, in one graph, so that what they share is computed once."""
        report = _Report(stage, 0, len(tasks), None, None, self._progress)
        report.start()
        places = {task.key: place for place, task in enumerate(tasks)}

        def posttask(key: str, *_: object) -> None:
            if key in places:
                report.advance(places[key])

        if self._client is None:
            with Callback(posttask=posttask), _told_deaths(stage):
                return list(dask.compute(*tasks, scheduler=self._local))
        from distributed import as_completed  # noqa: PLC0415 - only who has a cluster needs it

        futures = self._client.compute(list(tasks))
        try:
            with _told_deaths(stage):
                for future in as_completed(futures):
                    future.result()
                    report.advance(places[future.key])
                return list(self._client.gather(futures))
        finally:
            self._client.cancel(futures)


@contextmanager
def _told_deaths(stage: str) -> Iterator[None]:
    """Deaths of those who do the work, as errors that tell what to do."""
    # Whose errors they are is told by their names: only who has a cluster has loaded distributed.
    try:
        yield
    except BrokenProcessPool as error:
        raise WorkerError(
            f"a process died at the stage {stage!r}, most likely for lack of memory; call again "
            f"to go on, {_LESS}"
        ) from error
    except Exception as error:
        kind = type(error)
        if not kind.__module__.startswith("distributed."):
            raise
        if kind.__name__ == "KilledWorker":
            raise WorkerError(
                f"several workers died at a task of the stage {stage!r}, most likely for lack of "
                f"memory; call again to go on, {_LESS}"
            ) from error
        raise WorkerError(
            f"the cluster was lost at the stage {stage!r}: {error}; call again to go on, when it "
            "is there"
        ) from error


class _Report:
    """Counts the tasks of a stage that are done, and their rows."""

    def __init__(  # noqa: PLR0913, PLR0917 - what was given to `Scheduler.run`
        self,
        stage: str,
        done: int,
        tasks: int,
        rows: Sequence[int] | None,
        size_bytes: int | None,
        progress: ProgressCallback | None,
    ) -> None:
        self.stage, self._progress = stage, progress
        self._rows = [0] * tasks if rows is None else rows
        self._done = done
        self._now = Progress(
            stage=stage,
            tasks_done=done,
            tasks=tasks,
            rows_done=sum(self._rows[:done]),
            rows=None if rows is None else sum(rows),
            size_bytes=size_bytes,
        )
        self._lock = threading.Lock()

    def start(self) -> None:
        if self._progress is not None:
            self._progress(self._now)

    def advance(self, place: int) -> None:
        """The call at this place has ended."""
        with self._lock:
            self._now = replace(
                self._now,
                tasks_done=self._now.tasks_done + 1,
                rows_done=self._now.rows_done + self._rows[self._done + place],
            )
            if self._progress is not None:
                self._progress(self._now)


def _run_on_cluster(
    client: Any,  # noqa: ANN401 - distributed is optional and untyped
    function: Callable[..., T],
    calls: Sequence[Sequence[Any]],
    report: _Report,
) -> list[T]:
    from distributed import CancelledError, as_completed, wait  # noqa: PLC0415 - only who has a cluster needs it

    results: dict[str, T] = {}
    names = _names(report.stage, len(calls))
    waiting = iter(zip(names, calls, strict=True))
    places = {name: place for place, name in enumerate(names)}
    running: dict[str, Any] = {}

    def submit(count: int) -> list[Any]:
        fresh = {
            name: client.submit(function, *arguments, key=name, pure=False)
            for name, arguments in itertools.islice(waiting, count)
        }
        running.update(fresh)
        return list(fresh.values())

    def free() -> int:
        return max(_QUEUED, 2 * int(sum(client.nthreads().values()))) - len(running)

    try:
        ended = as_completed(submit(free()))
        for future in ended:
            results[future.key] = future.result()
            del running[future.key]
            report.advance(places[future.key])
            ended.update(submit(free()))
    except BaseException:
        # What a worker has begun cannot be called back, and would write after the end.
        with suppress(CancelledError):
            wait(list(running.values()))
        raise
    return [results[name] for name in names]


def _names(stage: str, count: int) -> list[str]:
    """Keys of tasks, which no other call uses."""
    token = uuid.uuid4().hex
    return [f"{stage}-{token}-{i}" for i in range(count)]


def _connect(address: str) -> Any:  # noqa: ANN401 - distributed is optional and untyped
    try:
        from distributed import Client  # noqa: PLC0415 - only who has a cluster needs it
    except ImportError as error:
        raise UsageError(f"{address} needs the package distributed; install it") from error
    try:
        return Client(address)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot reach a Dask scheduler at {address}: {error}") from error
