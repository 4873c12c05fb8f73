"""The Keras callback: it counts what was consumed and writes down what the pipeline says of it."""

from __future__ import annotations

import os
import platform
import threading
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfstream import storage
from tfstream.errors import ResumeError, UsageError
from tfstream.lineage import description, log, tally
from tfstream.lineage.description import Description, Feed
from tfstream.lineage.run import attempts_in, log_path
from tfstream.pipeline.control import Entry
from tfstream.pipeline.stream import Stream
from tfstream.share import WHOLE

_FLUSH_S = 5.0
"""Seconds after which what was consumed is written, so that a crash loses no more."""


class LineageCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Writes down which rows each step of `fit` consumed, a few bytes a step, for `open_run`.

    Pass it to `model.fit` together with the stream's own dataset, as the first callback of the
    list: an exception in one before it would leave the step at hand out of the log. Each `fit` is
    an attempt with a log of its own. A dataset made from `stream.dataset()` by repeat, take or skip
    has other steps than the stream's and is refused as soon as that shows.

    What was consumed is written at least every `flush_steps` steps, every five seconds and at the
    end of an epoch; after an exception in `fit` call `close`, or the steps since then are missing.
    """

    async_safe = True
    """Keras may call `on_train_batch_end` from other threads, in any order; if this were False it
    would wait for the loss of every step."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        stream: Stream,
        validation: Stream | None = None,
        *,
        flush_steps: int = 256,
    ) -> None:
        """Nothing is written before `fit`.

        Args:
            folder: the run's; a new one, or that of an earlier attempt with the same streams.
            stream: what the model is trained on.
            validation: what it is validated on; written into the run's description.
            flush_steps: steps after which the log is written, at least 1.

        Raises:
            UsageError: if `flush_steps` is less than 1, or the stream is a worker's share.
        """
        super().__init__()
        if flush_steps < 1:
            raise UsageError(f"flush_steps must be at least 1, got {flush_steps}")
        if stream.share != WHOLE:
            raise UsageError(
                "the log of a run has no place for a worker's share of the batches yet; "
                "give the callback the whole stream, and fit its dataset()"
            )
        self._folder = storage.local_path(folder)
        self._stream, self._validation, self._flush_steps = stream, validation, flush_steps
        self._steps_per_epoch = stream.spec.steps_per_epoch
        self._lock = threading.Lock()
        self._writer: log.Writer | None = None
        self._entries: list[Entry] = []
        self._windows: set[tuple[int, int]] = set()
        self._has_begun = False
        self._start = self._batches = self._written = 0
        self._boundary, self._group = self._steps_per_epoch, 1
        self._next_flush, self._next_flush_s = 0, 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin an attempt.

        Raises:
            ResumeError: if the folder holds something else, or a run with other streams.
            StorageError: if it cannot be written.
        """
        del logs
        self.close()
        self._check_folder()
        self._entries, self._windows = [], set()
        self._has_begun = False
        self._stream.control.begin(0)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Let the next iterator start where training stands."""
        del logs
        if not self._has_begun:
            self._begin(epoch)
        with self._lock:
            self._start, self._batches = self._consumed(), 0
        self._boundary = tally.epoch_end(self._start, self._steps_per_epoch)
        self._group = int(self.model.steps_per_execution)
        self._stream.control.move(self._start)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the steps before this one, and write if it is time to."""
        del logs
        self._count(batch)
        asked = self._start + batch
        # An iterator reads its start at its first batch, so never before this one. Under a strategy
        # Keras makes and starts the next one as soon as the last group of an epoch is done.
        if batch and asked + self._group >= self._boundary > asked:
            self._stream.control.move(self._boundary)
        if asked >= self._next_flush or time.monotonic() >= self._next_flush_s:
            self._flush()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the steps up to this one."""
        del logs
        self._count(batch + 1)
        if batch < self._group and self._start + batch + 1 >= self._boundary:
            self._stream.control.move(self._boundary)

    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Take entries off the queue, lest a validation on the same stream waits for room there."""
        del logs
        if self._writer is not None and batch % self._flush_steps == 0:
            self._pop()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write down what is left of the epoch."""
        del epoch, logs
        self._flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """End the attempt."""
        del logs
        if self._writer is not None:
            self._flush()
            self._writer.end(self._written)
        self.close()

    def close(self) -> None:
        """Write down what was consumed, close the log; needed only after an exception in `fit`."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            self._write(writer)
        finally:
            self._stream.control.end()

    def _begin(self, epoch: int) -> None:
        """Open the log; `epoch` is Keras', which need not be 0."""
        first_step = epoch * int(self.params.get("steps") or self._steps_per_epoch)
        run = self._describe()
        number = max(attempts_in(self._folder), default=-1) + 1
        attempt = log.Attempt(
            number=number, first_step=first_step, run=run.digest, versions=_versions()
        )
        self._writer = log.Writer(log_path(self._folder, number), attempt)
        self._has_begun = True
        with self._lock:
            self._start, self._batches = first_step, 0
        self._written = first_step
        self._schedule()

    def _count(self, batches: int) -> None:
        with self._lock:
            self._batches = max(self._batches, batches)

    def _consumed(self) -> int:
        return tally.consumed(self._start, self._batches, self._steps_per_epoch)

    def _schedule(self) -> None:
        self._next_flush = self._written + self._flush_steps
        self._next_flush_s = time.monotonic() + _FLUSH_S

    def _flush(self) -> None:
        if self._writer is not None:
            self._write(self._writer)
            self._schedule()

    def _pop(self) -> None:
        while (entry := self._stream.control.pop()) is not None:
            self._entries.append(entry)

    def _write(self, writer: log.Writer) -> None:
        self._pop()
        with self._lock:
            stop = self._consumed()
        pieces = tally.match(self._entries, self._written, stop)
        writer.append(pieces, self._new_windows(stop))
        missing = stop - self._written - sum(piece.stop - piece.first_step for piece in pieces)
        first, self._written = self._written, stop
        self._entries = [e for e in self._entries if e.first_step + len(e.row_fingerprints) > stop]
        if missing:
            raise UsageError(
                f"{missing} of the steps {first} to {stop - 1} did not come from the stream of "
                "this callback; give fit the stream's own dataset(), without repeat, take or skip, "
                "and one callback a stream"
            )

    def _new_windows(self, stop: int) -> list[log.WindowShards]:
        """The windows with a step from `self._written` to `stop` that were not logged yet."""
        found = []
        block_shard = self._stream.subset.catalog.block_shard
        for entry in self._entries:
            key = (entry.epoch, entry.window)
            last = entry.first_step + len(entry.row_fingerprints)
            if key not in self._windows and entry.first_step < stop and last > self._written:
                self._windows.add(key)
                shards = np.unique(block_shard[entry.blocks])
                found.append(
                    log.WindowShards(epoch=entry.epoch, window=entry.window, shards=shards)
                )
        return found

    def _describe(self) -> Description:
        return Description(
            training=_feed(self._stream, self._folder),
            validation=None if self._validation is None else _feed(self._validation, self._folder),
        )

    def _check_folder(self) -> None:
        """Make the folder a run's, or see that it is this run's."""
        wanted = self._describe()
        if (self._folder / description.NAME).is_file():
            found = description.read(self._folder)
            if found.digest != wanted.digest:
                raise ResumeError(
                    f"{self._folder} holds a run on other streams ({_difference(found, wanted)}); "
                    "give another folder"
                )
            return
        if self._folder.exists() and any(self._folder.iterdir()):
            raise ResumeError(f"{self._folder} holds something else than a run; give a new folder")
        self._folder.mkdir(parents=True, exist_ok=True)
        description.write(self._folder, wanted)


def _feed(stream: Stream, folder: Path) -> Feed:
    catalog = stream.subset.catalog
    return Feed(
        dataset=catalog.digest,
        folder=catalog.folder.resolve().as_posix(),
        relative_folder=description.relative(catalog.folder.resolve(), folder.resolve()),
        recipe=stream.subset.recipe,
        spec=stream.spec,
        spec_digest=stream.digest,
        features=tuple(stream.features),
        label=stream.label_text,
        weight=stream.weight_text,
    )


def _difference(found: Description, wanted: Description) -> str:
    """The first thing in which two runs differ."""
    for name in ("dataset", "recipe", "spec", "features", "label", "weight"):
        if (a := getattr(found.training, name)) != (b := getattr(wanted.training, name)):
            return f"{name}: {a} there, {b} here"
    return "its validation stream is another one"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("tfstream", "tensorflow", "keras", "numpy"):
        distribution = next(iter(metadata.distributions(name=name)), None)
        found[name] = "unknown" if distribution is None else distribution.version
    return found
