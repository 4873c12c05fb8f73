"""The arithmetic of the callback: which entry speaks for each consumed step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

UINT64 = np.dtype("<u8")


class Entry(Protocol):
    """What the pipeline says of some steps that one iterator produced."""

    @property
    def generation(self) -> int:
        """Number of the iterator; a later one has a larger number."""

    @property
    def steps(self) -> np.ndarray:
        """(steps,) int64, ascending, counted over the run."""

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


def match(entries: Sequence[Entry], start: int, stop: int) -> list[Piece]:
    """What the entries say of the steps from `start` to `stop`.

    Of several iterators that produced a step, the newest is the one that it was consumed from:
    Keras drops an iterator for good before it makes another. A step that no entry has is left out.

    Returns:
        Pieces in the order of their steps; none follows on another of the same generation.
    """
    if not entries:
        return []
    steps = np.concatenate([entry.steps for entry in entries])
    generations = np.repeat([e.generation for e in entries], [len(e.steps) for e in entries])
    order = np.lexsort((generations, steps))
    steps, generations = steps[order], generations[order]
    is_newest = np.append(steps[1:] != steps[:-1], [True] * (len(steps) > 0))
    chosen = np.flatnonzero(is_newest & (steps >= start) & (steps < stop))
    steps, generations, order = steps[chosen], generations[chosen], order[chosen]
    cuts = np.flatnonzero((np.diff(steps) != 1) | (np.diff(generations) != 0)) + 1
    rows = np.concatenate([entry.row_fingerprints for entry in entries])
    labels = np.concatenate([entry.label_fingerprints for entry in entries])
    return [
        Piece(
            first_step=int(steps[part[0]]),
            generation=int(generations[part[0]]),
            row_fingerprints=rows[order[part]],
            label_fingerprints=labels[order[part]],
        )
        for part in np.split(np.arange(len(steps)), cuts)
        if len(part)
    ]
