"""The progress of a conversion: what a program is told, and what a person sees."""

from __future__ import annotations

import itertools
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest

import tfstream
from tfstream.cli import main
from tfstream.conversion.convert import convert
from tfstream.conversion.options import ConvertOptions

ROWS = 3000
FIRST = {"parquet": ["read footers"], "csv": ["cut CSV", "infer types"]}
"""Stages before the rows of the sources are known."""
STAGES = ["hash sources", "sort by group", "code strings", "write shards", "write provenance"]
SPEED = re.compile(r"(, [\d,]+ rows/s)?(, [\d,]+ MB/s)?, (in )?\d+ s( left)?")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same rows in two Parquet files, and in two CSV files."""
    index = np.arange(ROWS)
    names = pa.array([["red", "green", None][i % 3] for i in index])
    table = pa.table({"month": index % 4, "x": index / 8, "line": names})
    found = {}
    for kind in ("parquet", "csv"):
        found[kind] = folder = tmp_path_factory.mktemp(kind)
        for name, start, stop in (("a", 0, 1001), ("b", 1001, ROWS)):
            part = table.slice(start, stop - start)
            if kind == "parquet":
                pq.write_table(part, folder / f"{name}.parquet", row_group_size=250)
            else:
                pcsv.write_csv(part, folder / f"{name}.csv")
    return found


@pytest.mark.parametrize("scheduler", ["threads", "processes", "synchronous"])
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_every_stage_counts_from_nothing_to_all(
    folders: dict[str, Path], kind: str, scheduler: str, tmp_path: Path
) -> None:
    """One task at a time; its rows are those of the data, its bytes those of the stage."""
    told: list[tfstream.Progress] = []
    options = ConvertOptions(partition_bytes=8_000, shard_bytes=8_000)
    convert(
        folders[kind],
        tmp_path / "out",
        group_by=["month"],
        options=options,
        scheduler=scheduler,
        progress=told.append,
    )
    stages = {name: list(steps) for name, steps in itertools.groupby(told, lambda one: one.stage)}
    assert list(stages) == FIRST[kind] + STAGES
    for name, steps in stages.items():
        first, last = steps[0], steps[-1]
        assert [one.tasks_done for one in steps] == list(range(last.tasks + 1))
        assert {(one.tasks, one.rows, one.size_bytes) for one in steps} == {
            (last.tasks, None if name in FIRST[kind] else ROWS, last.size_bytes)
        }
        assert (first.rows_done, first.bytes_done, first.share) == (0, 0, 0)
        assert (last.rows_done, last.share) == (last.rows or 0, 1)
        assert last.bytes_done == (last.size_bytes or 0)
        for before, after in itertools.pairwise(steps):
            assert before.bytes_done <= after.bytes_done
            assert before.rows_done < after.rows_done or last.rows is None
    assert stages["sort by group"][-1].tasks > 4
    assert stages["hash sources"][1].rows_done in {1001, ROWS - 1001}


def test_where_nobody_watches_a_stage_is_two_lines(
    folders: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """On stderr; the result is alone on stdout."""
    source, out = str(folders["csv"]), str(tmp_path / "out")
    assert main(["convert", source, out, "--group-by", "month"]) == 0
    printed = capfd.readouterr()
    assert len(printed.out.splitlines()) == 1
    assert [SPEED.sub("", line) for line in printed.err.splitlines()] == [
        "cut CSV: 0 of 2 tasks (0 %)",
        "cut CSV: 2 of 2 tasks (100 %)",
        "infer types: 0 of 2 tasks (0 %)",
        "infer types: 2 of 2 tasks (100 %)",
        "hash sources: 0 of 3,000 rows (0 %)",
        "hash sources: 3,000 of 3,000 rows (100 %)",
        "sort by group: 0 of 3,000 rows (0 %)",
        "sort by group: 3,000 of 3,000 rows (100 %)",
        "code strings: 0 of 3,000 rows (0 %)",
        "code strings: 3,000 of 3,000 rows (100 %)",
        "write shards: 0 of 3,000 rows (0 %)",
        "write shards: 3,000 of 3,000 rows (100 %)",
        "write provenance: 0 of 3,000 rows (0 %)",
        "write provenance: 3,000 of 3,000 rows (100 %)",
    ]


def test_quiet_leaves_the_result_alone(
    folders: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing on stderr."""
    source, out = str(folders["csv"]), tmp_path / "out"
    assert main(["convert", source, str(out), "--group-by", "month", "--quiet"]) == 0
    printed = capfd.readouterr()
    assert printed.out.startswith(f"{out}: 3,000 rows in ")
    assert printed.err == ""


def on_terminal(arguments: list[str], **environment: str) -> tuple[str, str]:
    """What the program writes to stdout, a pipe, and to stderr, a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "tfstream.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env={**os.environ, "COLUMNS": "80", "TERM": "xterm", **environment},
    ) as program:
        os.close(theirs)
        shown = b""
        # A terminal whose last writer is gone ends with an error.
        while data := read_if_there(ours):
            shown += data
        os.close(ours)
        result, _ = program.communicate()
    assert program.returncode == 0
    return result, shown.decode()


def read_if_there(terminal: int) -> bytes:
    """Bytes, none at its end."""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""


def test_a_terminal_shows_a_bar_a_stage(folders: dict[str, Path], tmp_path: Path) -> None:
    """With percent, rows and speeds, each in one line that fits; the result is alone on stdout."""
    arguments = ["convert", str(folders["parquet"]), str(tmp_path / "out"), "--group-by", "month"]
    result, shown = on_terminal(arguments)
    assert len(result.splitlines()) == 1
    # Each frame begins where it has gone up to the first line and has wiped it.
    frame = shown.rpartition("\x1b[1A\x1b[2K")[2]
    bars = ESCAPE.sub("", frame).split("\r\n")
    assert bars.pop(0).startswith("read footers ")
    for stage, bar in zip(STAGES, bars, strict=False):
        assert re.fullmatch(rf"{stage} +━+ 100% 3,000 rows{SPEED.pattern} *", bar)
        assert len(bar) <= 80
    assert bars[len(STAGES) :] == [""]


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_a_terminal_that_cannot_draw_gets_lines(
    folders: dict[str, Path], tmp_path: Path, quiet: list[str]
) -> None:
    """No escape sequence; and nothing at all if it shall be quiet."""
    arguments = ["convert", str(folders["csv"]), str(tmp_path / "out"), "--group-by", "month"]
    _, shown = on_terminal([*arguments, *quiet], TERM="dumb")
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == (0 if quiet else 4 + 2 * len(STAGES))


def test_what_a_stopped_conversion_did_counts_at_once(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """With its rows, so that a stage that goes on begins where it was."""
    options = ConvertOptions(partition_bytes=8_000)
    first: dict[str, tfstream.Progress] = {}

    def stop(now: tfstream.Progress) -> None:
        if now.stage == "sort by group" and now.tasks_done == 3:
            raise KeyboardInterrupt

    def note(now: tfstream.Progress) -> None:
        first.setdefault(now.stage, now)

    def run(progress: Callable[[tfstream.Progress], None]) -> None:
        convert(
            folders["parquet"],
            tmp_path / "out",
            group_by=["month"],
            options=options,
            scheduler="synchronous",
            progress=progress,
        )

    with pytest.raises(KeyboardInterrupt):
        run(stop)
    run(note)
    assert first["hash sources"].is_done
    assert first["hash sources"].rows_done == ROWS
    assert first["sort by group"].tasks_done == 3
    assert 0 < first["sort by group"].rows_done < ROWS
    assert first["write shards"].rows_done == 0
