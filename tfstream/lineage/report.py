"""A run as one page: what it consumed, how often, in what mix, and its most unusual steps."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tfstream import storage
from tfstream.errors import UsageError
from tfstream.lineage import figures

if TYPE_CHECKING:
    from tfstream.lineage.run import Run

_SHOWN_STEPS = 20
_MOST_STEPS = 4_000
"""Steps whose mix is looked at; evenly spread where there are more."""
_MOST_GROUPS = 1_000
_SHOWN_ROWS = 50
"""Rows of a step that are listed; the others are counted."""

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2733; margin: 0 auto; max-width: 1080px;
       padding: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .25rem; }
p.note { color: #5b6875; margin: .25rem 0 .5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .15rem .9rem .15rem 0; vertical-align: top; }
th { font-weight: 600; color: #5b6875; } td { overflow-wrap: anywhere; }
.facts td:first-child { white-space: nowrap; color: #5b6875; }
details { border-top: 1px solid #e3e8ee; padding: .35rem 0; } summary { cursor: pointer; }
details table { font-size: 13px; margin: .5rem 0; } .scroll { overflow-x: auto; }
"""
_SCRIPT = """
document.querySelectorAll('.js-plotly-plot').forEach(plot => plot.on('plotly_click', event => {
  const found = document.getElementById('step-' + event.points[0].x);
  if (found) { found.open = true; found.scrollIntoView({behavior: 'smooth'}); }
}));
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unusual:
    """A step that stands out."""

    step: int
    why: str
    rows: pa.Table


def write_report(run: Run, path: Path) -> None:
    """Write a self-contained page about a run; it needs no network.

    Raises:
        UsageError: if the run has no step yet, or plotly is not installed.
        StorageError: if it cannot be written.
    """
    if not run.seen.num_rows:
        raise UsageError(f"{run.folder} has no step yet, so there is nothing to report")
    storage.publish(path, "".join(_page(run)).encode())


def _page(run: Run) -> Iterator[str]:
    title = f"Run {run.folder.name}"
    yield (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_safe(title)}</title>'
        f"<style>{_STYLE}</style><script>{figures.library()}</script></head><body>"
        f"<h1>{_safe(title)}</h1>"
    )
    yield _facts(run)
    facts = _Facts(run)
    for heading, note, figure in (
        *figures.scalars(run),
        figures.waits(run),
        figures.timeline(run),
        figures.coverage(run.coverage()),
        figures.composition(facts.labels, facts.shares),
        figures.mixtures(facts.steps, facts.distances),
    ):
        yield f"<h2>{_safe(heading)}</h2><p class=note>{_safe(note)}</p>{figure}"
    yield (
        "<h2>The most unusual steps</h2><p class=note>By their mix of groups, against what draws "
        "at random would give, and by their loss where it was logged. Open one, or click it in a "
        "figure, to see its rows.</p>"
    )
    yield from (_details(found) for found in facts.unusual)
    yield f"<script>{_SCRIPT}</script></body></html>\n"


class _Facts:
    """The mix of groups in each step, and what is unusual about it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        seen = run.seen
        every = -(-seen.num_rows // _MOST_STEPS)
        self.steps: np.ndarray = seen["step"].to_numpy()[::every]
        found = run.composition(steps=self.steps)
        keys = found.drop_columns(["step", "rows"])
        names = pa.array([", ".join(map(str, row.values())) for row in keys.to_pylist()])
        rows = found["rows"].to_numpy()
        coded = names.dictionary_encode()
        totals = np.bincount(coded.indices.to_numpy(), weights=rows)
        largest = np.sort(np.argsort(-totals, kind="stable")[:_MOST_GROUPS])
        self.labels: list[str] = [*coded.dictionary.take(pa.array(largest)).to_pylist()]
        places = np.full(len(totals), len(largest))
        places[largest] = np.arange(len(largest))
        if len(totals) > len(largest):
            self.labels.append("all others")
        self._counts = np.zeros((len(self.steps), len(self.labels)), np.int64)
        lines = np.searchsorted(self.steps, found["step"].to_numpy())
        np.add.at(self._counts, (lines, places[coded.indices.to_numpy()]), rows)

    @property
    def shares(self) -> tuple[np.ndarray, np.ndarray]:
        """(bins,) first steps, and (groups, bins) the share of the rows of consecutive steps."""
        return figures.binned(self.steps, self._counts)

    @cached_property
    def distances(self) -> np.ndarray:
        """(steps,): chi-square over its degrees of freedom of each step's mix; 1 is expected.

        Σ (n_g - B p_g)² / (B p_g) / (G - 1), with p_g the share of group g in all steps.
        """
        rows = self._counts.sum(axis=1, keepdims=True)
        expected = rows * (self._counts.sum(axis=0) / max(1, self._counts.sum()))
        terms = (self._counts - expected) ** 2 / np.where(expected > 0, expected, 1)
        return np.asarray(terms.sum(axis=1) / max(1, len(self.labels) - 1))

    @property
    def unusual(self) -> Iterator[_Unusual]:
        """The steps of the largest distance or loss, the most unusual first of each."""
        reasons: dict[int, list[str]] = {}
        half = _SHOWN_STEPS // 2
        for place in np.argsort(-self.distances, kind="stable")[:half].tolist():
            step = int(self.steps[place])
            reasons.setdefault(step, []).append(
                f"mix {self.distances[place]:.2f}, about 1 is usual"
            )
        loss = figures.column(self.run.seen, "loss")
        if loss is not None:
            for place in np.argsort(-np.nan_to_num(loss, nan=np.inf), kind="stable")[
                :half
            ].tolist():
                step = int(self.steps[place])
                reasons.setdefault(step, []).append(f"loss {loss[place]:.4g}")
        for step, why in reasons.items():
            yield _Unusual(step=step, why=", ".join(why), rows=self.run.rows(step=step))


def _facts(run: Run) -> str:
    feed = run.description.training
    seen = run.seen
    lines = {
        "data set": f"{feed.folder} ({feed.dataset})",
        "conditions": " and ".join(map(str, feed.recipe)) or "none",
        "features": ", ".join(feed.features),
        "label": feed.label or "none",
        "order": json.dumps({k: v for k, v in asdict(feed.spec).items() if k != "subset"}),
        "rows": f"{feed.spec.rows:,} in {feed.spec.steps_per_epoch:,} steps an epoch",
        "steps seen": f"{seen.num_rows:,} of {run.steps.num_rows:,} trained, "
        f"{len(run.logs)} attempt{'s' if len(run.logs) > 1 else ''}",
        "versions": "; ".join(
            sorted({_versions(found.attempt.versions) for found in run.logs.values()})
        ),
    }
    table = _table(["", ""], [[name, value] for name, value in lines.items()])
    return f"<div class=facts>{table}</div>"


def _versions(versions: Any) -> str:  # noqa: ANN401 - a mapping of texts
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _details(found: _Unusual) -> str:
    shown = found.rows.slice(0, _SHOWN_ROWS)
    more = found.rows.num_rows - shown.num_rows
    lines = [[str(value) for value in row.values()] for row in shown.to_pylist()]
    rest = f"<p class=note>and {more:,} rows more</p>" if more else ""
    return (
        f'<details id="step-{found.step}"><summary>step {found.step:,}: {_safe(found.why)}'
        f"</summary><div class=scroll>{_table(shown.column_names, lines)}</div>{rest}</details>"
    )


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    first = "".join(f"<th>{_safe(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr>{''.join(f'<td>{_safe(cell)}</td>' for cell in line)}</tr>" for line in lines
    )
    return f"<table>{f'<tr>{first}</tr>' if any(head) else ''}{body}</table>"


def _safe(text: str) -> str:
    return html.escape(text)
