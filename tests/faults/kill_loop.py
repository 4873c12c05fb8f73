"""Kill a conversion again and again, and see that it comes to the same end.

`python -m tests.faults.kill_loop --minutes 10` goes on for that long; a seed makes it repeatable, as
far as threads are. An attempt is a fork of this process, which has loaded everything and started no
thread, and dies by SIGKILL: at a random time, or just before the n-th change to a file's name. Then
the same call is made again, until one ends by itself. The law: its output has the bytes of an
undisturbed conversion, and no task whose receipt was there was done again.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfstream.conversion import convert as conversion
from tfstream.conversion.options import ConvertOptions
from tfstream.errors import ResumeError

ROWS = 2_000
_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}
_MAX_KILLS = 6
"""Kills in a row, after which an attempt may end."""


@dataclass(frozen=True)
class Case:
    """One conversion, to be begun as often as it takes."""

    source: Path
    out: Path
    temp: Path | None

    def run(self) -> None:
        """The conversion."""
        options = ConvertOptions(
            block_rows=20,
            shard_bytes=3_000,
            partition_bytes=12_000,
            temp=None if self.temp is None else str(self.temp),
        )
        conversion.convert(self.source, self.out, group_by=["g"], options=options)

    def run_killed(self, change: int) -> None:
        """The conversion, killed before the n-th change of a name, if there are so many."""
        at_changes(lambda n: os.kill(os.getpid(), signal.SIGKILL) if n == change else None)
        self.run()

    def is_over(self) -> bool:
        """Whether it was killed after its last word: the data set is there, and nothing else."""
        purposes = self.out.glob(".tmp/*/purpose.json")
        return (self.out / "manifest.json").exists() and not any(purposes)

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
    conversion._BATCH_SHARDS = 3
    with tempfile.TemporaryDirectory(prefix="kill-loop-") as name:
        return loop(Path(name), arguments.seed, arguments.minutes * 60, arguments.rounds)


def loop(folder: Path, seed: int, seconds: float, rounds: int | None) -> int:
    """Conversions, each killed up to `_MAX_KILLS` times, compared with one that was not."""
    rng = random.Random(seed)
    source = write_source(folder / "source")
    whole = Case(source, folder / "whole", None)
    start = time.perf_counter()
    assert attempt(whole.run) == 0
    took_s = time.perf_counter() - start
    expected = contents(whole.out)
    changes = count_changes(Case(source, folder / "counted", None), folder / "count")
    print(f"undisturbed: {took_s:.2f} s, {changes} changes of names", flush=True)
    order = rng.sample(range(changes), changes)
    kills = 0
    for n in itertools.count():
        if time.perf_counter() - start > seconds or n == rounds:
            print(f"{n} conversions, {kills} kills, no difference", flush=True)
            return 0
        case = Case(source, folder / f"out-{n}", rng.choice([None, folder / f"temp-{n}"]))
        told: list[str] = []
        for ordinal in itertools.count():
            before = case.receipts()
            is_over = case.is_over()
            if ordinal == _MAX_KILLS:
                code = attempt(case.run)
                told.append("whole")
            elif ordinal and rng.random() < 0.5:
                wait_s = rng.random() ** 2 * took_s
                code = attempt(case.run, wait_s=wait_s)
                told.append(f"after {wait_s:.3f} s")
            else:
                # The first kill goes through all changes, conversion by conversion.
                change = rng.randrange(changes) if ordinal else order[n % changes]
                code = attempt(lambda c=case, k=change: c.run_killed(k))
                told.append(f"at change {change}")
            after = case.receipts()
            again = [path for path, when in before.items() if after.get(path, when) != when]
            if again:
                print(f"{told}: done again: {again}", flush=True)
                return 1
            if code == (ResumeError.exit_code if is_over else 0):
                break
            if code != -signal.SIGKILL:
                print(f"{told}: exit code {code}", flush=True)
                return 1
            kills += 1
        left = [] if case.temp is None or not case.temp.exists() else list(case.temp.iterdir())
        if contents(case.out) != expected or left:
            print(f"{told}: another output in {case.out}, or {left} left", flush=True)
            return 1
    raise AssertionError("an endless loop ended")


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


def attempt(run: Callable[[], None], wait_s: float | None = None) -> int:
    """Run in a fork, killed after a time if one is given.

    Returns:
        Its exit code, or minus the signal that ended it.
    """
    pid = os.fork()
    if pid == 0:
        try:
            run()
        except ResumeError as error:
            os._exit(error.exit_code)
        except BaseException:  # noqa: BLE001 - the fork must not go on with the parent's work
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if wait_s is not None:
        time.sleep(wait_s)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def at_changes(act: Callable[[int], None]) -> None:
    """Call `act` with the number of each change of a file's name from now on, just before it."""
    count = itertools.count()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in _CHANGES:
            act(next(count))

    sys.addaudithook(hook)


def count_changes(case: Case, note: Path) -> int:
    """How many names an undisturbed conversion makes, changes and removes."""

    def run() -> None:
        seen: list[int] = []
        at_changes(seen.append)
        case.run()
        note.write_text(str(len(seen)))

    assert attempt(run) == 0
    return int(note.read_text())


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all files below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


if __name__ == "__main__":
    sys.exit(main())
