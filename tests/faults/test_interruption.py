"""Conversions that were stopped, disturbed or tried twice."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.faults.kill_loop import contents, write_source
from tests.faults.permissions import bound_by_permissions
from tfstream.conversion.convert import append, convert
from tfstream.conversion.options import ConvertOptions
from tfstream.conversion.progress import Progress
from tfstream.conversion.reading import Bad
from tfstream.conversion.receipts import decode, encode
from tfstream.conversion.workspace import Workspace
from tfstream.errors import DataError, ResumeError, StorageError, UsageError
from tfstream.format.manifest import open_catalog

OPTIONS = ConvertOptions(block_rows=20, shard_bytes=3_000, partition_bytes=12_000)
STAGES = ("hash sources", "sort by group", "code strings", "write shards", "write provenance")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of two files."""
    return write_source(tmp_path / "source")


@pytest.fixture
def expected(source: Path, tmp_path: Path) -> dict[str, bytes]:
    """What an undisturbed conversion of it writes."""
    convert(source, tmp_path / "whole", group_by=["g"], options=OPTIONS)
    return contents(tmp_path / "whole")


def stopped(source: Path, out: Path, stage: str, options: ConvertOptions = OPTIONS) -> None:
    """A conversion that is interrupted as a stage begins."""

    def progress(now: Progress) -> None:
        if now.stage == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, out, group_by=["g"], options=options, progress=progress)


def test_a_conversion_killed_anywhere_comes_to_the_same_end() -> None:
    """A short run of the kill loop; `python -m tests.faults.kill_loop --minutes 10` is a long one."""
    command = [sys.executable, "-m", "tests.faults.kill_loop", "--rounds", "10", "--seed", "3"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.endswith("no difference\n")


@pytest.mark.parametrize("stage", STAGES[1:])
def test_finished_stages_are_not_done_again(
    source: Path, expected: dict[str, bytes], tmp_path: Path, stage: str
) -> None:
    """The second call counts their tasks as done, and does the others."""
    out = tmp_path / "out"
    stopped(source, out, stage)
    first: dict[str, tuple[int, int]] = {}

    def progress(now: Progress) -> None:
        # The footers are read again, since they tell whether the sources are the same.
        if now.stage != "read footers":
            first.setdefault(now.stage, (now.tasks_done, now.tasks))

    convert(source, out, group_by=["g"], options=OPTIONS, progress=progress)
    assert tuple(first) == STAGES
    for i, (done, total) in enumerate(first.values()):
        assert done == (total if i < STAGES.index(stage) else 0)
    assert contents(out) == expected


def damage_run(work: Path) -> Path:
    """Cut a byte off a run file."""
    path = min((work / "runs").glob("*.arrow"))
    path.write_bytes(path.read_bytes()[:-1])
    return path


def damage_shard(work: Path) -> Path:
    """Remove a shard."""
    path = min((work / "draft").rglob("*.tfrecord"))
    path.unlink()
    return path


def damage_receipt(work: Path) -> Path:
    """Cut a receipt in half."""
    path = work / "receipts" / "sort-by-group" / "000001.json"
    path.write_bytes(path.read_bytes()[:100])
    return path


@pytest.mark.parametrize("damage", [damage_run, damage_shard, damage_receipt])
def test_what_is_not_whole_is_done_again(
    source: Path, expected: dict[str, bytes], tmp_path: Path, damage: Callable[[Path], Path]
) -> None:
    """A receipt counts if its files have the sizes that it states."""
    out = tmp_path / "out"
    stopped(source, out, "write provenance")
    (work,) = (out / ".tmp").glob("*/")
    assert not str(damage(work)).startswith(str(out / "shards"))
    convert(source, out, group_by=["g"], options=OPTIONS)
    assert contents(out) == expected


@pytest.mark.parametrize(
    "other",
    [
        {"partition_bytes": 20_000},
        {"block_rows": 10},
        {"temp": "elsewhere"},
    ],
)
def test_other_options_begin_anew(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, int]
) -> None:
    """What was made for another purpose goes, run files elsewhere too."""
    monkeypatch.chdir(tmp_path)
    out, temp = tmp_path / "out", tmp_path / "temp"
    stopped(source, out, "write shards", ConvertOptions(partition_bytes=9_000, temp=str(temp)))
    assert list(temp.iterdir())
    options = ConvertOptions(**other)
    convert(source, out, group_by=["g"], options=options)
    assert list(temp.iterdir()) == []
    convert(source, tmp_path / "whole", group_by=["g"], options=options)
    assert contents(out) == contents(tmp_path / "whole")


def test_run_files_elsewhere_are_taken_up(
    source: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """And go when the data set is there."""
    temp = tmp_path / "temp"
    options = ConvertOptions(
        block_rows=20, shard_bytes=3_000, partition_bytes=12_000, temp=str(temp)
    )
    stopped(source, tmp_path / "out", "write shards", options)
    (runs,) = temp.iterdir()
    before = {path: path.stat().st_ino for path in runs.glob("*.arrow")}
    stopped(source, tmp_path / "out", "write provenance", options)
    assert before == {path: path.stat().st_ino for path in runs.glob("*.arrow")}
    convert(source, tmp_path / "out", group_by=["g"], options=options)
    assert list(temp.iterdir()) == []
    assert contents(tmp_path / "out") == expected


def test_a_conversion_killed_as_it_cleared_up_is_at_its_end(
    source: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data set is there; the next call removes the rest."""
    out = tmp_path / "out"
    clear = Workspace._clear

    def stop_at_the_end(work: Workspace) -> None:
        if work.is_published:
            raise KeyboardInterrupt
        clear(work)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Workspace, "_clear", stop_at_the_end)
        convert(source, out, group_by=["g"], options=OPTIONS)
    assert (out / "manifest.json").exists()
    assert (out / ".tmp").exists()
    convert(source, out, group_by=["g"], options=OPTIONS)
    assert contents(out) == expected
    with pytest.raises(ResumeError, match="already holds a data set"):
        convert(source, out, group_by=["g"], options=OPTIONS)


@pytest.mark.parametrize("left", ["lock", "nothing", "receipts"])
def test_whatever_was_left_behind_a_manifest_is_cleared_up(
    source: Path, tmp_path: Path, left: str
) -> None:
    """The same call is told nothing and finds the data set; others are refused; as for appends."""
    out = tmp_path / "out"

    def leave() -> dict[str, bytes]:
        before = contents(out)
        (out / ".tmp").mkdir()
        if left == "lock":
            (out / ".tmp" / "lock").write_text("host elsewhere, pid 7")
        elif left == "receipts":
            (out / ".tmp" / "0123456789abcdef" / "receipts").mkdir(parents=True)
        return before

    def again() -> None:
        convert(source / "a.parquet", out, group_by=["g"], options=OPTIONS)

    again()
    before = leave()
    for path, keys in ((source / "b.parquet", ["g"]), (source / "a.parquet", ["s"])):
        with pytest.raises(ResumeError, match="already holds a data set"):
            convert(path, out, group_by=keys, options=OPTIONS)
        assert before.items() <= contents(out).items()
        (out / ".tmp").mkdir(exist_ok=True)
    again()
    assert not (out / ".tmp").exists()
    append(source / "b.parquet", out, options=OPTIONS)
    appended = leave()
    assert appended != before
    append(source / "b.parquet", out, options=OPTIONS)
    assert not (out / ".tmp").exists()
    assert contents(out) == appended
    for call in (again, lambda: append(source / "b.parquet", out, options=OPTIONS)):
        with pytest.raises((ResumeError, UsageError), match="already"):
            call()


def test_a_stopped_append_outlives_a_conversion_that_is_refused(
    source: Path, tmp_path: Path
) -> None:
    """Its finished work is no leftover of the data set."""
    out = tmp_path / "out"
    convert(source / "a.parquet", out, group_by=["g"], options=OPTIONS)

    def progress(now: Progress) -> None:
        if now.stage == "write shards":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        append(source / "b.parquet", out, options=OPTIONS, progress=progress)
    before = contents(out / ".tmp")
    with pytest.raises(ResumeError, match="already holds a data set"):
        convert(source / "a.parquet", out, group_by=["g"], options=OPTIONS)
    assert before.items() <= contents(out / ".tmp").items()


@pytest.mark.parametrize("stage", ["infer types", "sort by group"])
def test_text_is_not_inferred_again(tmp_path: Path, stage: str) -> None:
    """The types of each stretch are kept as soon as it was parsed, unless the file has changed."""
    path, out = tmp_path / "x.csv", tmp_path / "out"
    path.write_text("g,x\n" + "".join(f"{i % 5},{i}.5\n" for i in range(2_000)))
    options = ConvertOptions(partition_bytes=2_000)
    seen: list[tuple[int, int]] = []

    def stop(now: Progress) -> None:
        if now.stage == stage and (now.tasks_done == 3 or stage != "infer types"):
            raise KeyboardInterrupt

    def look(now: Progress) -> None:
        if now.stage == "infer types" and not (seen and seen[-1][1]):
            seen.append((now.tasks_done, now.tasks))

    def call(progress: Callable[[Progress], None]) -> None:
        convert(
            path, out, group_by=["g"], options=options, progress=progress, scheduler="synchronous"
        )

    with pytest.raises(KeyboardInterrupt):
        call(stop)
    call(look)
    (done, tasks), *_ = seen
    assert done == (3 if stage == "infer types" else tasks)
    assert not (out / ".tmp").exists()
    convert(path, tmp_path / "whole", group_by=["g"], options=options)
    assert contents(out) == contents(tmp_path / "whole")


def test_types_of_text_that_changed_are_inferred_again(tmp_path: Path) -> None:
    """What was kept of the file that was is not taken for the one that is."""
    path, out = tmp_path / "x.csv", tmp_path / "out"
    path.write_text("g,x\n" + "1,2\n" * 100)
    options = ConvertOptions(partition_bytes=100)

    def stop(now: Progress) -> None:
        if now.stage == "infer types" and now.tasks_done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(path, out, group_by=["g"], options=options, progress=stop)
    path.write_text("g,x\n" + "1,2.5\n" * 100)
    convert(path, out, group_by=["g"], options=options)
    assert open_catalog(out).schema["x"].type == "double"


def test_a_source_that_changed_since_is_named(source: Path, tmp_path: Path) -> None:
    """Neither the old nor a mixture of both is converted."""
    out = tmp_path / "out"
    stopped(source, out, "write shards")
    path = source / "b.parquet"
    before = path.stat()
    os.utime(path, ns=(before.st_mtime_ns, 1_700_000_000_500_000_000))
    with pytest.raises(ResumeError) as caught:
        convert(source, out, group_by=["g"], options=OPTIONS)
    message = str(caught.value)
    assert message.startswith(f"{path} has changed since the conversion into {out} was stopped (")
    size = f"{before.st_size:,} bytes of "
    assert message.endswith(
        f" then, {size}2023-11-14 22:13:20.500+00:00 now); remove {out} to begin anew"
    )
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
    convert(source, out, group_by=["g"], options=OPTIONS)


@pytest.mark.parametrize("stage", STAGES)
def test_a_source_that_changes_meanwhile_is_named(source: Path, tmp_path: Path, stage: str) -> None:
    """Whenever it does; no data set is made and nothing is left."""
    path = source / "a.parquet"

    def progress(now: Progress) -> None:
        if now.stage == stage and now.tasks_done == 0:
            os.utime(path, ns=(0, 0))

    with pytest.raises(DataError) as caught:
        convert(source, tmp_path / "out", group_by=["g"], options=OPTIONS, progress=progress)
    assert str(caught.value) == f"{path} was changed while it was converted; convert again"
    assert not (tmp_path / "out").exists()


def test_a_second_conversion_into_the_folder_is_refused(
    source: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """While the first one lives; it ends undisturbed."""
    out = tmp_path / "out"
    refused: list[str] = []

    def progress(now: Progress) -> None:
        if now.tasks_done == 0:
            with pytest.raises(ResumeError) as caught:
                convert(source, out, group_by=["x"])
            refused.append(str(caught.value))

    convert(source, out, group_by=["g"], options=OPTIONS, progress=progress)
    owner = f"host {socket.gethostname()}, pid {os.getpid()}"
    assert refused == [
        f"another conversion writes into {out} ({owner}); wait for it or choose another folder"
    ] * (len(STAGES) + 1)  # And the stage that reads the footers.
    assert contents(out) == expected


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """The kernel refuses to write more into any file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size_bytes", [100, 3_000, 20_000])
def test_a_file_that_cannot_be_written_is_named(
    source: Path, expected: dict[str, bytes], tmp_path: Path, size_bytes: int
) -> None:
    """As on a full disk, at the first file, a receipt or the index; the next call goes on."""
    out = tmp_path / "out"
    with largest_file(size_bytes), pytest.raises(StorageError) as caught:
        convert(source, out, group_by=["g"], options=OPTIONS)
    assert str(caught.value).startswith(f"cannot write {out}/")
    assert str(caught.value).endswith(": File too large")
    convert(source, out, group_by=["g"], options=OPTIONS)
    assert contents(out) == expected


@pytest.mark.parametrize(
    ("mode", "text"),
    [(0o555, "cannot lock {}/.tmp/lock"), (0, "cannot look into {}")],
)
def test_a_folder_that_is_closed_is_named(
    source: Path, tmp_path: Path, mode: int, text: str
) -> None:
    """Whether it may not be written or not even entered; nothing is made there."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=mode)
    with bound_by_permissions(), pytest.raises(StorageError) as caught:
        convert(source, closed / "out", group_by=["g"])
    closed.chmod(0o755)
    assert str(caught.value) == text.format(closed / "out") + ": Permission denied"
    assert list(closed.iterdir()) == []


def test_a_damaged_row_group_is_named(source: Path, tmp_path: Path) -> None:
    """Though the footer is whole; a data set beside it stays as it was, and nothing is left."""
    convert(source, tmp_path / "whole", group_by=["g"], options=OPTIONS)
    before = contents(tmp_path / "whole")
    path = source / "b.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = b"\xff" * 400
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"^{path}: rows [0-9]+ to [0-9]+ at byte "):
        convert(source, tmp_path / "out", group_by=["g"], options=OPTIONS)
    assert not (tmp_path / "out").exists()
    assert contents(tmp_path / "whole") == before


def test_a_receipt_gives_back_what_it_was_given(tmp_path: Path) -> None:
    """Every kind of value; lists for tuples."""
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    table = pa.table({"a": [1, None], "b": ["x", "y"]})
    bad = Bad(first_row=3, rows=1, reason="r", byte=7, raw=b"\xff")
    values = [
        None,
        True,
        3,
        "x",
        b"\0",
        [1, [2]],
        path,
        table,
        table.slice(0, 0),
        bad,
        table.schema,
    ]
    assert decode(encode(values)) == values
    for array in (np.arange(3), np.zeros(0, np.int32), np.array([1.5])):
        back = decode(encode(array))
        assert back.dtype == array.dtype
        assert (back == array).all()
    with pytest.raises(TypeError, match="^a receipt cannot hold set$"):
        encode({1})
    told = encode(path)
    path.write_bytes(b"ab")
    with pytest.raises(ValueError, match=f"^{path} has not 3 bytes any more$"):
        decode(told)
