"""How Keras' epochs lie in those of the stream, and where an iterator has to end for that."""

from __future__ import annotations

from dataclasses import dataclass

from tfstream.skips import Skips


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """A stream's epoch is cut into Keras' epochs; no epoch of Keras crosses its end.

    Keras asks for the same number of batches in each epoch of its own, in whole groups of
    `steps_per_execution`. It drops an iterator when it asks it in vain, which ends that epoch, and
    when it had as many batches of it as an epoch of the stream has; else it goes on with it in the
    next epoch. A place where an epoch of Keras ends is the same for every attempt.
    """

    stream_steps: int
    """Steps of an epoch of the stream."""
    keras_steps: int
    """Steps of an epoch of Keras, at most as many."""
    skips: Skips
    """Steps of the run that the stream leaves out."""

    @classmethod
    def of(cls, stream_steps: int, asked: int | None, group: int, skips: Skips) -> Pace:
        """For a fit whose epochs ask for so many steps, None for all of the stream's."""
        whole = -(-(asked or stream_steps) // group) * group
        return cls(
            stream_steps=stream_steps,
            keras_steps=min(whole, stream_steps),
            skips=skips,
        )

    def first_step(self, epoch: int) -> int:
        """The step of the run at which an epoch of Keras begins."""
        stream_epoch, place = divmod(epoch, -(-self.stream_steps // self.keras_steps))
        return stream_epoch * self.stream_steps + place * self.keras_steps

    def epoch_of(self, step: int) -> int:
        """The epoch of Keras that has a step of the run."""
        stream_epoch, place = divmod(step, self.stream_steps)
        return stream_epoch * -(-self.stream_steps // self.keras_steps) + place // self.keras_steps

    def end(self, step: int) -> int:
        """The first step after the epoch of Keras that has `step`."""
        return self.first_step(self.epoch_of(step) + 1)

    def batches(self, start: int, stop: int) -> int:
        """How many steps from `start` on and below `stop` are delivered."""
        return stop - start - self.skips.count(start, stop)

    def is_cut(self, start: int) -> bool:
        """Whether an epoch of Keras that begins at `start` gets fewer batches than it asks for."""
        return self.batches(start, self.end(start)) < self.keras_steps

    def stop(self, start: int) -> int:
        """Where an iterator that begins at `start` ends: with the first epoch of Keras that is cut.

        One that gets all it asks for has the next go on with the same iterator.
        """
        if self.is_cut(start):
            return self.end(start)
        stream_end = (start // self.stream_steps + 1) * self.stream_steps
        hole = self.skips.first_from(start)
        return stream_end if hole is None else min(stream_end, self.end(hole))

    def after(self, start: int, batches: int) -> int:
        """Where the run stands when an epoch of Keras that began at `start` asked for `batches`.

        Keras may ask for more than there are: it takes whole groups, and learns of an end by
        asking in vain.
        """
        full = self.skips.after(start, self.keras_steps - 1) + 1
        return min(self.skips.after(start, batches), full, self.stop(start))
