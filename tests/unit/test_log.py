"""The log of an attempt: what is written is read, and what is damaged is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfstream.errors import CorruptionError, DataError, StorageError
from tfstream.lineage import log, table
from tfstream.lineage.records import Attempt, Checked, End, Metrics, Steps, WindowShards
from tfstream.lineage.tally import Piece
from tfstream.spec import Spec

ATTEMPT = Attempt(
    number=3,
    first_step=40,
    run="ab" * 32,
    versions={"keras": "3.15.1"},
    metrics=("loss", "auc"),
    began_s=12.5,
    goes_on=True,
)


def piece(first_step: int, steps: int, generation: int = 1) -> Piece:
    """Some steps with fingerprints that use all bits."""
    values = np.random.default_rng(first_step).integers(0, 2**64, (2, steps), np.uint64)
    return Piece(
        first_step=first_step,
        generation=generation,
        row_fingerprints=values[0],
        label_fingerprints=values[1],
    )


def written(path: Path, flushes: int = 3, steps: int = 256) -> list[int]:
    """A log of some flushes; where each write ended."""
    writer = log.Writer(path, ATTEMPT)
    ends = [path.stat().st_size]
    for i in range(flushes):
        writer.append([Steps(piece=piece(40 + i * steps, steps, i), time_s=float(i))])
        ends.append(path.stat().st_size)
    return ends


def flip(path: Path, place: int) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 16
    path.write_bytes(data)


def first_steps(found: log.Log) -> list[int]:
    """The first step of each flush of three."""
    return log.steps_of(found)[::3].tolist()


def test_a_log_reads_back_as_it_was_written(tmp_path: Path) -> None:
    """Attempt, steps, metrics, windows, tests and end round trip."""
    path = tmp_path / "attempt-003.log"
    writer = log.Writer(path, ATTEMPT)
    windows = [
        WindowShards(epoch=0, window=2, shards=np.array([0, 7, 65_535]), asked_s=1.5, ready_s=2.0),
        WindowShards(epoch=5, window=0, shards=np.array([65_536])),
        WindowShards(epoch=5, window=1, shards=np.array([], np.int64)),
    ]
    pieces = [piece(40, 5), piece(45, 1, 2), piece(46, 2, 2)]
    told = Metrics(first_step=44, values=np.array([[1, np.nan], [2, 3]], np.float32))
    test = Checked(phase="test", at_step=46, steps=Steps(piece=piece(7, 4), time_s=9.0))
    writer.append([*(Steps(piece=p, time_s=3.0) for p in pieces[:2]), *windows])
    writer.append([Steps(piece=pieces[2], time_s=4.0), told, test])
    writer.append([End(consumed=48)])
    found = log.read(path)
    assert found.attempt == ATTEMPT
    assert log.steps_of(found).tolist() == list(range(40, 48))
    rows, labels = (
        np.concatenate([getattr(p, name) for p in pieces])
        for name in ("row_fingerprints", "label_fingerprints")
    )
    np.testing.assert_array_equal(found.consumed["row_fingerprint"].to_numpy(), rows)
    np.testing.assert_array_equal(found.consumed["label_fingerprint"].to_numpy(), labels)
    assert found.consumed["time_s"].to_pylist() == [3.0] * 6 + [4.0] * 2
    assert found.consumed["loss"].to_pylist() == [None] * 4 + [1, 2, None, None]
    assert found.consumed["auc"].to_pylist() == [None] * 5 + [3, None, None]
    assert [(w.epoch, w.window, w.shards.tolist(), w.wait_s) for w in found.windows] == [
        (w.epoch, w.window, w.shards.tolist(), w.wait_s) for w in windows
    ]
    (read,) = found.tests
    assert (read.phase, read.at_step, read.steps.piece.first_step) == ("test", 46, 7)
    np.testing.assert_array_equal(
        read.steps.piece.row_fingerprints, test.steps.piece.row_fingerprints
    )
    assert found.end == 48
    assert found.findings == ()
    assert log.require_whole(found) is found


def test_what_moved_to_parquet_reads_the_same(tmp_path: Path) -> None:
    """The log without its steps, and the file beside it, are the log; any flipped byte is found."""
    path = tmp_path / "attempt-003.log"
    written(path, steps=70)
    before = log.read(path)
    spec = Spec(
        subset="",
        rows=64_000,
        blocks=9,
        batch_size=16,
        remainder="keep",
        shuffle="global",
        window_steps=50,
        stretches=1,
        seed=1,
    )
    log.compact(path, table.publish(table.path_of(path), 3, before.consumed, spec))
    after = log.read(path)
    assert after.is_moved
    assert after.consumed.equals(before.consumed)
    assert after.attempt == before.attempt
    parquet = table.path_of(path)
    data = parquet.read_bytes()
    for place in range(0, len(data), 37):
        parquet.write_bytes(data)
        flip(parquet, place)
        found = log.read(path)
        assert found.corrupt
        assert str(found.findings[0]).startswith("attempt-003.parquet: its SHA-256 is ")
    parquet.unlink()
    assert log.read(path).corrupt


def test_a_step_takes_at_most_24_bytes(tmp_path: Path) -> None:
    """Flushed every 256 steps, with windows of 64 steps that are read from 128 shards each."""
    path = tmp_path / "attempt-000.log"
    writer = log.Writer(path, ATTEMPT)
    begin = path.stat().st_size
    for i in range(16):
        windows = [WindowShards(epoch=0, window=4 * i + j, shards=np.arange(128)) for j in range(4)]
        writer.append([Steps(piece=piece(40 + 256 * i, 256), time_s=1.0), *windows])
    assert (path.stat().st_size - begin) / (16 * 256) <= 24


def test_a_torn_tail_loses_only_the_last_flush(tmp_path: Path) -> None:
    """Wherever the last write is cut, all flushes before it are read, and the finding says where."""
    path = tmp_path / "attempt-000.log"
    ends = written(path, steps=3)
    data = path.read_bytes()
    for cut in range(ends[-2] + 1, ends[-1]):
        path.write_bytes(data[:cut])
        found = log.read(path)
        assert first_steps(found) == [40, 43]
        assert not found.corrupt
        assert [str(finding) for finding in found.findings] == [
            f"attempt-000.log: the last record is torn at byte {ends[-2]}; the steps of that flush are lost"
        ]


def test_a_flipped_byte_is_found_wherever_it_is(tmp_path: Path) -> None:
    """No change of a byte goes unnoticed, and none is taken for a torn tail unless nothing could tell."""
    path = tmp_path / "attempt-000.log"
    ends = written(path, steps=3)
    data = path.read_bytes()
    for place in range(ends[0], ends[-1]):
        path.write_bytes(data)
        flip(path, place)
        found = log.read(path)
        assert found.corrupt
        assert len(found.findings) == 1
        with pytest.raises(CorruptionError, match="is not what was written"):
            log.require_whole(found)


def test_the_flushes_after_a_changed_record_are_still_read(tmp_path: Path) -> None:
    """A record whose data was changed is skipped alone."""
    path = tmp_path / "attempt-000.log"
    ends = written(path, steps=3)
    flip(path, ends[1] - 10)
    found = log.read(path)
    assert first_steps(found) == [43, 46]
    assert str(found.findings[0]).startswith(
        f"attempt-000.log: byte {ends[0]}: the record at byte 0 has a wrong"
    )


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    """An empty file, and a file of other records."""
    path = tmp_path / "attempt-000.log"
    path.write_bytes(b"")
    with pytest.raises(DataError, match="has no whole first record"):
        log.read(path)
    written(tmp_path / "attempt-001.log")
    path.write_bytes((tmp_path / "attempt-001.log").read_bytes()[16:])
    with pytest.raises(DataError, match="has no whole first record"):
        log.read(path)
    path.write_bytes(log.framing.frame(b"S"))
    with pytest.raises(DataError, match="record 0 of .* is not one of a log of format 1"):
        log.read(path)


def test_a_log_is_there_with_its_first_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other workers look into the folder at any time: they see no log, or one that says whose."""
    path, seen = tmp_path / "attempt-000.log", []
    for name in ("link", "fsync", "replace"):
        real = getattr(os, name)

        def looking(*arguments: Any, real: Any = real, **more: Any) -> Any:
            seen.append(path.exists() and log.read(path).attempt)
            done = real(*arguments, **more)
            seen.append(path.exists() and log.read(path).attempt)
            return done

        monkeypatch.setattr(os, name, looking)
    log.Writer(path, ATTEMPT)
    assert seen[0] is False
    assert seen[-1] == ATTEMPT
    assert all(one in (False, ATTEMPT) for one in seen)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_log_is_never_overwritten(tmp_path: Path) -> None:
    """Two attempts that took the same number do not share a file."""
    path = tmp_path / "attempt-000.log"
    written(path)
    with pytest.raises(StorageError, match=r"cannot create .*attempt-000.log: File exists"):
        log.Writer(path, ATTEMPT)
