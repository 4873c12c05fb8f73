"""The figures of a report, by plotly."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tfstream.errors import UsageError
from tfstream.lineage.table import STEPS

if TYPE_CHECKING:
    from tfstream.lineage.run import Run

Section = tuple[str, str, str]
"""Heading, a sentence, and the figure as a piece of a page."""

_POINTS = 4_000
"""Points of a line at most; what lies between is averaged."""
_BINS, _LINES = 200, 60
"""Columns and lines of the heat map at most."""
_FEWEST_TIMES = 2
"""What is written between two times has a rate; the first one has no beginning."""
_BLUE, _GREY, _RED = "#2563a8", "#9aa7b4", "#c2492f"


def library() -> str:
    """The script that draws them.

    Raises:
        UsageError: if plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError("a report needs plotly; run pip install 'tfstream[report]'") from error
    script: str = get_plotlyjs()
    return script


def column(table: pa.Table, name: str) -> np.ndarray | None:
    """A column of numbers, NaN where there is none; None if nothing is there at all."""
    if name not in table.column_names or table[name].null_count == table.num_rows:
        return None
    values: np.ndarray = table[name].cast(pa.float64()).to_numpy()
    return values


def scalars(run: Run) -> Iterator[Section]:
    """A line for each metric that was logged a step, and the throughput where times were."""
    seen = run.seen
    known = set(STEPS.names)
    steps = seen["step"].to_numpy()
    for name in seen.column_names:
        values = None if name in known else column(seen, name)
        if values is not None:
            lines = [_line(steps, values)]
            yield (
                name.capitalize() if name == "loss" else name,
                "By step; averaged where there are more steps than points.",
                _drawn(lines, x="step", y=name),
            )
    times = column(seen, "time_s")
    if times is not None and len(np.unique(times)) > _FEWEST_TIMES:
        yield _throughput(steps, seen["rows"].to_numpy(), times)


def waits(run: Run) -> Section:
    """How long training waited for each window."""
    windows, spec = run.windows, run.description.training.spec
    epochs, numbers = windows["epoch"].to_pylist(), windows["window"].to_pylist()
    firsts = [
        epoch * spec.steps_per_epoch + spec.first_step(number)
        for epoch, number in zip(epochs, numbers, strict=True)
    ]
    bar = {
        "type": "bar",
        "x": firsts,
        "y": windows["wait_s"].to_pylist(),
        "marker": {"color": _BLUE},
    }
    return (
        "Input wait",
        "Seconds that training waited for the rows of each window, by its first step.",
        _drawn([bar], x="step", y="s", height=220),
    )


def timeline(run: Run) -> Section:
    """Which attempt trained which steps, and what of it was rolled back."""
    seen = {
        number: run.seen.filter(pa.compute.equal(run.seen["attempt"], number))["step"].to_numpy()
        for number in run.logs
    }
    per_epoch = run.description.training.spec.steps_per_epoch
    bars: list[dict[str, Any]] = []
    for number in run.logs:
        mine = run.steps.filter(pa.compute.equal(run.steps["attempt"], number))["step"].to_numpy()
        lost = np.setdiff1d(mine, seen[number])
        for steps, color, what in ((seen[number], _BLUE, "seen"), (lost, _RED, "rolled back")):
            if len(steps):
                bars.append(
                    {
                        "type": "bar",
                        "orientation": "h",
                        "y": [f"attempt {number}"],
                        "base": [int(steps.min())],
                        "x": [int(steps.max() - steps.min()) + 1],
                        "marker": {"color": color},
                        "name": what,
                        "showlegend": False,
                        "hovertemplate": f"steps {steps.min()} to {steps.max()}: {what}"
                        "<extra></extra>",
                    }
                )
    last = int(run.steps["step"].to_numpy().max()) + 1
    lines = [
        {
            "type": "line",
            "x0": at,
            "x1": at,
            "y0": 0,
            "y1": 1,
            "yref": "paper",
            "line": {"color": _GREY, "width": 1, "dash": "dot"},
        }
        for at in range(per_epoch, last, per_epoch * max(1, last // per_epoch // 50))
    ]
    return (
        "Attempts and epochs",
        "Blue was kept, red was trained and rolled back; dotted lines are epochs of the stream.",
        _drawn(
            bars, x="step", y="", height=120 + 40 * len(run.logs), shapes=lines, barmode="overlay"
        ),
    )


def coverage(found: pa.Table) -> Section:
    """How many rows were seen how often, over all groups."""
    seen, rows = found["seen"].to_numpy(), found["rows"].to_numpy()
    times = np.unique(seen)
    totals = [int(rows[seen == n].sum()) for n in times]
    bar = {
        "type": "bar",
        "x": [f"{n} times" if n != 1 else "once" for n in times.tolist()],
        "y": totals,
        "text": [f"{n:,}" for n in totals],
        "marker": {"color": _BLUE},
        "width": 0.5,
    }
    return (
        "Coverage",
        f"How often each of the {rows.sum():,} rows was in a batch.",
        _drawn([bar], x="", y="rows", height=260),
    )


def binned(steps: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of groups over consecutive steps.

    Args:
        steps: (steps,) ascending.
        counts: (steps, groups) rows.

    Returns:
        (bins,) the first step of each, and (groups, bins) shares of its rows.
    """
    cuts = np.linspace(0, len(steps), min(_BINS, len(steps)) + 1).astype(np.int64)[:-1]
    sums = np.add.reduceat(counts, cuts, axis=0)
    return steps[cuts], (sums / sums.sum(axis=1, keepdims=True)).T


def composition(labels: Sequence[str], shares: tuple[np.ndarray, np.ndarray]) -> Section:
    """A heat map: groups by steps."""
    steps, values = shares
    order = np.argsort(-values.mean(axis=1), kind="stable")[:_LINES]
    order = np.sort(order)
    heat = {
        "type": "heatmap",
        "x": steps.tolist(),
        "y": [_text(labels[i]) for i in order],
        "z": values[order].tolist(),
        "colorscale": "Blues",
        "zmin": 0,
        # A short batch at the end of an epoch may be one group alone, and would bleach all others.
        "zmax": float(np.quantile(values[order], 0.995)) or 1.0,
        "hovertemplate": "step %{x}, %{y}: %{z:.2%}<extra></extra>",
    }
    more = f"; the {_LINES} largest of {len(labels)} groups" if len(labels) > _LINES else ""
    height = min(900, 160 + 16 * len(order))
    return (
        "Composition of the batches",
        f"The share of each group in the rows of consecutive steps{more}.",
        _drawn([heat], x="step", y="", height=height, yaxis={"type": "category"}),
    )


def mixtures(steps: np.ndarray, distances: np.ndarray) -> Section:
    """How far each step's mix of groups is from what is usual."""
    points = _line(steps, distances, mode="markers")
    note = (
        "Chi-square of the groups' rows over its degrees of freedom: about 1 where rows are drawn "
        "at random, larger where a batch has few groups."
    )
    return (
        "How usual the mix of each step is",
        note,
        _drawn([points], x="step", y="mix", height=260, yaxis={"type": "log"}),
    )


def _throughput(steps: np.ndarray, rows: np.ndarray, times: np.ndarray) -> Section:
    """Rows a second between the moments that were logged."""
    changes = np.flatnonzero(np.diff(times) > 0) + 1
    starts, stops = changes[:-1], changes[1:]
    before = np.concatenate([[0], np.cumsum(rows)])
    speed = (before[stops] - before[starts]) / (times[stops] - times[starts])
    line = _line(steps[starts], speed)
    return (
        "Throughput",
        "Rows a second, as steps were logged.",
        _drawn([line], x="step", y="rows/s"),
    )


def _line(steps: np.ndarray, values: np.ndarray, mode: str = "lines") -> dict[str, Any]:
    cuts = np.linspace(0, len(steps), min(_POINTS, len(steps)) + 1).astype(np.int64)[:-1]
    if mode == "lines" and len(cuts):
        values = np.add.reduceat(values, cuts) / np.diff(cuts, append=len(steps))
        steps = steps[cuts]
    return {
        "type": "scatter",
        "mode": mode,
        "x": steps.tolist(),
        "y": values.tolist(),
        "line": {"color": _BLUE, "width": 1.5},
        "marker": {"color": _BLUE, "size": 4, "opacity": 0.6},
    }


def _drawn(
    data: list[dict[str, Any]],
    *,
    x: str,
    y: str,
    height: int = 320,
    **layout: Any,  # noqa: ANN401
) -> str:
    from plotly import graph_objects  # noqa: PLC0415 - an extra

    axes = {"zeroline": False, "gridcolor": "#e3e8ee", "linecolor": _GREY}
    yaxis = {**axes, "title": {"text": _text(y)}, "automargin": True} | layout.pop("yaxis", {})
    figure = graph_objects.Figure(
        data=data,
        layout={
            "height": height,
            "margin": {"l": 60, "r": 20, "t": 10, "b": 45},
            "plot_bgcolor": "white",
            "xaxis": {**axes, "title": {"text": _text(x)}},
            "yaxis": yaxis,
            "hovermode": "closest",
            **layout,
        },
    )
    drawn: str = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        config={"displayModeBar": False, "responsive": True},
    )
    return drawn


def _text(text: str) -> str:
    """A label of a figure, in which plotly would read markup; it knows no entities of quotes."""
    return html.escape(text, quote=False)
