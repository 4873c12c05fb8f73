"""The validations of a fit, and tests beside it: what their steps consumed."""

from __future__ import annotations

import time
from typing import Any

from tfstream.errors import UsageError
from tfstream.lineage import tally
from tfstream.lineage.records import Checked, Steps


class Passes:
    """Counts the batches of a stream pass by pass; each goes on where the one before it ended."""

    def __init__(self, stream: Any) -> None:  # noqa: ANN401 - of the pipeline, which is not loaded
        """Before the first pass."""
        self._stream = stream
        self._start = self._batches = 0
        stream.control.manage()
        stream.control.listen()

    def begin(self) -> None:
        """Begin a pass. An iterator that lives on is there already, a new one starts there too."""
        self._batches = 0
        self._stream.control.move(self._start)

    def count(self, batches: int) -> None:
        """So many batches of the pass are done."""
        self._batches = max(self._batches, batches)

    def end(self, phase: str, at_step: int) -> list[Checked]:
        """What the pass consumed.

        Raises:
            UsageError: if it did not come from the stream.
        """
        steps = self._stream.steps_per_epoch
        # Keras asks for whole groups, so for more than there are.
        stop = min(self._start + self._batches, (self._start // steps + 1) * steps)
        entries = []
        while (entry := self._stream.control.pop()) is not None:
            entries.append(entry)
        pieces = tally.match(entries, self._start, stop)
        missing = stop - self._start - sum(piece.stop - piece.first_step for piece in pieces)
        first, self._start = self._start, stop
        if missing:
            raise UsageError(
                f"{missing} of the steps {first} to {stop - 1} of the validation did not come from "
                "its stream; give fit or evaluate its own dataset(), without repeat, take or skip, "
                "or leave validation= out"
            )
        now = time.time()
        return [
            Checked(phase=phase, at_step=at_step, steps=Steps(piece=piece, time_s=now))
            for piece in pieces
        ]

    def close(self) -> None:
        """Let the stream's iterators take epoch after epoch again."""
        self._stream.control.mute()
        self._stream.control.end()
