"""Children: each measurement in a process of its own, whose memory the parent watches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import psutil

from benchmarks import environments
from benchmarks.workload import Task

if TYPE_CHECKING:
    from collections.abc import Callable

_MEASURED = "measured"
_SAMPLE_S = 0.05
_TIMEOUT_S = 7_200
ROOT = Path(__file__).resolve().parents[1]
"""The tree that these benchmarks lie in."""
_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a child said, and what it needed."""

    task: Task
    fields: dict[str, Any]
    """Its JSON line; empty if it failed."""
    peak_bytes: int
    """Largest sum of resident memory over the child and its own children, until it had measured."""
    error: str | None
    """Why it failed."""
    cpu_s: float = 0.0
    """Seconds of all threads of that tree until it had measured, its start included."""

    @property
    def problems(self) -> list[str]:
        """Failure, or wrong delivery; empty means that the figure counts."""
        if self.error:
            return [self.error]
        found = list(self.fields.get("findings", []))
        limit = self.fields.get("limit_bytes")
        if limit and self.peak_bytes > limit:
            found.append(f"took {self.peak_bytes:,} bytes of memory, {limit:,} were allowed")
        return found


def announce_measured() -> None:
    """Tell the parent that the measurement is over; what comes after is the check."""
    sys.stdout.write(f"{_MEASURED}\n")
    sys.stdout.flush()


def serve(run: Callable[[Task], dict[str, Any]], task_json: str) -> None:
    """Do a child's task and write its one JSON line."""
    result = {"versions": environments.versions(), **run(Task.from_json(task_json))}
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    # No tear-down: generator threads and worker pools of some contenders never end.
    os._exit(0)


def run_child(task: Task) -> Outcome:
    """Run a task in a new process, to its end."""
    path = os.pathsep.join(filter(None, [str(task.root), os.environ.get("PYTHONPATH")]))
    command = [task.python, "-m", "benchmarks", "child", task.to_json()]
    with (
        # The child ends without a tear-down, so what libraries leave behind is removed here.
        tempfile.TemporaryDirectory(
            prefix="tfstream-child-", ignore_cleanup_errors=True
        ) as scratch,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
    ):
        process = subprocess.Popen(
            command,
            cwd=task.root,
            env=os.environ | _ENVIRONMENT | {"PYTHONPATH": path, "TMPDIR": scratch},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        lines: list[str] = []
        measured = threading.Event()
        reader = threading.Thread(target=_collect, args=(process.stdout, lines, measured))
        reader.start()
        peak_bytes, cpu_s = _watch(process, measured)
        reader.join()
        if process.stdout is not None:
            process.stdout.close()
        errors.seek(0)
        tail = errors.read()[-2_000:].strip()
    return replace(_outcome(task, process.returncode, lines, peak_bytes, tail), cpu_s=cpu_s)


def _collect(stream: IO[str] | None, lines: list[str], measured: threading.Event) -> None:
    for line in stream or ():
        if line.strip() == _MEASURED:
            measured.set()
        else:
            lines.append(line)


def _watch(process: subprocess.Popen[str], measured: threading.Event) -> tuple[int, float]:
    """Sample memory and seconds of the tree until it has measured; wait for its end."""
    peak_bytes = 0
    cpu_s: dict[int, float] = {}
    started = time.monotonic()
    root = psutil.Process(process.pid)
    family = [root]
    while process.poll() is None:
        if time.monotonic() - started > _TIMEOUT_S:
            _kill(root)
        if not measured.is_set():
            family = _family(root)
            peak_bytes = max(peak_bytes, sum(map(_resident, family)))
            cpu_s |= {one.pid: seconds for one in family if (seconds := _busy(one)) is not None}
        time.sleep(_SAMPLE_S)
    for member in family[1:]:  # A worker that outlived its parent would burden the next contender.
        if member.is_running():
            _end(member)
    return peak_bytes, sum(cpu_s.values())


def _family(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return [root]


def _resident(member: psutil.Process) -> int:
    try:
        return int(member.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _busy(member: psutil.Process) -> float | None:
    try:
        times = member.cpu_times()
    except psutil.NoSuchProcess:
        return None
    return float(times.user + times.system)


def _kill(root: psutil.Process) -> None:
    for member in reversed(_family(root)):
        _end(member)


def _end(member: psutil.Process) -> None:
    try:
        member.kill()
    except psutil.NoSuchProcess:
        return


def _outcome(task: Task, status: int, lines: list[str], peak_bytes: int, tail: str) -> Outcome:
    fields: dict[str, Any] = {}
    error = None
    if status == 0 and lines:
        fields = json.loads(lines[-1])
    else:
        last = tail.splitlines()[-1] if tail else "no message"
        error = f"ended with status {status}: {last}"
    peak_bytes = max(peak_bytes, fields.get("own_peak_bytes", 0))
    return Outcome(task=task, fields=fields, peak_bytes=peak_bytes, error=error)
