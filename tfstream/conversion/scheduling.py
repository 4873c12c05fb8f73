"""Tasks on a Dask scheduler."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import dask
import dask.local
import dask.multiprocessing
import dask.threaded
from dask.callbacks import Callback
from dask.system import CPU_COUNT

from tfstream.errors import UsageError

Progress = Callable[[str, int, int], None]
"""Called with the stage, how many of its tasks are done, and how many there are."""

# The functions and not their names, by which Dask would first import distributed: half a second.
_LOCAL = {
    None: dask.threaded.get,
    "threads": dask.threaded.get,
    "processes": dask.multiprocessing.get,
    "synchronous": dask.local.get_sync,
}
_QUEUED = 8
"""Tasks that a cluster has at least, however few its workers are."""
T = TypeVar("T")


class Scheduler:
    """Where tasks run: threads by default, processes, or a cluster."""

    def __init__(self, scheduler: Any = None, progress: Progress | None = None) -> None:  # noqa: ANN401
        """Choose it.

        Args:
            scheduler: None, "threads", "processes", "synchronous", or a `distributed.Client` or its
                address.
            progress: called as tasks end.

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

    def run(
        self,
        stage: str,
        function: Callable[..., T],
        calls: Iterable[Sequence[Any]],
        *,
        done: int = 0,
    ) -> list[T]:
        """The results of a function for each list of arguments, in order.

        The first error is raised when no task runs any more, on a cluster neither.

        Args:
            stage: what the tasks do; Dask's dashboard calls them so.
            function: what each of them calls.
            calls: its arguments.
            done: tasks of the stage that had ended before; they count for the progress alone.
        """
        listed = list(calls)
        report = _Report(stage, done, done + len(listed), self._progress)
        report.start()
        if not listed:
            return []
        if self._client is not None:
            return _run_on_cluster(self._client, function, listed, report)
        # An opaque call: Dask would search every field of the arguments for tasks.
        names = _names(stage, len(listed))
        tasks = [
            dask.delayed(partial(function, *arguments), traverse=False)(dask_key_name=name)
            for name, arguments in zip(names, listed, strict=True)
        ]
        advance = Callback(posttask=lambda key, *_: report.advance() if key in names else None)
        # A pool of its own: leaving it waits for the tasks that still run when one has failed.
        with advance, ThreadPoolExecutor(CPU_COUNT) as pool:
            threads = {"pool": pool} if self._local is dask.threaded.get else {}
            return list(
                dask.compute(*tasks, scheduler=self._local, optimize_graph=False, **threads)
            )


class _Report:
    """Counts the tasks of a stage that are done."""

    def __init__(self, stage: str, done: int, total: int, progress: Progress | None) -> None:
        self.stage, self._done, self._total, self._progress = stage, done, total, progress
        self._lock = threading.Lock()

    def start(self) -> None:
        if self._progress is not None:
            self._progress(self.stage, self._done, self._total)

    def advance(self) -> None:
        with self._lock:
            self._done += 1
            if self._progress is not None:
                self._progress(self.stage, self._done, self._total)


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
            report.advance()
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
