"""The records of a log: what was consumed, 16 bytes a step and little more.

A log is a file of TFRecord frames. The first byte of a record is its kind:

    A   attempt: JSON with format, number of the attempt, its first step, the steps that it leaves
        out, run's digest, versions, names of the metrics, when it began, what it goes on from, and
        the worker's shares of the training's and the validation's batches
    W   window: epoch and window int64, when it was asked for and when it was there float64, then
        the ordinals of its shards, uint16 or uint32
    S   steps: first step and generation int64, steps uint32, when they were written float64, row,
        then label fingerprints uint64
    M   metrics: first step int64, steps uint32, (steps, metrics) float32, NaN where none was told
    T   test: phase one byte, training step int64, then what S has, steps counted over all tests
    E   end: steps consumed int64, written when training ended by itself
    P   Parquet: SHA-256 of the file that has the attempt's S and M from now on, in their place

Times are seconds since 1970.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tfstream.format import strict_json
from tfstream.format.document import FORMAT
from tfstream.lineage.tally import UINT64, Piece
from tfstream.share import WHOLE, Share
from tfstream.skips import Skips

PHASES = ("validation", "test")
"""Of what is no training; a record has the place in this list."""

_WINDOW = struct.Struct("<cqqddB")
_STEPS = struct.Struct("<cqqId")
_METRICS = struct.Struct("<cqI")
_TEST = struct.Struct("<cBq")
_END = struct.Struct("<cq")
_HASH_BYTES = 32
_MOST = 1 << 20
"""Workers, and replicas of one, at most."""


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
    metrics: tuple[str, ...] = ()
    """Names of the metrics that are logged."""
    began_s: float = 0.0
    """When it began."""
    goes_on: bool = False
    """Whether it began with the weights that the attempt before it had at its end."""
    share: Share = WHOLE
    """The worker's part of each batch."""
    validation_share: Share = WHOLE
    """The same of the validation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Consecutive steps that were written at once."""

    piece: Piece
    time_s: float
    """When they were written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What consecutive steps told."""

    first_step: int
    values: np.ndarray
    """(steps, metrics) float32, NaN where a step told nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Consecutive steps of a validation or a test."""

    phase: str
    """One of `PHASES`."""
    at_step: int
    """Steps that training had consumed then."""
    steps: Steps


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowShards:
    """The shards that a window was read from."""

    epoch: int
    window: int
    shards: np.ndarray
    """Ordinals, ascending, each once."""
    asked_s: float = 0.0
    """When training asked for the first of its steps that it had."""
    ready_s: float = 0.0
    """When its batches were there."""

    @property
    def wait_s(self) -> float:
        """How long training waited for it."""
        return max(0.0, self.ready_s - self.asked_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Training ended by itself."""

    consumed: int
    """Steps of the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Steps and metrics are in a Parquet file."""

    sha256: str


Record = Attempt | Steps | Metrics | Checked | WindowShards | End | Moved


def encode(record: Record) -> bytes:  # noqa: PLR0911 - one return a kind of record
    """The bytes of a record."""
    if isinstance(record, Attempt):
        return b"A" + json.dumps(_head(record)).encode()
    if isinstance(record, Steps):
        return _steps(record)
    if isinstance(record, Metrics):
        head = _METRICS.pack(b"M", record.first_step, len(record.values))
        return head + record.values.astype("<f4").tobytes()
    if isinstance(record, Checked):
        head = _TEST.pack(b"T", PHASES.index(record.phase), record.at_step)
        return head + _steps(record.steps)
    if isinstance(record, WindowShards):
        width = 2 if not len(record.shards) or int(record.shards.max()) < 1 << 16 else 4
        place = record.epoch, record.window, record.asked_s, record.ready_s
        return _WINDOW.pack(b"W", *place, width) + record.shards.astype(f"<u{width}").tobytes()
    if isinstance(record, End):
        return _END.pack(b"E", record.consumed)
    return b"P" + bytes.fromhex(record.sha256)


def decode(record: bytes, attempt: Attempt | None) -> Record:
    """A record from its bytes.

    Args:
        record: the bytes.
        attempt: the log's first record; None for that one itself.

    Raises:
        ValueError: if it is no record, or not a first one.
    """
    try:
        if attempt is None:
            return _decode_attempt(record)
        return _decode(record, attempt)
    except (
        *(LookupError, TypeError, struct.error, AttributeError, OverflowError, RecursionError),
    ) as error:
        raise ValueError(str(error)) from error


def _decode(record: bytes, attempt: Attempt) -> Record:
    kind = record[:1]
    if kind == b"S":
        return _decode_steps(record)
    if kind == b"M":
        _, first_step, steps = _METRICS.unpack_from(record)
        values = np.frombuffer(record, "<f4", offset=_METRICS.size).astype(np.float32)
        return Metrics(first_step=first_step, values=values.reshape(steps, len(attempt.metrics)))
    if kind == b"T":
        _, phase, at_step = _TEST.unpack_from(record)
        if phase >= len(PHASES):
            raise ValueError(f"its phase is {phase}")
        steps = _decode_steps(record[_TEST.size :])
        return Checked(phase=PHASES[phase], at_step=at_step, steps=steps)
    if kind == b"W":
        _, epoch, window, asked_s, ready_s, width = _WINDOW.unpack_from(record)
        shards = np.frombuffer(record, f"<u{width}", offset=_WINDOW.size).astype(np.int64)
        return WindowShards(
            epoch=epoch, window=window, shards=shards, asked_s=asked_s, ready_s=ready_s
        )
    if kind == b"E":
        return End(consumed=_END.unpack(record)[1])
    if kind == b"P" and len(record) == 1 + _HASH_BYTES:
        return Moved(sha256=record[1:].hex())
    raise ValueError(f"its kind is {kind!r}")


def _head(attempt: Attempt) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "attempt": attempt.number,
        "first_step": attempt.first_step,
        "skip_steps": attempt.skips.ranges,
        "run": attempt.run,
        "versions": dict(attempt.versions),
        "metrics": attempt.metrics,
        "began_s": attempt.began_s,
        "goes_on": attempt.goes_on,
        "share": asdict(attempt.share),
        "validation_share": asdict(attempt.validation_share),
    }


def _decode_attempt(record: bytes) -> Attempt:
    values: Any = strict_json.parsed(record[1:]) if record[:1] == b"A" else None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError("it does not say how the attempt began")
    skipped = (range(int(start), int(stop)) for start, stop in values["skip_steps"])
    return Attempt(
        number=int(values["attempt"]),
        first_step=int(values["first_step"]),
        run=str(values["run"]),
        skips=Skips.of(skipped),
        versions={str(name): str(version) for name, version in values["versions"].items()},
        metrics=tuple(map(str, values["metrics"])),
        began_s=float(values["began_s"]),
        goes_on=bool(values["goes_on"]),
        share=_share(values["share"]),
        validation_share=_share(values["validation_share"]),
    )


def _share(values: Mapping[str, int]) -> Share:
    names = ("index", "count", "replicas")
    found = Share(**{name: int(values[name]) for name in names})
    if not 0 <= found.index < found.count <= _MOST or not 0 < found.replicas <= _MOST:
        raise ValueError(f"there is no share {found}")
    return found


def _steps(record: Steps) -> bytes:
    piece = record.piece
    count = len(piece.row_fingerprints)
    return b"".join(
        (
            _STEPS.pack(b"S", piece.first_step, piece.generation, count, record.time_s),
            piece.row_fingerprints.astype(UINT64).tobytes(),
            piece.label_fingerprints.astype(UINT64).tobytes(),
        )
    )


def _decode_steps(record: bytes) -> Steps:
    _, first_step, generation, steps, time_s = _STEPS.unpack_from(record)
    values = np.frombuffer(record, UINT64, offset=_STEPS.size)
    if len(values) != 2 * steps:
        raise ValueError(f"it has {len(values)} fingerprints for {steps} steps")
    values = values.astype(np.uint64)
    piece = Piece(
        first_step=first_step,
        generation=generation,
        row_fingerprints=values[:steps],
        label_fingerprints=values[steps:],
    )
    return Steps(piece=piece, time_s=time_s)
