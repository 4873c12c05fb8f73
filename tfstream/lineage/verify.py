"""Proof that the rows that a run's log leads to are the rows that were consumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tfstream import fingerprint
from tfstream.errors import CorruptionError, TfstreamError
from tfstream.format import check
from tfstream.format.check import Finding
from tfstream.lineage import labels
from tfstream.lineage.attempts import log_path
from tfstream.lineage.log import steps_of
from tfstream.order import NUMPY, window_with

if TYPE_CHECKING:
    from tfstream.format.subset import Subset
    from tfstream.lineage.fed import Fed
    from tfstream.lineage.log import Log
    from tfstream.lineage.run import Run
    from tfstream.share import Share
    from tfstream.storage import Place


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
        workers = run.workers
    except TfstreamError as error:
        yield Finding(where=str(run.folder), what=str(error))
        return
    logs = [log for found in workers.values() for log in found]
    yield from _check_attempts(run.folder, workers)
    yield from _check_logs(workers, run.description.digest)
    try:
        catalog = run.catalog
    except TfstreamError as error:
        yield Finding(where=run.description.training.folder, what=str(error))
        return
    yield from check.check_dataset(catalog, sources=True)
    try:
        # A condition on other columns than the keys reads blocks, which may be damaged.
        subset, _ = run.subset, run.places
    except TfstreamError as error:
        yield Finding(where=str(catalog.folder), what=str(error))
        return
    yield from _check_shards(logs, run.training, subset)
    for share, own in _by_share(logs, lambda log: log.attempt.share):
        names = {number: log.path.name for number, log in own.items()}
        yield from _check_steps(run.training, share, _logged(own), names, deep=deep)
    tested = [log for log in logs if log.tests]
    if not tested:
        return
    if run.validation is None:
        yield Finding(where=str(run.folder), what="it has steps of a validation that is not told")
        return
    try:
        run.validation.places  # noqa: B018 - computed now, and kept
    except TfstreamError as error:
        yield Finding(where=run.validation.feed.folder, what=str(error))
        return
    for share, own in _by_share(tested, lambda log: log.attempt.validation_share):
        names = {number: f"{log.path.name}, validation" for number, log in own.items()}
        yield from _check_steps(run.validation, share, _tested(own), names, deep=deep)


def _by_share(
    logs: Sequence[Log], share_of: Callable[[Log], Share]
) -> Iterator[tuple[Share, dict[int, Log]]]:
    """The logs that have one share each, by a number that tells them apart."""
    for share in dict.fromkeys(map(share_of, logs)):
        yield share, {i: log for i, log in enumerate(logs) if share_of(log) == share}


def _check_workers(logs: Sequence[Log]) -> Iterator[Finding]:
    """See that all workers of an attempt have a log and, if training came to its end, its steps."""
    shares = [log.attempt.share for log in logs]
    name, count = logs[0].path.name, shares[0].count
    for log, share in zip(logs, shares, strict=True):
        if log.path != log_path(log.path.parent, log.attempt.number, share):
            yield Finding(
                where=log.path.name, what=f"the log is of worker {share.index} of {share.count}"
            )
    if len({share.count for share in shares}) > 1:
        yield Finding(where=name, what="other logs of the attempt are of more or fewer workers")
        return
    for index in sorted(set(range(count)) - {share.index for share in shares}):
        yield Finding(where=name, what=f"worker {index} of {count} has no log of this attempt")
    if any(log.end is not None for log in logs):
        longest = max(logs, key=lambda log: log.consumed.num_rows)
        steps = steps_of(longest)
        for log in logs:
            if not np.array_equal(steps_of(log), steps):
                yield Finding(
                    where=log.path.name, what=f"its steps are not those of {longest.path.name}"
                )


def _check_logs(workers: Mapping[int, Sequence[Log]], run: str) -> Iterator[Finding]:
    for number, found in workers.items():
        for log in found:
            yield from _check_log(number, log, run)
        yield from _check_workers(found)


def _check_attempts(folder: Place, workers: Mapping[int, Sequence[Log]]) -> Iterator[Finding]:
    """Name the logs that are gone; that of the last attempt is missed only by its Parquet file."""
    there = {_stem(log.path) for found in workers.values() for log in found}
    gone = {_stem(path) for path in folder.glob("attempt-*.parquet")} - there
    stems = {stem.partition("-worker-")[0] for stem in gone}
    numbers = set(range(max(workers, default=-1) + 1)) - set(workers)
    gone |= {_stem(log_path(folder, number)) for number in numbers} - stems
    for name in sorted(gone):
        yield Finding(where=f"{name}.log", what="the log of this attempt is missing")


def _stem(path: Place) -> str:
    return path.name.removesuffix(path.suffix)


def _check_log(number: int, log: Log, run: str) -> Iterator[Finding]:
    yield from log.findings
    name = log.path.name
    if log.attempt.number != number:
        yield Finding(where=name, what=f"it is the log of attempt {log.attempt.number}")
    if log.attempt.run != run:
        yield Finding(where=name, what=f"it belongs to the run {log.attempt.run}, not to {run}")
    expected, skips = log.attempt.first_step, log.attempt.skips
    steps = steps_of(log)
    cuts = np.flatnonzero(np.diff(steps) != 1) + 1
    for piece in np.split(steps, cuts) if len(steps) else []:
        first, stop = int(piece[0]), int(piece[-1]) + 1
        if first != skips.after(expected, 0):
            yield _missing(name, expected, first)
        if skips.count(first, stop):
            yield Finding(where=name, what=f"it has left out steps from {first} on")
        expected = stop
    if log.end is not None and skips.after(log.end, 0) != skips.after(expected, 0):
        yield _missing(name, expected, log.end)


def _missing(name: str, start: int, stop: int) -> Finding:
    if start < stop:
        return Finding(where=name, what=f"the steps {start} to {stop - 1} are missing")
    return Finding(where=name, what=f"step {stop} follows on step {start - 1}")


def _check_shards(logs: Sequence[Log], fed: Fed, subset: Subset) -> Iterator[Finding]:
    """Compare the shards that were logged with those that the order leads to."""
    for log in logs:
        places = fed.places_of(log.attempt.share)
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
    tables = [log.consumed for log in logs.values()]
    counts = [table.num_rows for table in tables]
    return _Logged(
        attempt=np.repeat(np.array([*logs], np.int64), counts),
        **{
            field: np.concatenate([np.empty(0, type_), *(t[name].to_numpy() for t in tables)])
            for field, name, type_ in (
                ("step", "step", np.int64),
                ("rows", "row_fingerprint", np.uint64),
                ("labels", "label_fingerprint", np.uint64),
            )
        },
    )


def _tested(logs: Mapping[int, Log]) -> _Logged:
    pieces = [(n, test.steps.piece) for n, log in logs.items() for test in log.tests]
    return _Logged(
        attempt=np.concatenate([np.full(p.stop - p.first_step, n) for n, p in pieces]),
        step=np.concatenate([np.arange(p.first_step, p.stop) for _, p in pieces]),
        rows=np.concatenate([p.row_fingerprints for _, p in pieces]),
        labels=np.concatenate([p.label_fingerprints for _, p in pieces]),
    )


def _check_steps(
    fed: Fed, share: Share, logged: _Logged, names: Mapping[int, str], *, deep: bool
) -> Iterator[Finding]:
    """Recompute the fingerprints, window by window; names are those of the attempts' logs."""
    feed = fed.feed
    spec, places = feed.spec, fed.places_of(share)
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
            names, logged, wrong, "the rows that came are not those that the order leads to"
        )
        if not deep or feed.label is None:
            continue
        try:
            values = labels.label_bits(fed.subset, places.reads(epoch, window), feed.label)
        except CorruptionError as error:
            yield Finding(where=f"epoch {epoch}, window {window}", what=str(error))
            continue
        stored = fingerprint.fingerprints(NUMPY, values[places.picks(epoch, window)])
        wrong = lines[stored[place] != logged.labels[lines]]
        yield from _differing(
            names, logged, wrong, "the labels that came are not those of its rows in the shards"
        )


def _differing(
    names: Mapping[int, str], logged: _Logged, lines: np.ndarray, what: str
) -> Iterator[Finding]:
    for line in lines:
        where = f"{names[int(logged.attempt[line])]}, step {logged.step[line]}"
        yield Finding(where=where, what=what)
