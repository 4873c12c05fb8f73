"""The log of an attempt: what was consumed, 16 bytes a step and little more.

A log is a file of TFRecord frames. The first byte of a record is its kind:

    A   attempt: JSON with format, number of the attempt, its first step, the steps that it leaves
        out, run's digest, versions
    W   window: epoch and window int64, then the ordinals of its shards, uint16 or uint32
    S   steps: first step and generation int64, steps uint32, row, then label fingerprints uint64
    E   end: steps consumed int64, written when training ended by itself
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfstream import storage
from tfstream.errors import CorruptionError, DataError, StorageError
from tfstream.format import framing
from tfstream.format.check import Finding
from tfstream.lineage.tally import UINT64, Piece
from tfstream.skips import Skips

FORMAT = 0

_WINDOW = struct.Struct("<cqqB")
_STEPS = struct.Struct("<cqqI")
_END = struct.Struct("<cq")
_FRAME_HEAD = 12
_LONGEST_RECORD = 1 << 28
"""A frame that says it is longer is not one of a log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """How an attempt began."""

    number: int
    """0-based."""
    first_step: int
    """Step of the run at which it began."""
    run: str
    """Digest of the run's description: the log belongs to that run and no other."""
    versions: Mapping[str, str]
    """Versions of the libraries it ran with."""
    skips: Skips = field(default_factory=Skips)
    """Steps of the run that it leaves out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowShards:
    """The shards that a window was read from."""

    epoch: int
    window: int
    shards: np.ndarray
    """Ordinals, ascending, each once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What the log of one attempt holds, as far as it is whole."""

    path: Path
    attempt: Attempt
    pieces: tuple[Piece, ...]
    windows: tuple[WindowShards, ...]
    consumed: int | None
    """Steps of the run when training ended by itself; None if it was stopped, or still runs."""
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
        head = {
            "format": FORMAT,
            "attempt": attempt.number,
            "first_step": attempt.first_step,
            "skip_steps": attempt.skips.ranges,
            "run": attempt.run,
            "versions": dict(attempt.versions),
        }
        try:
            path.touch(exist_ok=False)
        except OSError as error:
            raise StorageError(
                f"cannot create the log {path}: {error.strerror or error}"
            ) from error
        self._write([b"A" + json.dumps(head).encode()])

    def append(self, pieces: Iterable[Piece], windows: Iterable[WindowShards] = ()) -> None:
        """Add steps, and the windows that are new among them.

        Raises:
            StorageError: if the disk does not take them.
        """
        records = [_encode_window(window) for window in windows]
        records += [_encode_piece(piece) for piece in pieces]
        if records:
            self._write(records)

    def end(self, consumed: int) -> None:
        """Say that training ended by itself."""
        self._write([_END.pack(b"E", consumed)])

    def _write(self, records: list[bytes]) -> None:
        # Opened anew each time: a fit that fails leaves no open file behind.
        try:
            with self.path.open("ab", buffering=0) as file:
                data = b"".join(map(framing.frame, records))
                if file.write(data) != len(data):
                    raise StorageError(f"cannot write the log {self.path}: the disk is full")
                os.fsync(file.fileno())
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(
                f"cannot write the log {self.path}: {error.strerror or error}"
            ) from error


def read(path: Path) -> Log:
    """The log, as far as it is whole.

    A torn last record is dropped and named; a record whose bytes are not those that were written is
    skipped and named.

    Raises:
        DataError: if the file is no log of this format.
        StorageError: if it cannot be read.
    """
    records, findings, corrupt = _records(storage.read(path), path.name)
    attempt: Attempt | None = None
    pieces: list[Piece] = []
    windows: list[WindowShards] = []
    consumed: int | None = None
    for i, record in enumerate(records):
        kind = record[:1]
        try:
            if i == 0:
                attempt = _decode_attempt(record)
            elif kind == b"S":
                pieces.append(_decode_piece(record))
            elif kind == b"W":
                windows.append(_decode_window(record))
            elif kind == b"E":
                consumed = _END.unpack(record)[1]
            else:
                raise ValueError(f"its kind is {kind!r}")
        except (ValueError, KeyError, TypeError, struct.error) as error:
            raise DataError(
                f"record {i} of {path} is not one of a log of format {FORMAT}: {error}; "
                "read it with the tfstream that wrote it"
            ) from error
    if attempt is None:
        raise DataError(
            f"{path} has no whole first record, so nothing of this attempt is left; remove the file"
        )
    return Log(
        path=path,
        attempt=attempt,
        pieces=tuple(pieces),
        windows=tuple(windows),
        consumed=consumed,
        corrupt=corrupt,
        findings=tuple(findings),
    )


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


def _records(data: bytes, name: str) -> tuple[list[bytes], list[Finding], bool]:
    """The whole records, what is wrong with the others, and whether bytes were changed."""
    records: list[bytes] = []
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
            records.append(framing.unframe(data[start:stop]))
        except ValueError as error:
            corrupt = True
            findings.append(
                Finding(where=name, what=f"byte {start}: {error}; the record is left out")
            )
            if not records:
                break
        start = stop
    return records, findings, corrupt


def _frame_stop(data: bytes, start: int) -> int | None:
    """Where the frame at `start` ends: beyond the data if torn, None if its length is damaged."""
    head = data[start : start + _FRAME_HEAD]
    if len(head) < _FRAME_HEAD:
        return len(data) + 1
    length = int.from_bytes(head[:8], "little")
    if length > _LONGEST_RECORD or framing.frame(bytes(length))[:_FRAME_HEAD] != head:
        return None
    return start + framing.OVERHEAD_BYTES + length


def _encode_piece(piece: Piece) -> bytes:
    steps = len(piece.row_fingerprints)
    return b"".join(
        (
            _STEPS.pack(b"S", piece.first_step, piece.generation, steps),
            piece.row_fingerprints.astype(UINT64).tobytes(),
            piece.label_fingerprints.astype(UINT64).tobytes(),
        )
    )


def _decode_piece(record: bytes) -> Piece:
    _, first_step, generation, steps = _STEPS.unpack_from(record)
    values = np.frombuffer(record, UINT64, offset=_STEPS.size)
    if len(values) != 2 * steps:
        raise ValueError(f"it has {len(values)} fingerprints for {steps} steps")
    values = values.astype(np.uint64)
    return Piece(
        first_step=first_step,
        generation=generation,
        row_fingerprints=values[:steps],
        label_fingerprints=values[steps:],
    )


def _encode_window(window: WindowShards) -> bytes:
    width = 2 if not len(window.shards) or int(window.shards.max()) < 1 << 16 else 4
    shards = window.shards.astype(f"<u{width}").tobytes()
    return _WINDOW.pack(b"W", window.epoch, window.window, width) + shards


def _decode_window(record: bytes) -> WindowShards:
    _, epoch, window, width = _WINDOW.unpack_from(record)
    shards = np.frombuffer(record, f"<u{width}", offset=_WINDOW.size).astype(np.int64)
    return WindowShards(epoch=epoch, window=window, shards=shards)


def _decode_attempt(record: bytes) -> Attempt:
    values: Any = json.loads(record[1:]) if record[:1] == b"A" else None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError("it does not say how the attempt began")
    skipped = (range(int(start), int(stop)) for start, stop in values.get("skip_steps", ()))
    return Attempt(
        number=int(values["attempt"]),
        first_step=int(values["first_step"]),
        run=str(values["run"]),
        skips=Skips.of(skipped),
        versions={str(name): str(version) for name, version in values["versions"].items()},
    )
