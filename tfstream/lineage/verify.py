"""Proof that the rows that a run's log leads to are the rows that were consumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tfstream import fingerprint
from tfstream.errors import CorruptionError, TfstreamError
from tfstream.format import check
from tfstream.format.check import Finding
from tfstream.format.places import Places
from tfstream.lineage import labels
from tfstream.order import NUMPY, window_with

if TYPE_CHECKING:
    from tfstream.format.subset import Subset
    from tfstream.lineage.log import Log
    from tfstream.lineage.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class _Logged:
    """The logged steps of all attempts, by place in time."""

    attempt: np.ndarray
    step: np.ndarray
    rows: np.ndarray
    """Fingerprints of the rows."""
    labels: np.ndarray
    """Fingerprints of the labels."""


def findings(run: Run, *, deep: bool) -> Iterator[Finding]:
    """What is wrong with a run: its logs, its data set and sources, its steps.

    Args:
        run: the run.
        deep: recompute the fingerprints of the labels too, which reads the blocks of every logged
            step.
    """
    try:
        logs = run.logs
    except TfstreamError as error:
        yield Finding(where=str(run.folder), what=str(error))
        return
    for number, log in logs.items():
        yield from _check_log(number, log, run.description.digest)
    try:
        catalog = run.catalog
    except TfstreamError as error:
        yield Finding(where=run.description.training.folder, what=str(error))
        return
    yield from check.check_dataset(catalog, sources=True)
    try:
        # A condition on other columns than the keys reads blocks, which may be damaged.
        subset, places = run.subset, run.places
    except TfstreamError as error:
        yield Finding(where=str(catalog.folder), what=str(error))
        return
    yield from _check_shards(logs, places, subset)
    yield from _check_steps(run, _logged(logs), deep=deep)


def _check_log(number: int, log: Log, run: str) -> Iterator[Finding]:
    yield from log.findings
    name = log.path.name
    if log.attempt.number != number:
        yield Finding(where=name, what=f"it is the log of attempt {log.attempt.number}")
    if log.attempt.run != run:
        yield Finding(where=name, what=f"it belongs to the run {log.attempt.run}, not to {run}")
    expected, skips = log.attempt.first_step, log.attempt.skips
    for piece in log.pieces:
        if piece.first_step != skips.after(expected, 0):
            yield _missing(name, expected, piece.first_step)
        if skips.count(piece.first_step, piece.stop):
            yield Finding(where=name, what=f"it has left out steps from {piece.first_step} on")
        expected = piece.stop
    if log.consumed is not None and skips.after(log.consumed, 0) != skips.after(expected, 0):
        yield _missing(name, expected, log.consumed)


def _missing(name: str, start: int, stop: int) -> Finding:
    if start < stop:
        return Finding(where=name, what=f"the steps {start} to {stop - 1} are missing")
    return Finding(where=name, what=f"step {stop} follows on step {start - 1}")


def _check_shards(logs: Mapping[int, Log], places: Places, subset: Subset) -> Iterator[Finding]:
    """Compare the shards that were logged with those that the order leads to."""
    for log in logs.values():
        for logged in log.windows:
            try:
                blocks = places.reads(logged.epoch, logged.window)
            except TfstreamError as error:
                yield Finding(where=f"{log.path.name}, epoch {logged.epoch}", what=str(error))
                continue
            computed = np.unique(subset.catalog.block_shard[blocks])
            if not np.array_equal(computed, logged.shards):
                yield Finding(
                    where=f"{log.path.name}, epoch {logged.epoch}, window {logged.window}",
                    what=f"it was read from the shards {logged.shards.tolist()}, "
                    f"the order leads to {computed.tolist()}",
                )


def _logged(logs: Mapping[int, Log]) -> _Logged:
    pieces = [(number, piece) for number, log in logs.items() for piece in log.pieces]
    empty = np.empty(0, np.int64)
    return _Logged(
        attempt=np.concatenate([empty, *(np.full(p.stop - p.first_step, n) for n, p in pieces)]),
        step=np.concatenate([empty, *(np.arange(p.first_step, p.stop) for _, p in pieces)]),
        rows=np.concatenate([empty.astype(np.uint64), *(p.row_fingerprints for _, p in pieces)]),
        labels=np.concatenate(
            [empty.astype(np.uint64), *(p.label_fingerprints for _, p in pieces)]
        ),
    )


def _check_steps(run: Run, logged: _Logged, *, deep: bool) -> Iterator[Finding]:
    """Recompute the fingerprints, window by window."""
    feed = run.description.training
    spec, places = feed.spec, run.places
    epochs, in_epoch = np.divmod(logged.step, spec.steps_per_epoch)
    windows = window_with(NUMPY, spec, in_epoch)
    order = np.lexsort((in_epoch, windows, epochs))
    changes = np.flatnonzero((np.diff(epochs[order]) != 0) | (np.diff(windows[order]) != 0)) + 1
    for lines in np.split(order, changes) if len(order) else []:
        epoch, window = int(epochs[lines[0]]), int(windows[lines[0]])
        place = in_epoch[lines] - spec.first_step(window)
        rows = fingerprint.fingerprints(NUMPY, places.window_rows(epoch, window).astype(np.uint64))
        wrong = lines[rows[place] != logged.rows[lines]]
        yield from _differing(
            run, logged, wrong, "the rows that came are not those that the order leads to"
        )
        if not deep or feed.label is None:
            continue
        try:
            values = labels.label_bits(run.subset, places.reads(epoch, window), feed.label)
        except CorruptionError as error:
            yield Finding(where=f"epoch {epoch}, window {window}", what=str(error))
            continue
        stored = fingerprint.fingerprints(NUMPY, values[places.picks(epoch, window)])
        wrong = lines[stored[place] != logged.labels[lines]]
        yield from _differing(
            run, logged, wrong, "the labels that came are not those of its rows in the shards"
        )


def _differing(run: Run, logged: _Logged, lines: np.ndarray, what: str) -> Iterator[Finding]:
    for line in lines:
        name = run.logs[int(logged.attempt[line])].path.name
        yield Finding(where=f"{name}, step {logged.step[line]}", what=what)
