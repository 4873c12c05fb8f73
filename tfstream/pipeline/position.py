"""Where a fit stands in a stream: one account of it for all callbacks of the stream."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any

import keras

from tfstream.errors import ResumeError, UsageError
from tfstream.pipeline import allocator
from tfstream.pipeline.control import Control
from tfstream.pipeline.pace import Pace
from tfstream.skips import Skips

if TYPE_CHECKING:
    from tfstream.pipeline.stream import Stream

_RAN_OUT = "Your input ran out of data"


class StreamCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """A callback that keeps account of where training stands, together with others of its stream.

    Several of them in one fit count the same batches once.
    """

    def __init__(self, stream: Stream) -> None:
        """Nothing happens before `fit`."""
        super().__init__()
        self._stream = stream
        self._position = stream.position

    @property
    def async_safe(self) -> bool:
        """Whether Keras may call `on_train_batch_end` from other threads, in any order.

        If not, it waits for the loss of every step. An epoch may have to be ended from there only
        if training begins in the middle of one, or steps are left out.
        """
        return not (self._position.is_moved or self._stream.skips)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Take part in a fit."""
        del logs
        self.close()
        self._position.join(self)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Let the next iterator start where training stands.

        Raises:
            ResumeError: if Keras begins at another epoch than that of the weights it restored.
        """
        del logs
        allocator.trim()  # Keras makes its iterator without Python's.
        self._position.begin_epoch(epoch, self)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the steps before this one."""
        del logs
        self._position.begin_batch(batch)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the steps up to this one."""
        del logs
        self._position.end_batch(batch, self)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Let Keras warn again."""
        del epoch, logs
        self._position.end_epoch()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leave the fit."""
        del logs
        self.close()

    def close(self) -> None:
        """Leave the fit; needed only after an exception in it."""
        self._position.leave(self)

    def settle(self) -> None:
        """Write down what was consumed, since a checkpoint is about to be made."""

    @property
    def asked_steps(self) -> int | None:
        """Batches of an epoch of Keras, as it tells its callbacks."""
        return (self.params or {}).get("steps")


class Position:
    """Counts what a fit consumes, and moves the control to where the next iterator has to start."""

    def __init__(self, control: Control, steps_per_epoch: int, skips: Skips) -> None:
        """In no fit yet."""
        self._control, self._steps, self._skips = control, steps_per_epoch, skips
        self._lock = threading.Lock()
        self._members: list[StreamCallback] = []
        self._fit: object = None
        self._thread = threading.current_thread()
        self._resumed: int | None = None
        self._epoch: int | None = None
        self._pace = Pace.of(steps_per_epoch, None, 1, skips)
        self._group, self._asks = 1, steps_per_epoch
        self._start = self._batches = self._stop = self._taken = 0
        self._quiet: warnings.catch_warnings[Any] | None = None

    @property
    def is_moved(self) -> bool:
        """Whether the next fit begins at a cursor."""
        return self._control.is_moved

    @property
    def consumed(self) -> int:
        """The step of the run that comes next."""
        with self._lock:
            return self._pace.after(self._start, self._batches)

    @property
    def is_at_epoch_end(self) -> bool:
        """Whether the epoch of Keras at hand has no step left."""
        with self._lock:
            consumed = self._pace.after(self._start, self._batches)
            return consumed == self._pace.after(self._start, self._pace.keras_steps)

    def join(self, member: StreamCallback) -> None:
        """Take part in a fit, a new one if need be."""
        # Keras gives one object to all callbacks of a fit, and another to those of the next.
        if member.params is not self._fit or member in self._members:
            thread = threading.current_thread()
            if self._members and self._thread is not thread and self._thread.is_alive():
                raise UsageError(
                    f"another fit of this stream runs in the thread {self._thread.name!r}; give "
                    "each fit a stream of its own, or call close() on the callbacks of one that "
                    "has ended"
                )
            self._thread = thread
            for other in list(self._members):
                other.close()
            self._fit, self._members = member.params, []
            self._resumed = self._epoch = None
            self._end_quiet()
        self._members.append(member)
        self._control.manage()
        restored = self._restored(member)
        if restored is not None:
            # Keras' backup keeps the epoch beside the weights, and not always the same one.
            member.model._initial_epoch = self.pace_of(member).epoch_of(restored)  # noqa: SLF001

    def leave(self, member: StreamCallback) -> None:
        """Take part no more; the last one lets each iterator take the next epoch again."""
        if member not in self._members:
            return
        self._members.remove(member)
        if not self._members:
            self._end_quiet()
            self._control.end()
            member.model._initial_epoch = None  # noqa: SLF001 - as `begin_epoch` says

    def resume(self, step: int, member: StreamCallback) -> None:
        """Let the fit begin at a step of the run, and at the epoch of Keras that has it."""
        # An epoch that is left out as a whole, as the first one of a fit, has no metrics to tell.
        self._resumed = step = self._skips.after(step, 0)
        member.model._initial_epoch = self.pace_of(member).epoch_of(step)  # noqa: SLF001 - no other way

    def pace_of(self, member: StreamCallback) -> Pace:
        """How the epochs of the member's fit lie in those of the stream."""
        return Pace.of(
            self._steps, member.asked_steps, int(member.model.steps_per_execution), self._skips
        )

    def begin_epoch(self, epoch: int, member: StreamCallback) -> None:
        """Let the next iterator start where training stands; once for all members.

        Raises:
            ResumeError: if Keras begins at another epoch than that of the weights it restored.
        """
        if epoch == self._epoch:
            return
        if self._epoch is None:
            self._pace = self.pace_of(member)
            self._group = int(member.model.steps_per_execution)
            self._asks = -(-(member.asked_steps or self._steps) // self._group) * self._group
            start = self._first_step(epoch, member)
        else:
            start = self.consumed
        if self._epoch is None or start >= self._stop:
            self._taken, self._stop = 0, self._pace.stop(start)
        else:
            self._taken += self._asks
        self._epoch = epoch
        with self._lock:
            self._start, self._batches = start, 0
        self._control.move(start, self._pace.stop(start))
        end = self._pace.end(start)
        if self._pace.batches(start, end) < end - self._pace.first_step(self._pace.epoch_of(start)):
            self._end_quiet()
            self._quiet = warnings.catch_warnings()
            self._quiet.__enter__()
            warnings.filterwarnings("ignore", _RAN_OUT)

    def end_epoch(self) -> None:
        """Let Keras warn again if an epoch is short of data."""
        self._end_quiet()

    def begin_batch(self, batch: int) -> None:
        """Count the batches before this one.

        Raises:
            StopIteration: if there is none. Keras ends its epoch by this. If it asked the iterator
                in vain, the counters of optimizer and Dropout might go on by one, by chance.
        """
        self._count(batch)
        left = self._pace.batches(self._start, self._stop)
        if batch >= left:
            raise StopIteration
        # An iterator reads its start at its first batch, so never before this one. Under a strategy
        # Keras makes and starts the next one as soon as the last group of an epoch is done.
        if batch and batch + self._group >= left > batch:
            self._move_on()

    def end_batch(self, batch: int, member: StreamCallback) -> None:
        """Count the batches up to this one.

        Raises:
            StopIteration: where the iterator is at its end and Keras would not learn of it.
        """
        asked = batch + 1
        self._count(asked)
        is_over = asked >= self._pace.batches(self._start, self._stop)
        if is_over and batch < self._group:
            self._move_on()
        # As above, at the end of a group that is the last of an epoch but not full.
        is_last = is_over and asked >= self._asks and self._taken + asked < self._steps
        if is_last and member is self._members[-1]:
            raise StopIteration

    def settle(self) -> None:
        """Let all members write down what was consumed."""
        for member in self._members:
            member.settle()

    def _move_on(self) -> None:
        self._control.move(self._stop, self._pace.stop(self._stop))

    def _count(self, batches: int) -> None:
        with self._lock:
            self._batches = max(self._batches, batches)

    def _first_step(self, epoch: int, member: StreamCallback) -> int:
        """Where a fit begins: at a checkpoint, at Keras' own backup, at a cursor, at its epoch."""
        origin, restored = self._control.take_origin(), self._restored(member)
        # Keras has read it, and never forgets it by itself: the next fit would begin there too.
        member.model._initial_epoch = None  # noqa: SLF001
        if self._resumed is not None:
            return self._resumed
        if restored is not None:
            if self._pace.epoch_of(restored) != epoch:
                raise ResumeError(
                    f"the restored weights go on at step {restored}, which is in epoch "
                    f"{self._pace.epoch_of(restored)}, but Keras begins at epoch {epoch}; put "
                    "BackupAndRestore before the callbacks of tfstream, and begin with a new "
                    "optimizer"
                )
            return restored
        return self._pace.first_step(epoch) if origin is None else origin

    def _restored(self, member: StreamCallback) -> int | None:
        """The step that comes after the weights which `BackupAndRestore` loaded, if it did."""
        model = member.model
        epoch = getattr(model, "_initial_epoch", None)
        if epoch is None or self._resumed is not None:
            return None
        optimizer = model.optimizer
        if optimizer is None or hasattr(optimizer, "inner_optimizer"):
            # Loss scaling leaves steps uncounted.
            return self.pace_of(member).first_step(epoch)
        # `iterations` is divided by those that are accumulated.
        return self._skips.after(0, int(optimizer._iterations))  # noqa: SLF001

    def _end_quiet(self) -> None:
        quiet, self._quiet = self._quiet, None
        if quiet is not None:
            quiet.__exit__(None, None, None)
