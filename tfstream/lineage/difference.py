"""Where two runs begin to differ, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tfstream.format import provenance
from tfstream.lineage.description import Feed
from tfstream.order import Spec

if TYPE_CHECKING:
    from tfstream.lineage.run import Run

_FEED = ("dataset", "recipe", "features", "label", "weight")
"""What may differ between two streams, besides the numbers of their specs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What is different between two runs."""

    step: int | None
    """The first step of both at which they saw different rows, or the same ones in another order;
    None if there is none."""
    steps: int
    """Steps that both have, by number: those that were compared."""
    only: tuple[int, int]
    """Steps that only the first and only the second run has."""
    reasons: tuple[tuple[str, str, str], ...]
    """(name, value there, value here) of what they were asked to do: empty if it was the same."""


def difference(left: Run, right: Run) -> Difference:
    """Compare what the weights of two runs have seen, step by step.

    Runs on one data set are compared by the fingerprints in their logs; on two data sets by the
    source and the row there of each row.
    """
    steps = [run.seen["step"].to_numpy() for run in (left, right)]
    common, in_left, in_right = np.intersect1d(
        steps[0], steps[1], assume_unique=True, return_indices=True
    )
    if left.description.training.dataset == right.description.training.dataset:
        prints = [run.seen["row_fingerprint"].to_numpy() for run in (left, right)]
        differing = np.flatnonzero(prints[0][in_left] != prints[1][in_right])
        first = int(common[differing[0]]) if len(differing) else None
    else:
        first = next(
            (step for step in common.tolist() if _sources(left, step) != _sources(right, step)),
            None,
        )
    return Difference(
        step=first,
        steps=len(common),
        only=(len(steps[0]) - len(common), len(steps[1]) - len(common)),
        reasons=tuple(_reasons(left.description.training, right.description.training)),
    )


def _reasons(left: Feed, right: Feed) -> Iterator[tuple[str, str, str]]:
    for name in _FEED:
        yield from _unequal(name, getattr(left, name), getattr(right, name))
    for field in fields(Spec):
        # That the subset is another one is told by the data set and the conditions.
        if field.name != "subset":
            yield from _unequal(
                field.name, getattr(left.spec, field.name), getattr(right.spec, field.name)
            )


def _unequal(name: str, left: object, right: object) -> Iterator[tuple[str, str, str]]:
    if left != right:
        yield name, _text(left), _text(right)


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _sources(run: Run, step: int) -> pa.Table:
    """Where the rows of a step come from, in the order of the batch."""
    spec, catalog = run.description.training.spec, run.catalog
    row_ids = run.places.rows_of(*divmod(step, spec.steps_per_epoch))
    source, row = provenance.rows_of_sources(catalog, row_ids)
    return pa.table({"source": catalog.sources["path"].take(pa.array(source)), "row": row})
