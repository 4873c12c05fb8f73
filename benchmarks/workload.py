"""What is run: the sizes, shared by every contender, and one task for a child process."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

JOBS = ("read", "fit", "convert", "callback", "groups")

SEED = 7
"""Seed of the rows and of every contender's shuffle."""

UNKNOWN_WINDOW = 262_144
"""Rows of the limit's window where tfstream is not there to tell its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Sizes that all contenders share. Read-only; a part of every recorded result."""

    rows: int
    """Rows of the source, below 2^24, so that a float32 feature can hold the id."""
    batch: int
    """Rows of a batch."""
    files: tuple[int, ...]
    """Observations of the one-file-per-observation Sequence, one contender each."""
    examples: int
    """Rows of the textbook pipeline; steady rate is what counts, and writing them is slow."""
    buffer: int
    """Rows of the textbook pipeline's shuffle buffer."""
    window: int
    """Rows of the limit's window: tfstream's own, once that is known."""
    floor_s: float
    """A measurement goes on by whole epochs until it has taken this long."""
    bound_s: float
    """A measurement ends here, even inside an epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one child process does."""

    action: str
    """`prepare`, or one of `JOBS`."""
    contender: str
    """Name of a contender of the job."""
    folder: Path
    """Work folder of this number of rows."""
    workload: Workload

    @property
    def source(self) -> Path:
        """Folder of the source's Parquet files."""
        return self.folder / "source"

    def to_json(self) -> str:
        """The task as an argument of the child."""
        return json.dumps(dataclasses.asdict(self) | {"folder": str(self.folder)})

    @classmethod
    def from_json(cls, text: str) -> Task:
        """The task that `to_json` wrote."""
        fields = json.loads(text)
        sizes = fields.pop("workload")
        workload = Workload(**sizes | {"files": tuple(sizes["files"])})
        return cls(**fields | {"folder": Path(fields["folder"]), "workload": workload})
