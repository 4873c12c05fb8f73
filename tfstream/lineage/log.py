"""The log of an attempt as a file: appended to while training runs, read as far as it is whole."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from tfstream import storage
from tfstream.errors import CorruptionError, DataError, StorageError
from tfstream.format import framing, index_files
from tfstream.format.check import Finding
from tfstream.format.document import FORMAT
from tfstream.lineage import records, table
from tfstream.lineage.records import (
    Attempt,
    Checked,
    End,
    Metrics,
    Moved,
    Record,
    Steps,
    WindowShards,
)
from tfstream.storage import Place

_FRAME_HEAD = 12
_LONGEST_RECORD = 1 << 28
"""A frame that says it is longer is not one of a log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What the log of one attempt holds, as far as it is whole."""

    path: Place
    attempt: Attempt
    consumed: pa.Table
    """A line a consumed step, in the order in which they were logged; see `table.LOGGED`."""
    tests: tuple[Checked, ...]
    windows: tuple[WindowShards, ...]
    end: int | None
    """Steps of the run when training ended by itself; None if it was stopped, or still runs."""
    is_moved: bool
    """Whether the steps are in a Parquet file."""
    corrupt: bool
    """Whether a record is not what was written; its steps are missing."""
    findings: tuple[Finding, ...]
    """What is wrong with the file."""


class Writer:
    """Appends to a new log; an append is one write, so that a crash can tear only the last."""

    def __init__(self, path: Path, attempt: Attempt) -> None:
        """Create the log.

        Raises:
            StorageError: if there is one already, or it cannot be written.
        """
        self.path = path
        storage.create(path, framing.frame(records.encode(attempt)))

    def append(self, added: Iterable[Record]) -> None:
        """Add records.

        Raises:
            StorageError: if the disk does not take them.
        """
        data = b"".join(framing.frame(records.encode(record)) for record in added)
        if not data:
            return
        # Opened anew each time: a fit that fails leaves no open file behind.
        try:
            with self.path.open("ab", buffering=0) as file:
                if file.write(data) != len(data):
                    raise StorageError(f"cannot write the log {self.path}: the disk is full")
                os.fsync(file.fileno())
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(
                f"cannot write the log {self.path}: {error.strerror or error}"
            ) from error


def read(path: Place) -> Log:
    """The log, as far as it is whole.

    A torn last record is dropped and named; a record whose bytes are not those that were written is
    skipped and named.

    Raises:
        DataError: if the file is no log of this format, or a link out of its folder.
        StorageError: if it cannot be read.
    """
    frames, findings, corrupt = _frames(index_files.read_inside(path.parent, path), path.name)
    found = _decoded(path, frames)
    if not found:
        raise DataError(
            f"{path} has no whole first record, so nothing of this attempt is left; remove the file"
        )
    attempt = found[0]
    assert isinstance(attempt, Attempt)  # noqa: S101 - for the type checker: `decode` says so
    if not table.are_metrics(attempt.metrics):
        raise DataError(f"{path} names metrics that no log can have: {attempt.metrics!r}")
    moved = next((record for record in found if isinstance(record, Moved)), None)
    if moved is None:
        steps = [record for record in found if isinstance(record, Steps)]
        metrics = [record for record in found if isinstance(record, Metrics)]
        consumed = table.logged(attempt, steps, metrics)
    else:
        try:
            consumed = table.read(table.path_of(path), moved.sha256, attempt)
        except (DataError, StorageError) as error:
            corrupt, consumed = True, table.logged(attempt, [], [])
            findings.append(Finding(where=table.path_of(path).name, what=str(error)))
    return Log(
        path=path,
        attempt=attempt,
        consumed=consumed,
        tests=tuple(record for record in found if isinstance(record, Checked)),
        windows=tuple(record for record in found if isinstance(record, WindowShards)),
        end=next((record.consumed for record in found if isinstance(record, End)), None),
        is_moved=moved is not None,
        corrupt=corrupt,
        findings=tuple(findings),
    )


def compact(path: Path, sha256: str) -> None:
    """Leave out of a log what a Parquet file has now.

    Args:
        path: the log.
        sha256: of the Parquet file.

    Raises:
        CorruptionError: if a record of it was changed.
        StorageError: if it cannot be written; the log stays as it was.
    """
    frames, findings, corrupt = _frames(storage.read(path), path.name)
    if corrupt:
        raise CorruptionError(f"the log {path} is not what was written: {findings[0]}")
    kept = [record for record in _decoded(path, frames) if not isinstance(record, Steps | Metrics)]
    data = b"".join(framing.frame(records.encode(r)) for r in (*kept, Moved(sha256=sha256)))
    storage.publish(path, data)


def require_whole(log: Log) -> Log:
    """The log, if no record in it was changed.

    Raises:
        CorruptionError: if one was.
    """
    if log.corrupt:
        raise CorruptionError(
            f"the log {log.path} is not what was written: {'; '.join(map(str, log.findings))}; "
            "restore it, or ask for another attempt"
        )
    return log


def steps_of(log: Log) -> np.ndarray:
    """The steps of a log, counted over the run, in the order in which they were logged."""
    steps: np.ndarray = log.consumed["step"].to_numpy()
    return steps


def _decoded(path: Place, frames: list[bytes]) -> list[Record]:
    found: list[Record] = []
    attempt: Attempt | None = None
    for i, frame in enumerate(frames):
        try:
            record = records.decode(frame, attempt)
        except ValueError as error:
            raise DataError(
                f"record {i} of {path} is not one of a log of format {FORMAT}: {error}; "
                "read it with the tfstream that wrote it"
            ) from error
        if isinstance(record, Attempt):
            attempt = record
        found.append(record)
    return found


def _frames(data: bytes, name: str) -> tuple[list[bytes], list[Finding], bool]:
    """The whole records, what is wrong with the others, and whether bytes were changed."""
    frames: list[bytes] = []
    findings: list[Finding] = []
    corrupt, start = False, 0
    while start < len(data):
        stop = _frame_stop(data, start)
        if stop is None:
            corrupt = True
            findings.append(
                Finding(
                    where=name,
                    what=f"the bytes from {start} on are not a record; they are left out",
                )
            )
            break
        if stop > len(data):
            torn = f"the last record is torn at byte {start}; the steps of that flush are lost"
            findings.append(Finding(where=name, what=torn))
            break
        try:
            frames.append(framing.unframe(data[start:stop]))
        except ValueError as error:
            corrupt = True
            findings.append(
                Finding(where=name, what=f"byte {start}: {error}; the record is left out")
            )
            if not frames:
                break
        start = stop
    return frames, findings, corrupt


def _frame_stop(data: bytes, start: int) -> int | None:
    """Where the frame at `start` ends: beyond the data if torn, None if its length is damaged."""
    head = data[start : start + _FRAME_HEAD]
    if len(head) < _FRAME_HEAD:
        return len(data) + 1
    length = int.from_bytes(head[:8], "little")
    if length > _LONGEST_RECORD or framing.frame(bytes(length))[:_FRAME_HEAD] != head:
        return None
    return start + framing.OVERHEAD_BYTES + length
