"""The Keras callback: it counts what was consumed and writes down what the pipeline says of it."""

from __future__ import annotations

import os
import platform
import threading
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tfstream import storage
from tfstream.errors import ResumeError, UsageError
from tfstream.lineage import description, log, tally
from tfstream.lineage.description import Description, Feed
from tfstream.lineage.run import attempts_in, log_path
from tfstream.pipeline.control import Entry
from tfstream.pipeline.position import StreamCallback
from tfstream.pipeline.stream import Stream
from tfstream.share import WHOLE

_FLUSH_S = 5.0
"""Seconds after which what was consumed is written, so that a crash loses no more."""


class LineageCallback(StreamCallback):
    """Writes down which rows each step of `fit` consumed, a few bytes a step, for `open_run`.

    Pass it to `model.fit` together with the stream's own dataset, as the first callback of the
    list: an exception in one before it would leave the step at hand out of the log. Keras'
    `BackupAndRestore` alone belongs before it, so that it sees what was restored. Each `fit` is an
    attempt with a log of its own. A dataset made from `stream.dataset()` by repeat, take or skip
    has other steps than the stream's and is refused as soon as that shows.

    What was consumed is written at least every `flush_steps` steps, every five seconds and at the
    end of an epoch; after an exception in `fit` call `close`, or the steps since then are missing.
    """

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
        super().__init__(stream)
        if flush_steps < 1:
            raise UsageError(f"flush_steps must be at least 1, got {flush_steps}")
        if stream.share != WHOLE:
            raise UsageError(
                "the log of a run has no place for a worker's share of the batches yet; "
                "give the callback the whole stream, and fit its dataset()"
            )
        self._folder = storage.local_path(folder)
        self._validation, self._flush_steps = validation, flush_steps
        self._writer: log.Writer | None = None
        self._entries: list[Entry] = []
        self._windows: set[tuple[int, int]] = set()
        self._has_begun = False
        self._written, self._next_flush, self._next_flush_s = 0, 0, 0.0
        self._thread = threading.get_ident()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin an attempt.

        Raises:
            ResumeError: if the folder holds something else, or a run with other streams.
            StorageError: if it cannot be written.
        """
        super().on_train_begin(logs)
        self._check_folder()
        self._entries, self._windows = [], set()
        self._has_begun = False
        self._thread = threading.get_ident()
        self._stream.control.listen()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Open the log, where training stands."""
        super().on_epoch_begin(epoch, logs)
        if not self._has_begun:
            self._begin()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Write if it is time to."""
        super().on_train_batch_begin(batch, logs)
        self._settle_in_time()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Write if it is time to and Keras calls this in step, as it does beside its backups."""
        super().on_train_batch_end(batch, logs)
        if threading.get_ident() == self._thread:
            self._settle_in_time()

    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Take entries off the queue, lest a validation on the same stream waits for room there."""
        del logs
        if self._writer is not None and batch % self._flush_steps == 0:
            self._pop()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write down what is left of the epoch."""
        self.settle()
        super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """End the attempt."""
        del logs
        if self._writer is not None:
            self.settle()
            self._writer.end(self._written)
        self.close()

    def close(self) -> None:
        """Write down what was consumed, close the log; needed only after an exception in `fit`."""
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                self._write(writer)
        finally:
            self._stream.control.mute()
            super().close()

    def settle(self) -> None:
        """Write down what was consumed."""
        if self._writer is not None:
            self._write(self._writer)
            self._schedule()

    def _begin(self) -> None:
        """Open the log."""
        run = self._describe()
        number = max(attempts_in(self._folder), default=-1) + 1
        attempt = log.Attempt(
            number=number,
            first_step=self._position.consumed,
            run=run.digest,
            versions=_versions(),
            skips=self._stream.skips,
        )
        self._writer = log.Writer(log_path(self._folder, number), attempt)
        self._has_begun = True
        self._written = attempt.first_step
        self._schedule()

    def _settle_in_time(self) -> None:
        if self._position.consumed >= self._next_flush or time.monotonic() >= self._next_flush_s:
            self.settle()

    def _schedule(self) -> None:
        self._next_flush = self._written + self._flush_steps
        self._next_flush_s = time.monotonic() + _FLUSH_S

    def _pop(self) -> None:
        while (entry := self._stream.control.pop()) is not None:
            self._entries.append(entry)

    def _write(self, writer: log.Writer) -> None:
        self._pop()
        stop = self._position.consumed
        pieces = tally.match(self._entries, self._written, stop)
        writer.append(pieces, self._new_windows(stop))
        first, self._written = self._written, stop
        missing = stop - first - self._stream.skips.count(first, stop)
        missing -= sum(piece.stop - piece.first_step for piece in pieces)
        self._entries = [entry for entry in self._entries if entry.steps[-1] >= stop]
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
            is_new = key not in self._windows
            if is_new and entry.steps[0] < stop and entry.steps[-1] >= self._written:
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
