"""Two conversions at once, in processes of their own."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.kill_loop import contents, write_source
from tfstream.conversion.convert import append, convert
from tfstream.conversion.options import ConvertOptions
from tfstream.errors import ResumeError, StorageError

OPTIONS = ConvertOptions(block_rows=20, shard_bytes=3_000, partition_bytes=12_000)
_OTHER = """
import sys
from tfstream.conversion.convert import append, convert
from tfstream.conversion.options import ConvertOptions

def progress(now):
    if now.stage == "write shards" and now.tasks_done == 0:
        print("there", flush=True)
        sys.stdin.readline()

how, source, out = sys.argv[1:]
options = ConvertOptions(block_rows=20, shard_bytes=3_000, partition_bytes=12_000)
if how == "convert":
    convert(source, out, group_by=["g"], options=options, progress=progress)
else:
    append(source, out, options=options, progress=progress)
"""


@contextmanager
def other(how: str, source: Path, out: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that waits as it begins to write shards, until a line comes."""
    command = [sys.executable, "-c", _OTHER, how, str(source), str(out)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "there\n"
            yield process
        finally:
            process.kill()


def begin(how: str, source: Path, out: Path) -> None:
    """The same call here."""
    if how == "convert":
        convert(source, out, group_by=["g"], options=OPTIONS)
    else:
        append(source, out, options=OPTIONS)


@pytest.mark.parametrize("how", ["convert", "append"])
def test_one_at_a_time_and_the_dead_block_nobody(tmp_path: Path, how: str) -> None:
    """The second process is told the first one's host and pid; when that one is killed, it goes on."""
    source = write_source(tmp_path / "source")
    for name in ("whole", "out", "undisturbed"):
        if how == "append":
            convert(source / "a.parquet", tmp_path / name, group_by=["g"], options=OPTIONS)
    path = source / "b.parquet" if how == "append" else source
    begin(how, path, tmp_path / "whole")
    out = tmp_path / "out"
    with other(how, path, out) as process:
        owner = f"host {socket.gethostname()}, pid {process.pid}"
        with pytest.raises(ResumeError) as caught:
            begin(how, path, out)
        assert str(caught.value) == (
            f"another conversion writes into {out} ({owner}); wait for it or choose another folder"
        )
        process.kill()
        process.wait()
        assert (out / ".tmp" / "lock").read_text() == owner
        begin(how, path, out)
    assert contents(out) == contents(tmp_path / "whole")
    with other(how, path, tmp_path / "undisturbed") as process:
        with pytest.raises(ResumeError, match="^another conversion writes into"):
            begin(how, path, tmp_path / "undisturbed")
        assert process.communicate("go\n")[0] == ""
        assert process.returncode == 0
    assert contents(tmp_path / "undisturbed") == contents(tmp_path / "whole")


def test_a_lock_of_another_host(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It keeps out as long as it is held, which its file system tells; left behind, it is told of."""
    source, out = write_source(tmp_path / "source"), tmp_path / "out"
    (out / ".tmp").mkdir(parents=True)
    path = out / ".tmp" / "lock"
    path.write_text("host elsewhere, pid 7")
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ResumeError, match=r"\(host elsewhere, pid 7\); wait for it"):
            convert(source, out, group_by=["g"], options=OPTIONS)
        assert path.read_text() == "host elsewhere, pid 7"
    with caplog.at_level(logging.WARNING):
        convert(source, out, group_by=["g"], options=OPTIONS)
    told = f"taking over {out}, which a conversion of host elsewhere, pid 7 left"
    assert told in caplog.messages
    assert not (out / ".tmp").exists()


def test_a_file_system_without_locks_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is converted unguarded, and no folder is left that was made for it."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    source, out = write_source(tmp_path / "source"), tmp_path / "a" / "b" / "out"
    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StorageError) as caught:
        convert(source, out, group_by=["g"], options=OPTIONS)
    assert str(caught.value) == (
        f"cannot lock {out}/.tmp/lock: Function not implemented; its file system has no locks "
        "(flock): give an output on another one"
    )
    assert not (tmp_path / "a").exists()
