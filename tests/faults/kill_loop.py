"""Kill conversions and appends again and again, and see that it comes to the same end.

`python -m tests.faults.kill_loop --minutes 10` goes on for that long; a seed makes it repeatable, as
far as threads are. An attempt is a fork of this process, which has loaded everything and started no
thread, and dies by SIGKILL: at a random time, or just before the n-th change to a file's name. Then
the same call is made again, until one ends by itself. The law: its output has the bytes of an
undisturbed conversion, and no task whose receipt was there was done again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfstream.conversion import convert as conversion
from tfstream.conversion import shards
from tfstream.conversion.options import ConvertOptions
from tfstream.errors import ResumeError, UsageError

ROWS = 2_000
_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}
_MAX_KILLS = 6
"""Kills in a row, after which an attempt may end."""


@dataclass(frozen=True)
class Case:
    """A conversion, or an append to a copy of `base`, to be begun as often as it takes."""

    source: Path
    out: Path
    base: Path | None = None
    temp: Path | None = None
    is_frame: bool = False
    """Whether the source is read by Dask, as a DataFrame."""

    def prepare(self) -> None:
        """Before the first attempt."""
        if self.base is not None:
            shutil.copytree(self.base, self.out)

    def run(self) -> None:
        """One attempt."""
        options = ConvertOptions(
            block_rows=20,
            shard_bytes=3_000,
            partition_bytes=12_000,
            temp=None if self.temp is None else str(self.temp),
            on_bad_rows="raise" if self.is_frame else "quarantine",
        )
        source = dd.read_parquet(self.source) if self.is_frame else self.source
        if self.base is None:
            conversion.convert(source, self.out, group_by=["g"], options=options)
        else:
            conversion.append(source, self.out, options=options)

    def run_killed(self, change: int) -> None:
        """The conversion, killed before the n-th change of a name, if there are so many."""
        at_changes(lambda n: os.kill(os.getpid(), signal.SIGKILL) if n == change else None)
        self.run()

    def is_over(self) -> bool:
        """Whether it was killed after its last word, so that the next call has nothing to do."""
        path = self.out / "manifest.json"
        generation = 0 if self.base is None else 1
        return (
            path.exists()
            and len(json.loads(path.read_bytes())["parents"]) == generation
            and not (self.out / ".tmp").exists()
        )

    def receipts(self) -> dict[Path, int]:
        """The receipts that are there, and when each was written."""
        found = self.out.glob(".tmp/*/receipts/*/*.json")
        return {path: path.stat().st_mtime_ns for path in found}


def main() -> int:
    """Run the loop; exit code 1 at the first difference."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kill_loop")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, help="end after so many conversions")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    # Several shards to a task would make it one task.
    shards._BATCH_SHARDS = 3
    with tempfile.TemporaryDirectory(prefix="kill-loop-") as name:
        return loop(Path(name), arguments.seed, arguments.minutes * 60, arguments.rounds)


@dataclass(frozen=True)
class Trial:
    """A case undisturbed."""

    case: Case
    expected: dict[str, bytes]
    took_s: float
    changes: list[int]
    """The numbers of all changes of names, shuffled: where the n-th trial is killed first."""

    @classmethod
    def of(cls, case: Case, rng: random.Random) -> Trial:
        """See how it goes."""
        case.prepare()
        start = time.perf_counter()
        assert attempt(case.run) == 0
        took_s = time.perf_counter() - start
        counted = replace(case, out=case.out.with_name(f"{case.out.name}-counted"))
        changes = count_changes(counted)
        print(f"{case.out.name}: {took_s:.2f} s, {changes} changes of names", flush=True)
        return cls(case, contents(case.out), took_s, rng.sample(range(changes), changes))


def loop(folder: Path, seed: int, seconds: float, rounds: int | None) -> int:
    """Conversions and appends in turn, until one differs or the time is over."""
    rng = random.Random(seed)
    source, lines = write_source(folder / "source"), write_lines(folder / "lines")
    base, first = (
        Case(source / "a.parquet", folder / "base"),
        Case(lines / "a.jsonl", folder / "first"),
    )
    assert attempt(base.run) == attempt(first.run) == 0
    cases = (
        Case(source, folder / "convert"),
        Case(source / "b.parquet", folder / "append", base.out),
        Case(lines, folder / "convert-lines"),
        Case(lines / "b.jsonl", folder / "append-lines", first.out),
        Case(source, folder / "convert-frame", is_frame=True),
    )
    trials = [Trial.of(case, rng) for case in cases]
    start, kills = time.perf_counter(), 0
    for n in itertools.count():
        if time.perf_counter() - start > seconds or n == rounds:
            print(f"{n} conversions, {kills} kills, no difference", flush=True)
            return 0
        trial = trials[n % len(trials)]
        temp = rng.choice([None, folder / f"temp-{n}"])
        case = replace(trial.case, out=folder / f"out-{n}", temp=temp)
        told: list[str] = []
        complaint = kill_until_done(case, trial, rng, n // len(trials), told)
        if complaint:
            print(f"{case.out.name}, killed {', '.join(told)}: {complaint}", flush=True)
            return 1
        kills += len(told)
    raise AssertionError("an endless loop ended")


def kill_until_done(
    case: Case, trial: Trial, rng: random.Random, n: int, told: list[str]
) -> str | None:
    """What went wrong, if something did; `told` gets each kill."""
    case.prepare()
    code: int | None = None
    while code is None or code == -signal.SIGKILL:
        before, is_over = case.receipts(), case.is_over()
        if len(told) == _MAX_KILLS:
            code = attempt(case.run)
        elif told and rng.random() < 0.5:
            wait_s = rng.random() ** 2 * trial.took_s
            code, when = attempt(case.run, wait_s=wait_s), f"after {wait_s:.3f} s"
        else:
            # The first kill goes through all changes, trial by trial.
            change = rng.choice(trial.changes) if told else trial.changes[n % len(trial.changes)]
            code, when = attempt(partial(case.run_killed, change)), f"at change {change}"
        if code == -signal.SIGKILL:
            told.append(when)
        after = case.receipts()
        again = [path for path, at in before.items() if after.get(path, at) != at]
        if again:
            return f"done again: {again}"
    refusal = ResumeError if case.base is None else UsageError
    if code != (refusal.exit_code if is_over else 0):
        return f"exit code {code}"
    if case.temp is not None and case.temp.exists() and list(case.temp.iterdir()):
        return f"something is left in {case.temp}"
    found, expected = contents(case.out), trial.expected
    other = [name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name)]
    return f"other files: {other}" if other else None


def write_source(folder: Path) -> Path:
    """Two files of several row groups, with nulls and strings of both kinds."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "g": rng.integers(0, 9, ROWS),
            "x": pa.array(rng.normal(size=ROWS), mask=rng.random(ROWS) < 0.1),
            "s": rng.choice(["a", "b", "c"], ROWS),
            "raw": pa.array([rng.bytes(5) for _ in range(ROWS)]),
        }
    )
    for i, name in enumerate(("a.parquet", "b.parquet")):
        half = table.slice(i * ROWS // 2, ROWS // 2)
        pq.write_table(half, folder / name, row_group_size=200)
    return folder


def write_lines(folder: Path) -> Path:
    """Two files of JSON lines, of which some cannot be read."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    for name in ("a.jsonl", "b.jsonl"):
        lines = [
            json.dumps({"g": int(g), "x": float(x), "s": "ab"[g % 2]})
            for g, x in zip(rng.integers(0, 9, ROWS // 4), rng.normal(size=ROWS // 4), strict=True)
        ]
        lines[7] = lines[300] = '{"g": 1, "x"'
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def attempt(run: Callable[[], None], wait_s: float | None = None) -> int:
    """Run in a fork, killed after a time if one is given; as `ended` says."""
    pid = begun(run)
    if wait_s is not None:
        time.sleep(wait_s)
        os.kill(pid, signal.SIGKILL)
    return ended(pid)


def begun(run: Callable[[], None]) -> int:
    """The id of a fork that runs something."""
    pid = os.fork()
    if pid == 0:
        try:
            run()
        except (ResumeError, UsageError) as error:
            os._exit(error.exit_code)
        except BaseException:  # noqa: BLE001 - the fork must not go on with the parent's work
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid


def ended(pid: int) -> int:
    """The exit code of a fork, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def at_changes(act: Callable[[int], None], also: Collection[str] = ()) -> None:
    """Call `act` with the number of each change of a file's name from now on, just before it.

    Args:
        act: what to do.
        also: events of `sys.audit` that count as well.
    """
    count = itertools.count()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in _CHANGES or event in also:
            act(next(count))

    sys.addaudithook(hook)


def count_changes(case: Case) -> int:
    """How many names an undisturbed case makes, changes and removes."""
    note = case.out.with_name(f"{case.out.name}-count")

    def run() -> None:
        seen: list[int] = []
        at_changes(seen.append)
        case.run()
        note.write_text(str(len(seen)))

    case.prepare()
    assert attempt(run) == 0
    return int(note.read_text())


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all files below a folder, but for the lock of one that was killed at its end."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path != folder / ".tmp" / "lock"
    }


if __name__ == "__main__":
    sys.exit(main())
