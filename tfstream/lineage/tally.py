"""The arithmetic of the callback: which steps were consumed, and which entry speaks for each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

UINT64 = np.dtype("<u8")


class Entry(Protocol):
    """What the pipeline says of some consecutive steps that one iterator produced."""

    @property
    def generation(self) -> int:
        """Number of the iterator; a later one has a larger number."""

    @property
    def first_step(self) -> int:
        """The first step, counted over the run."""

    @property
    def row_fingerprints(self) -> np.ndarray:
        """(steps,) uint64."""

    @property
    def label_fingerprints(self) -> np.ndarray:
        """(steps,) uint64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Consecutive steps that were consumed from one iterator."""

    first_step: int
    generation: int
    row_fingerprints: np.ndarray
    """(steps,) uint64."""
    label_fingerprints: np.ndarray
    """(steps,) uint64."""

    @property
    def stop(self) -> int:
        """The step after the last."""
        return self.first_step + len(self.row_fingerprints)


def consumed(start: int, batches: int, steps_per_epoch: int) -> int:
    """Steps of the run that are consumed once a Keras epoch has asked for some batches.

    An iterator ends with the epoch of the stream, and Keras never goes on to another one within an
    epoch of its own. With several steps an execution Keras asks for whole groups, so that it may
    ask for more than there are.

    Args:
        start: steps consumed when the Keras epoch began.
        batches: batches that it asked for since then.
        steps_per_epoch: of the stream.
    """
    return min(start + batches, epoch_end(start, steps_per_epoch))


def epoch_end(step: int, steps_per_epoch: int) -> int:
    """The first step of the stream's epoch that follows the one of `step`."""
    return (step // steps_per_epoch + 1) * steps_per_epoch


def match(entries: Iterable[Entry], start: int, stop: int) -> list[Piece]:
    """What the entries say of the steps from `start` to `stop`.

    Of several iterators that produced a step, the newest is the one that it was consumed from:
    Keras drops an iterator for good before it makes another. A step that no entry has is left out.

    Returns:
        Pieces in the order of their steps; none follows on another of the same generation.
    """
    newest_first = sorted(entries, key=lambda entry: (-entry.generation, entry.first_step))
    taken: list[Piece] = []
    free = [(start, stop)] if start < stop else []
    for entry in newest_first:
        entry_stop = entry.first_step + len(entry.row_fingerprints)
        rest = []
        for low, high in free:
            first, last = max(low, entry.first_step), min(high, entry_stop)
            if first >= last:
                rest.append((low, high))
                continue
            taken.append(_piece(entry, first, last))
            rest += [(a, b) for a, b in ((low, first), (last, high)) if a < b]
        free = rest
        if not free:
            break
    return _joined(sorted(taken, key=lambda piece: piece.first_step))


def _piece(entry: Entry, first: int, last: int) -> Piece:
    part = slice(first - entry.first_step, last - entry.first_step)
    return Piece(
        first_step=first,
        generation=entry.generation,
        row_fingerprints=entry.row_fingerprints[part],
        label_fingerprints=entry.label_fingerprints[part],
    )


def _joined(pieces: list[Piece]) -> list[Piece]:
    """The same pieces, those that follow on each other as one."""
    runs: list[list[Piece]] = []
    for piece in pieces:
        last = runs[-1][-1] if runs else None
        if last and last.stop == piece.first_step and last.generation == piece.generation:
            runs[-1].append(piece)
        else:
            runs.append([piece])
    return [
        Piece(
            first_step=run[0].first_step,
            generation=run[0].generation,
            row_fingerprints=np.concatenate([piece.row_fingerprints for piece in run]),
            label_fingerprints=np.concatenate([piece.label_fingerprints for piece in run]),
        )
        for run in runs
    ]
