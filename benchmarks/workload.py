"""What is run: the sizes, shared by every contender, and one task for a child process."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONVERSIONS = ("convert", "mixed", "scale", "bounded")
"""Jobs that convert; each of their entries has its own number of rows."""

OWN = (
    *("start", "epochs", "columns", "constant", "mixed-read", "mixing", "lookup", "log"),
    *("remote", "parquet"),
)
"""Jobs with figures of their own; see `cases`."""

LARGE = ("scale", "bounded", "groups", *OWN)
"""Jobs that must be named, since they take long; what they write is removed afterwards."""

JOBS = ("read", "fit", "callback", *CONVERSIONS, "groups", *OWN)

SEED = 7
"""Seed of the rows and of every contender's shuffle."""

UNKNOWN_WINDOW = 262_144
"""Rows of a window until tfstream has told its own."""

_SOURCES = {"mixed": "mixed-source", "bounded": "skewed-source"}


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
    ray_rows: int
    """Rows for Ray Data and plain Examples, which are slow; their rate is what counts."""
    scale_rows: tuple[int, ...]
    """Rows of the conversions that show whether time grows with rows."""
    limit_bytes: int
    """What job bounded may have of memory."""
    large_bytes: int
    """The source of job bounded is at least as large as this."""
    parquet: str = ""
    """The reader's own file or folder, for job parquet."""
    label: str | None = None
    """A column of it."""
    group_by: tuple[str, ...] = ()
    """Columns of it, or expressions; none for groups by a hash."""
    columns: int = 32
    """Features of a row."""
    groups: int = 365
    source_files: int = 8
    workers: int | None = None
    """Cores that the child may use, and workers of a Sequence; None leaves both as they are."""
    curve: str | None = None
    """The scaling curve that this is a point of."""


def parquet_files(path: str) -> list[str]:
    """The Parquet file, or all of them below a folder."""
    place = Path(path)
    return sorted(map(str, place.rglob("*.parquet"))) if place.is_dir() else [path]


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
    python: str = sys.executable
    """The interpreter of the child."""
    root: Path = Path(__file__).resolve().parents[1]
    """The tree whose tfstream and benchmarks the child takes."""

    @property
    def source(self) -> Path:
        """Folder of the source's Parquet files."""
        return self.folder / _SOURCES.get(self.action, "source")

    def to_json(self) -> str:
        """The task as an argument of the child."""
        return json.dumps(self._fields())

    def _fields(self) -> dict[str, Any]:
        paths = {"folder": str(self.folder), "root": str(self.root)}
        return dataclasses.asdict(self) | paths

    @classmethod
    def from_json(cls, text: str) -> Task:
        """The task that `to_json` wrote."""
        fields = json.loads(text)
        sizes = fields.pop("workload")
        lists = {name: tuple(sizes[name]) for name in ("files", "scale_rows", "group_by")}
        workload = Workload(**sizes | lists)
        paths = {name: Path(fields[name]) for name in ("folder", "root")}
        return cls(**fields | paths | {"workload": workload})
