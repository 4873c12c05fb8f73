"""A worker's share: which rows of each batch of an order are its own, as a few numbers."""

from __future__ import annotations

from dataclasses import dataclass

from tfstream.arrays import Array, Arrays
from tfstream.errors import UsageError
from tfstream.spec import Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one of several workers reads of each batch; the batch is their parts side by side."""

    index: int = 0
    """0 to `count` - 1."""
    count: int = 1
    """Workers."""
    replicas: int = 1
    """Equal parts that the worker cuts its own part into."""

    def check(self, spec: Spec) -> None:
        """Refuse a share that the order has no equal parts for.

        Raises:
            UsageError: with the counts that there can be.
        """
        if not 0 <= self.index < self.count or self.replicas < 1:
            raise UsageError(
                f"the index of a share goes from 0 to count - 1, got {self.index} of {self.count}"
            )
        if spec.batches == "group" and self.count * self.replicas > 1:
            raise UsageError('batches="group" cannot be shared by workers; leave it out')
        whole = spec.batch_size if spec.shuffle == "none" else spec.stretches
        if whole % self.count:
            name = "batch_size" if spec.shuffle == "none" else "stretches"
            counts = ", ".join(str(n) for n in range(1, whole + 1) if whole % n == 0)
            raise UsageError(
                f"{self.count} workers cannot share a stream with {name} {whole}; "
                f"use one of {counts}, or other {name}"
            )
        if spec.batch_size // self.count % self.replicas:
            raise UsageError(
                f"{self.count * self.replicas} replicas cannot share batches of "
                f"{spec.batch_size} rows equally; use another batch_size"
            )

    def width(self, spec: Spec) -> int:
        """Rows of this worker in a full batch."""
        return spec.batch_size // self.count

    def tail_width(self, spec: Spec) -> int:
        """Rows of this worker in the last, shorter batch, those that fill it up counted in."""
        parts = self.count * self.replicas
        return -(-spec.tail_rows // parts) * self.replicas

    def tail_rows(self, spec: Spec) -> int:
        """Rows of this worker in the last, shorter batch that are no filling; they come first."""
        width = self.tail_width(spec)
        return min(max(spec.tail_rows - self.index * width, 0), width)

    def cut(self, xp: Arrays, spec: Spec, picks: Array, steps: Array, is_tail: Array) -> Array:
        """This worker's columns of picks (steps, rows) of a window of its stretches.

        Those of full batches are its own already, unless there is one stretch for all workers.
        """
        is_ordered = spec.shuffle == "none"
        if self.count * self.replicas == 1 or not (spec.tail_rows or is_ordered):
            return picks
        rows = spec.batch_size if is_ordered else self.width(spec)
        total = xp.where(is_tail, spec.tail_rows, rows)
        cut = xp.where(is_tail, self.tail_width(spec), self.width(spec))
        offset = self.index * (cut if is_ordered else xp.where(is_tail, cut, 0))
        columns = xp.minimum(xp.arange(cut) + offset, total - 1)
        flat = xp.reshape(picks, -1)
        starts = xp.arange(steps) * total
        chosen = xp.reshape(starts, -1, 1) + xp.reshape(columns, 1, -1)
        return xp.reshape(xp.take(flat, xp.reshape(chosen, -1)), -1, cut)


WHOLE = Share()
"""The one worker that reads everything."""
