"""The steps that make a subset of a data set, as values that a run keeps in JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tfstream.errors import UsageError

By = Literal["row", "group"]

_SEEDS = 2**63
_TOLERANCE = 1e-9
"""How far fractions may be from 1 in sum, for what decimals lose in binary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """The rows that fulfil a condition."""

    text: str

    def to_json(self) -> dict[str, Any]:
        """As `parse` reads it."""
        return {"where": self.text}

    def __str__(self) -> str:
        """As a line for people."""
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One side of a split; see `format.split`."""

    by: By
    low: float
    """Where the side begins in [0, 1)."""
    high: float
    """Where it stops, above `low`, at most 1."""
    seed: int
    """0 to 2^63 - 1."""
    depth: int
    """How many splits came before: a split of a split draws anew, with the same seed too."""

    def __post_init__(self) -> None:
        """Refuse what is no side of a split."""
        if self.by not in {"row", "group"}:
            raise UsageError(f'a split is by="row" or by="group", not {self.by!r}')
        if not 0 <= self.low < self.high <= 1:
            raise UsageError(
                f"a side of a split lies between 0 and 1, not from {self.low} to {self.high}"
            )
        if not 0 <= self.seed < _SEEDS:
            raise UsageError(f"seed must be from 0 to 2^63 - 1, got {self.seed}")
        if self.depth < 0:
            raise UsageError(f"no split has {self.depth} splits before it")

    def to_json(self) -> dict[str, Any]:
        """As `parse` reads it."""
        names = ("by", "low", "high", "seed", "depth")
        return {"split": {name: getattr(self, name) for name in names}}

    def __str__(self) -> str:
        """As a line for people."""
        return f"split by {self.by} from {self.low} to {self.high}, seed {self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Without:
    """All rows but some ranges of row ids."""

    ranges: tuple[tuple[int, int], ...]
    """First row id and the one behind the last; ascending, apart from each other."""

    def __post_init__(self) -> None:
        """Refuse ranges that are empty, below 0, or out of order."""
        stop = -1
        for start, after in self.ranges:
            if not max(stop, -1) < start < after < _SEEDS:
                raise UsageError(f"row ids {start} to {after} are no range behind {stop}")
            stop = after

    @classmethod
    def of(cls, ranges: Sequence[tuple[int, int]]) -> Without:
        """Ranges in any order, which may overlap."""
        merged: list[tuple[int, int]] = []
        for start, stop in sorted(ranges):
            if merged and start <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(stop, merged[-1][1])
            else:
                merged.append((start, stop))
        return cls(ranges=tuple(merged))

    def to_json(self) -> dict[str, Any]:
        """As `parse` reads it."""
        return {"without": [list(pair) for pair in self.ranges]}

    def __str__(self) -> str:
        """As a line for people."""
        return "without rows " + ", ".join(f"{start} to {stop - 1}" for start, stop in self.ranges)


Step = Where | Split | Without


def sides(fractions: Mapping[str, float], *, by: By, seed: int, depth: int) -> dict[str, Split]:
    """The sides of a split, one after the other in [0, 1).

    Raises:
        UsageError: if a fraction is not above 0, or all are more than 1 in sum.
    """
    if not fractions:
        raise UsageError('a split needs fractions, such as {"train": 0.9, "val": 0.1}')
    for name, fraction in fractions.items():
        is_number = isinstance(fraction, (int, float)) and not isinstance(fraction, bool)
        if not is_number or not 0 < fraction <= 1:
            raise UsageError(
                f"a fraction is a number above 0 and at most 1, not {fraction!r} for {name!r}"
            )
    values = [float(fraction) for fraction in fractions.values()]
    edges = [math.fsum(values[:i]) for i in range(len(values) + 1)]
    if edges[-1] > 1 + _TOLERANCE:
        raise UsageError(f"the fractions are {edges[-1]} in sum; give at most 1")
    if edges[-1] > 1 - _TOLERANCE:
        edges[-1] = 1.0
    return {
        name: Split(by=by, low=low, high=high, seed=seed, depth=depth)
        for name, low, high in zip(fractions, edges, edges[1:], strict=False)
    }


def parse(value: object) -> Step:
    """A step from JSON.

    Raises:
        ValueError: if it is none, with what was expected.
    """
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError("an object with one of where, split and without")
    ((kind, content),) = value.items()
    try:
        if kind == "where" and isinstance(content, str):
            return Where(text=content)
        if kind == "split" and isinstance(content, dict):
            return _split(content)
        if kind == "without" and isinstance(content, list):
            return Without(ranges=tuple(_range(pair) for pair in content))
    except UsageError as error:
        raise ValueError(f"a step that can be ({error})") from error
    raise ValueError('{"where": text}, {"split": object} or {"without": list}')


def _split(content: Mapping[str, Any]) -> Split:
    kinds = {"by": (str,), "low": (int, float), "high": (int, float), "seed": (int,)}
    kinds["depth"] = (int,)
    if set(content) != set(kinds):
        raise ValueError(f"a split of {', '.join(kinds)}")
    for name, types in kinds.items():
        if type(content[name]) not in types:
            raise ValueError(f"{name} of a split as {types[-1].__name__}")
    return Split(**content)


def _range(pair: object) -> tuple[int, int]:
    if isinstance(pair, list) and [type(value) for value in pair] == [int, int]:
        return pair[0], pair[1]
    raise ValueError("ranges of two row ids each")
