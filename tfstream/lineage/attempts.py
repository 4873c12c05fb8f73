"""The logs in a run's folder: one an attempt, or one for each of its workers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tfstream.lineage import log
from tfstream.lineage.log import Log
from tfstream.share import WHOLE, Share
from tfstream.storage import Place, PlaceT

_LOG_NAME = re.compile(r"attempt-(\d{3,})(?:-worker-(\d+)-of-(\d+))?\.log")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    """A log by its name."""

    path: Place
    number: int
    index: int
    count: int


def log_path(folder: PlaceT, number: int, share: Share = WHOLE) -> PlaceT:
    """Where the log of an attempt lies, or of one of its workers."""
    worker = f"-worker-{share.index:02d}-of-{share.count:02d}" if share.count > 1 else ""
    return folder / f"attempt-{number:03d}{worker}.log"


def next_number(folder: Place, share: Share, first_step: int) -> int:
    """The number of an attempt that begins at a step.

    The workers of an attempt know nothing of each other: who finds the newest one begun at this
    step by as many workers, without a log of its own, is one of them.
    """
    found = _named(folder)
    newest = max((named.number for named in found), default=-1)
    others = [named for named in found if named.number == newest]
    is_one_of_them = (
        share.count > 1
        and newest >= 0
        and all(o.count == share.count and o.index != share.index for o in others)
        and all(_begins_at(o.path, first_step) for o in others)
    )
    return newest if is_one_of_them else newest + 1


def read_all(folder: Place) -> dict[int, tuple[Log, ...]]:
    """The logs of each attempt, as far as they are whole, by worker.

    Raises:
        DataError: if a file is no log.
    """
    found: dict[int, list[Log]] = {}
    for named in sorted(_named(folder), key=lambda named: (named.number, named.index)):
        found.setdefault(named.number, []).append(log.read(named.path))
    return {number: tuple(logs) for number, logs in found.items()}


def leading(logs: Mapping[int, tuple[Log, ...]]) -> dict[int, Log]:
    """The log that speaks for each attempt: of its workers, that of the one that got furthest.

    All workers consume the same steps, each its part of them; a crash may leave some shorter.
    """
    return {number: max(found, key=_consumed) for number, found in logs.items()}


def _consumed(found: Log) -> int:
    return int(found.consumed.num_rows)


def _begins_at(path: Place, step: int) -> bool:
    found = log.read(path)
    return found.end is None and found.attempt.first_step == step


def _named(folder: Place) -> list[_Named]:
    names = [(path, _LOG_NAME.fullmatch(path.name)) for path in folder.glob("attempt-*.log")]
    return [
        _Named(path=path, number=int(n[1]), index=int(n[2] or 0), count=int(n[3] or 1))
        for path, n in names
        if n
    ]
