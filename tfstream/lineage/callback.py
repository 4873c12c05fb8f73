"""The Keras callback: it counts what was consumed and writes down what the pipeline says of it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any

from tfstream import storage
from tfstream.errors import UsageError
from tfstream.lineage import attempts, description, log, table, tally
from tfstream.lineage.board import Board
from tfstream.lineage.description import Description
from tfstream.lineage.passes import Passes
from tfstream.lineage.records import Attempt, End, Record, Steps
from tfstream.lineage.spool import Spool
from tfstream.lineage.told import Told
from tfstream.lineage.windows import Windows
from tfstream.pipeline.control import Entry
from tfstream.pipeline.position import StreamCallback
from tfstream.pipeline.stream import Stream
from tfstream.share import WHOLE

_FLUSH_S = 5.0
"""Seconds after which what was consumed is written, so that a crash loses no more."""
_PUBLISH_S = 60.0
"""Seconds after which the Parquet file of a running attempt is written anew."""


class LineageCallback(StreamCallback):
    """Writes down which rows each step of `fit` consumed, a few bytes a step, for `open_run`.

    Pass it to `model.fit` together with the stream's own dataset, as the first callback of the
    list: an exception in one before it would leave the step at hand out of the log. Keras'
    `BackupAndRestore` alone belongs before it, so that it sees what was restored. Each `fit` is an
    attempt with a log of its own. A dataset made from `stream.dataset()` by repeat, take or skip
    has other steps than the stream's and is refused as soon as that shows.

    What was consumed is written at least every `flush_steps` steps, every five seconds and at the
    end of an epoch; after an exception in `fit` call `close`, or the steps since then are missing.
    When training ends, its steps become a Parquet file; while it runs one is written every minute
    or so, at the end of an epoch.

    With `validation`, the steps of each validation in `fit` are logged too, and passed to
    `model.evaluate` with that stream's dataset the callback logs a test.

    For a loop of one's own: `begin()`, `step()` behind each batch, `close()`.
    """

    def __init__(  # noqa: PLR0913 - whose, of what, and what else is written
        self,
        folder: str | os.PathLike[str],
        stream: Stream,
        validation: Stream | None = None,
        *,
        metrics: Sequence[str] = (),
        flush_steps: int = 256,
        tensorboard: bool = False,
    ) -> None:
        """Nothing is written before `fit`.

        Args:
            folder: the run's, or its URL, see `lineage.spool`; a new one, or that of an earlier
                attempt with the same streams.
            stream: what the model is trained on. Of several workers each has a share, and a log of
                its own in the same folder.
            validation: what it is validated on; its steps are logged unless it is `stream` itself.
            metrics: names of metrics to log by step, such as "loss". The loss is that of the step;
                others are as Keras tells them, mostly over the epoch so far. With several steps an
                execution the last one has them. Keras then waits for every step.
            flush_steps: steps after which the log is written, at least 1.
            tensorboard: whether the metrics, the epoch, rows a second and the wait for each window
                are event files too, see `lineage.board`, written when the log is.

        Raises:
            UsageError: if `flush_steps` is less than 1, or a metric comes twice or is called as a
                column of `Run.steps`.
        """
        super().__init__(stream)
        if flush_steps < 1:
            raise UsageError(f"flush_steps must be at least 1, got {flush_steps}")
        if isinstance(metrics, str) or not table.are_metrics(metrics):
            raise UsageError(
                "metrics is a list of names, each once and none of "
                f"{', '.join(table.STEPS.names)}; got {metrics!r}"
            )
        self._spool = Spool(storage.place(folder))
        self._validation, self._flush_steps = validation, flush_steps
        self._told = Told(tuple(metrics), stream.spec)
        self._writer: log.Writer | None = None
        self._entries: list[Entry] = []
        self._windows = self._new_windows()
        self._shows = tensorboard
        self._board: Board | None = None
        self._has_begun = False
        self._trained: Any = None
        self._looped: int | None = None
        self._test: Passes | None = None
        self._written, self._next_flush, self._next_flush_s = 0, 0, 0.0
        self._next_publish_s = 0.0
        self._thread = threading.get_ident()
        self._listens = False

    @property
    def async_safe(self) -> bool:
        """As `StreamCallback` says; metrics are of the step only if Keras waits for it."""
        return super().async_safe and not self._told.names

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin an attempt.

        Raises:
            ResumeError: if the folder holds something else, or a run with other streams.
            StorageError: if it cannot be written.
            UsageError: if another fit of the stream runs in another thread.
        """
        super().on_train_begin(logs)
        self._open()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Open the log, where training stands."""
        super().on_epoch_begin(epoch, logs)
        if not self._has_begun:
            self._begin(self._position.consumed, goes_on=self._trained is self.model)
            self._trained = self.model
        self._told.begin_epoch(self.model)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Write if it is time to."""
        super().on_train_batch_begin(batch, logs)
        self._windows.ask(self._position.consumed, self._written)
        self._settle_in_time()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Note what the step told; write if it is time to and Keras calls this in step."""
        before = self._consumed
        try:
            super().on_train_batch_end(batch, logs)
        finally:
            if self._told.names:
                self._told.add(before, self._consumed, logs or {})
        # It does beside its backups.
        if threading.get_ident() == self._thread:
            self._settle_in_time()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin a validation, or a test outside of `fit`."""
        del logs
        # What validates on the training's own stream takes batches that nobody has counted.
        if self._validation is None or self._validation is self._stream:
            return
        if self._test is None:
            self._test = Passes(self._validation)
        if self._writer is None:
            self._spool.open(self._describe())
            self._begin(self._last_step(), goes_on=True)
            self._has_begun = False
        self._test.begin()

    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Take entries off the queue, lest a validation on the same stream waits for room there."""
        del logs
        if self._writer is not None and batch % self._flush_steps == 0:
            self._pop()

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the batch."""
        del logs
        if self._test is not None:
            self._test.count(batch + 1)

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Write the steps of the validation or test.

        Raises:
            UsageError: if its batches did not come from the validation's stream.
        """
        del logs
        if self._test is None or self._writer is None:
            return
        in_fit = self._has_begun
        phase, at_step = ("validation", self._consumed) if in_fit else ("test", self._written)
        self._writer.append(self._test.end(phase, at_step))
        if not in_fit:
            self._test.close()
            self._writer = self._test = None
            self._spool.close()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write down what is left of the epoch."""
        self.settle()
        if self._writer is not None and time.monotonic() >= self._next_publish_s:
            self._publish(self._writer)
            self._spool.put(now=True)
        super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """End the attempt."""
        del logs
        self.close(ended=True)

    def begin(self, step: int = 0) -> None:
        """Begin an attempt of a loop of one's own.

        Args:
            step: of the run, at which the next iterator of the stream's dataset starts.

        Raises:
            As `on_train_begin`.
        """
        self.close()
        self._open()
        self._stream.control.manage()
        self._stream.control.move(step)
        self._looped = step
        self._begin(step, goes_on=False)

    def step(self, **metrics: float) -> None:
        """Tell that a loop of one's own has consumed a batch; a new iterator goes on behind it.

        Args:
            metrics: of the batch, as far as they were named.

        Raises:
            UsageError: without `begin`.
        """
        if self._looped is None:
            raise UsageError("step() counts the batches of a loop that begin() began")
        step = self._stream.skips.after(self._looped, 0)
        self._looped = step + 1
        self._told.set(step, metrics)
        self._stream.control.move(self._looped)
        self._settle_in_time()

    def close(self, *, ended: bool = False) -> None:
        """Write down what was consumed, close the log; needed after a loop or an exception.

        Args:
            ended: whether training came to its end.
        """
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                self._write(writer)
                if ended or self._looped is not None:
                    writer.append([End(consumed=self._written)])
                    log.compact(writer.path, self._publish(writer))
        finally:
            if self._board is not None:
                self._board.close()
            if self._listens:
                self._stream.control.mute()
            if self._looped is not None:
                self._stream.control.end()
            if self._test is not None:
                self._test.close()
            self._looped = self._test = self._board = None
            self._listens = False
            super().close()
            self._spool.close()

    def settle(self) -> None:
        """Write down what was consumed."""
        if self._writer is not None:
            self._flush(self._writer)
            self._spool.put(now=True)

    @property
    def _consumed(self) -> int:
        return self._position.consumed if self._looped is None else self._looped

    def _open(self) -> None:
        """Make ready for an attempt."""
        self._spool.open(self._describe())
        self._entries, self._windows = [], self._new_windows()
        self._has_begun = False
        self._thread = threading.get_ident()
        self._listens = True
        self._stream.control.listen()

    def _begin(self, first_step: int, *, goes_on: bool) -> None:
        """Open the log."""
        run = self._describe()
        share = self._stream.share
        number = attempts.next_number(self._spool.folder, share, first_step)
        attempt = Attempt(
            number=number,
            first_step=first_step,
            run=run.digest,
            versions=description.versions(),
            skips=self._stream.skips,
            metrics=self._told.names,
            began_s=time.time(),
            goes_on=goes_on and number > 0,
            share=share,
            validation_share=WHOLE if self._validation is None else self._validation.share,
        )
        self._writer = log.Writer(attempts.log_path(self._spool.folder, number, share), attempt)
        self._spool.put(now=True)
        if self._shows:
            self._board = Board(self._writer.path, self._told.names, self._stream.spec)
        self._has_begun = True
        self._written = attempt.first_step
        self._next_publish_s = time.monotonic() + _PUBLISH_S
        self._schedule()

    def _last_step(self) -> int:
        """Where the attempts so far have ended."""
        found = attempts.leading(attempts.read_all(self._spool.folder)).values()
        steps = [log.steps_of(one) for one in found]
        return max((int(found.max()) + 1 for found in steps if len(found)), default=0)

    def _settle_in_time(self) -> None:
        is_time = self._consumed >= self._next_flush or time.monotonic() >= self._next_flush_s
        if is_time and self._writer is not None:
            self._flush(self._writer)
            self._spool.put(now=False)

    def _flush(self, writer: log.Writer) -> None:
        self._write(writer)
        self._schedule()

    def _schedule(self) -> None:
        self._next_flush = self._written + self._flush_steps
        self._next_flush_s = time.monotonic() + _FLUSH_S

    def _pop(self) -> None:
        while (entry := self._stream.control.pop()) is not None:
            self._entries.append(entry)

    def _publish(self, writer: log.Writer) -> str:
        """Write the attempt's steps as Parquet; its SHA-256."""
        found = log.require_whole(log.read(writer.path))
        path = table.path_of(writer.path)
        sha256 = table.publish(path, found.attempt.number, found.consumed, self._stream.spec)
        self._next_publish_s = time.monotonic() + _PUBLISH_S
        return sha256

    def _write(self, writer: log.Writer) -> None:
        self._pop()
        stop = self._consumed
        pieces = tally.match(self._entries, self._written, stop)
        now = time.time()
        steps = [Steps(piece=piece, time_s=now) for piece in pieces]
        windows = self._windows.take(self._entries, self._written, stop)
        records: list[Record] = [*windows, *steps, *self._told.take(stop)]
        writer.append(records)
        if self._board is not None:
            self._board.write(records)
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

    def _new_windows(self) -> Windows:
        return Windows(self._stream.spec, self._stream.subset.catalog.block_shard)

    def _describe(self) -> Description:
        return Description(
            training=description.feed_of(self._stream, self._spool.place),
            validation=None
            if self._validation is None
            else description.feed_of(self._validation, self._spool.place),
        )
