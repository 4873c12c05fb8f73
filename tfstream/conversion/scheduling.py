"""Tasks on a Dask scheduler."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
        self, stage: str, function: Callable[..., T], calls: Iterable[Sequence[Any]]
    ) -> list[T]:
        """The results of a function for each list of arguments, in order.

        The first error is raised when no task runs on this machine any more.
        """
        listed = list(calls)
        report = _Report(stage, len(listed), self._progress)
        report.start()
        if not listed:
            return []
        if self._client is not None:
            return _run_on_cluster(self._client, function, listed, report)
        # An opaque call: Dask would search every field of the arguments for tasks.
        tasks = [
            dask.delayed(partial(function, *arguments), pure=False, traverse=False)()
            for arguments in listed
        ]
        names = {task.key for task in tasks}
        advance = Callback(posttask=lambda key, *_: report.advance() if key in names else None)
        # A pool of its own: leaving it waits for the tasks that still run when one has failed.
        with advance, ThreadPoolExecutor(CPU_COUNT) as pool:
            threads = {"pool": pool} if self._local is dask.threaded.get else {}
            return list(
                dask.compute(*tasks, scheduler=self._local, optimize_graph=False, **threads)
            )


class _Report:
    """Counts the tasks of a stage that are done."""

    def __init__(self, stage: str, total: int, progress: Progress | None) -> None:
        self._stage, self._total, self._progress = stage, total, progress
        self._done = 0
        self._lock = threading.Lock()

    def start(self) -> None:
        if self._progress is not None:
            self._progress(self._stage, 0, self._total)

    def advance(self) -> None:
        with self._lock:
            self._done += 1
            if self._progress is not None:
                self._progress(self._stage, self._done, self._total)


def _run_on_cluster(
    client: Any,  # noqa: ANN401 - distributed is optional and untyped
    function: Callable[..., T],
    calls: Sequence[Sequence[Any]],
    report: _Report,
) -> list[T]:
    from distributed import as_completed  # noqa: PLC0415 - only who has a cluster needs it

    futures = [client.submit(function, *arguments, pure=False) for arguments in calls]
    try:
        for future in as_completed(futures):
            future.result()
            report.advance()
        return list(client.gather(futures))
    finally:
        client.cancel(futures)


def _connect(address: str) -> Any:  # noqa: ANN401 - distributed is optional and untyped
    try:
        from distributed import Client  # noqa: PLC0415 - only who has a cluster needs it
    except ImportError as error:
        raise UsageError(f"{address} needs the package distributed; install it") from error
    try:
        return Client(address)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot reach a Dask scheduler at {address}: {error}") from error
