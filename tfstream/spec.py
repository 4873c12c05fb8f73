"""What determines the order of a stream, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tfstream.errors import UsageError

CHOICES = {
    "remainder": ("keep", "drop"),
    "shuffle": ("global", "shards", "none"),
    "batches": ("mixed", "group"),
}
"""What a field of a spec may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What determines the order of a stream, besides the rows kept of each block."""

    subset: str
    """Digest of the subset."""
    rows: int
    """Rows of an epoch, and those that it drops, at least 1: the subset's, as often as weighted."""
    blocks: int
    """Blocks of the subset with at least one kept row."""
    batch_size: int
    """Rows of a batch over all workers."""
    remainder: Literal["keep", "drop"]
    """Whether the last rows of an epoch, fewer than a batch, are a batch of their own."""
    shuffle: Literal["global", "shards", "none"]
    """"shards": a shard's blocks stay together; "none": the order of the manifest."""
    window_steps: int
    """Steps whose rows are permuted together, at least 1."""
    stretches: int
    """Equal parts of the sequence that are open at the same time; divides the batch size."""
    seed: int
    """0 to 2^63 - 1."""
    batches: Literal["mixed", "group"] = "mixed"
    """"group": all rows of a batch are of one group."""
    weights: tuple[tuple[str, float], ...] = ()
    """Conditions over groups, and how often an epoch has the rows of a group that fulfils this one
    first."""
    full_batches: int = 0
    """Batches of exactly `batch_size` rows in an epoch, if they are of one group; else 0."""
    tails: tuple[int, ...] = ()
    """Rows of the shorter batches of an epoch, if they are of one group, in the groups' order."""

    def __post_init__(self) -> None:
        """Refuse numbers that no order can be made of."""
        self._check_choices()
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {self.batch_size}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must be from 0 to 2^63 - 1, got {self.seed}")
        if self.window_steps < 1 or self.window_steps * self.batch_size > 2**31:
            raise UsageError(
                f"a window must have from 1 step to 2^31 rows, got {self.window_steps} steps of "
                f"{self.batch_size} rows; set window_rows"
            )
        if self.stretches < 1 or self.batch_size % self.stretches:
            raise UsageError(
                f"stretches must divide batch_size, got {self.stretches} for {self.batch_size} rows"
            )
        if self.rows < 1:
            raise UsageError(
                "the subset has no rows, so no epoch has a step; choose another subset"
            )
        if self.steps_per_epoch < 1:
            raise UsageError(
                f"an epoch has no step: {self.rows} rows are fewer than one batch of "
                f'{self.batch_size} and remainder="drop"; use a smaller batch or remainder="keep"'
            )

    def _check_choices(self) -> None:
        """Refuse what is no choice, or none beside another."""
        for name, allowed in CHOICES.items():
            if (value := getattr(self, name)) not in allowed:
                texts = [f'"{choice}"' for choice in allowed]
                told = ", ".join(texts[:-1]) + " or " + texts[-1]
                raise UsageError(f"{name} is {told}, not {value!r}")
        for name, value in (("shuffle", "none"), ("batches", "group")):
            if getattr(self, name) == value and self.stretches != 1:
                raise UsageError(f'{name}="{value}" has one stretch, got {self.stretches}')
        if self.batches == "group" and self.shuffle == "shards":
            raise UsageError(
                'batches="group" permutes the batches of an epoch, so shuffle="shards" would keep '
                'no shard together; use shuffle="global"'
            )
        if self.weights and self.shuffle == "none":
            raise UsageError(
                'weights draw rows, so shuffle="none" cannot keep their order; use '
                'shuffle="global" or leave the weights out'
            )

    @property
    def full_steps(self) -> int:
        """Steps of an epoch with exactly `batch_size` rows."""
        return self.full_batches if self.batches == "group" else self.rows // self.batch_size

    @property
    def tail_rows(self) -> int:
        """Rows of the last, shorter batch; 0 where there is none, or where each group has one."""
        if self.batches == "group" or self.remainder == "drop":
            return 0
        return self.rows % self.batch_size

    @property
    def tail_steps(self) -> int:
        """Steps of an epoch with fewer rows; they are the last ones."""
        return len(self.tails) + (self.tail_rows > 0)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return self.full_steps + self.tail_steps

    @property
    def full_windows(self) -> int:
        """Windows of an epoch that hold full batches."""
        return -(-self.full_steps // self.window_steps)

    @property
    def windows_per_epoch(self) -> int:
        """Windows of an epoch; each shorter batch has one of its own."""
        return self.full_windows + self.tail_steps

    def window_of(self, step: int) -> tuple[int, int]:
        """The window that holds a step of an epoch, and the step's place in it."""
        if step < self.full_steps:
            return divmod(step, self.window_steps)
        return self.full_windows + step - self.full_steps, 0

    def first_step(self, window: int) -> int:
        """The first step of a window, counted from the start of the epoch."""
        if window < self.full_windows:
            return window * self.window_steps
        return self.full_steps + window - self.full_windows
