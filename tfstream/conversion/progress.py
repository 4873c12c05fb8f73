"""How far a conversion is, as a value for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far one stage is. Stages follow each other; within one no number goes back."""

    stage: str
    """What its tasks do, such as "write shards"."""
    tasks_done: int
    """Tasks that have ended, now or before the conversion went on."""
    tasks: int
    """Tasks of the stage."""
    rows_done: int
    """Rows of the tasks that have ended; 0 where `rows` is None."""
    rows: int | None
    """Rows of the stage; None where they are yet to be counted."""
    size_bytes: int | None
    """Bytes that the stage goes through, an estimate; None where they would tell nothing."""

    @property
    def is_done(self) -> bool:
        """Whether all tasks have ended."""
        return self.tasks_done == self.tasks

    @property
    def share(self) -> float:
        """What is done, from 0 to 1: of the rows, or of the tasks where rows are not known."""
        if self.is_done:
            return 1.0
        return self.rows_done / self.rows if self.rows else self.tasks_done / self.tasks

    @property
    def bytes_done(self) -> int:
        """The share of the bytes."""
        return round(self.share * (self.size_bytes or 0))


ProgressCallback = Callable[[Progress], None]
"""Called when a stage begins and whenever a task of it has ended, never twice at once."""
