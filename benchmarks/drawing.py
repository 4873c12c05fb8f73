"""`report`: the pictures, out of the saved lines, the latest of each kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import curves
from benchmarks.saved import (
    CALLBACKS,
    LIMIT,
    MEGA,
    OURS,
    by_speed,
    label_of,
    median_of,
    of_curve,
    of_job,
    peak_mb,
    rate,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.saved import Line

_BLUE, _GREY, _RED = "#0072b2", "#9aa5b1", "#d55e00"
STYLES = {
    "tfstream-packed": (_BLUE, "o-"),
    "tfstream-convert": (_BLUE, "o-"),
    "numpy-limit": (_RED, "s--"),
    "pyarrow-read": (_RED, "s--"),
    "textbook-packed": ("#009e73", "^-"),
    "pyarrow-hive-buffered": ("#009e73", "^-"),
    "dask-groups": ("#cc79a7", "D-"),
    "npy-w1": ("#000000", "v-"),
    "npy-w2-threads": ("#e69f00", "<-"),
    "npy-w2-processes": ("#56b4e9", ">-"),
}
"""Colour and marker by contender: of Okabe and Ito, whom the colour-blind can tell apart."""
_AXES = {
    "rows": "rows",
    "columns": "float32 columns; as many bytes at each point",
    "batch": "rows of a batch",
    "groups": "groups",
    "files": "Parquet files of the source",
    "workers": "workers, a core each",
}
_SIZE, _WIDE = (8, 4.5), (12, 4.5)
_DPI = 120
_PLAIN = "{x:,g}"
_NARROW = 100
"""A logarithmic axis up to this many times its start has ticks at 2 and 5, too."""


def draw(lines: Sequence[Line], out: Path) -> list[Path]:
    """Draw what there are lines for, as SVG and PNG; the paths."""
    reading, callback = of_job(lines, "read"), of_job(lines, "callback")
    pictures: dict[str, list[Callable[[Axes], None]]] = {}
    if reading:
        pictures["speed"] = [lambda axis: _draw_speed(axis, reading)]
    if callback:
        pictures["callback"] = [lambda axis: _draw_callback(axis, callback)]
    for name in curves.CURVES:
        if found := of_curve(lines, name):
            pictures[f"by-{name}"] = [
                lambda axis, name=name, found=found: _draw_curve(axis, name, found)
            ]
    if rows := of_curve(lines, "rows"):
        pictures["memory"] = [lambda axis: _draw_memory(axis, rows)]
    if reading and rows:
        pictures["overview"] = [*pictures["speed"], *pictures["by-rows"]]
    out.mkdir(parents=True, exist_ok=True)
    return [path for name, drawn in pictures.items() for path in _save(out / name, drawn)]


def _save(path: Path, pictures: Sequence[Callable[[Axes], None]]) -> list[Path]:
    """One picture, or two side by side; the same lines make the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Text of an SVG remains text: small, and to be searched for.
    with mpl.rc_context({"svg.hashsalt": path.name, "svg.fonttype": "none"}):
        figure = Figure(figsize=_SIZE if len(pictures) == 1 else _WIDE, layout="constrained")
        axes = figure.subplots(1, len(pictures), squeeze=False)[0]
        for axis, draw_on in zip(axes, pictures, strict=True):
            axis.spines[["top", "right"]].set_visible(False)
            draw_on(axis)
        svg, png = path.with_suffix(".svg"), path.with_suffix(".png")
        figure.savefig(svg, metadata={"Date": None})
        figure.savefig(png, dpi=_DPI)
    return [svg, png]


def _draw_speed(axis: Axes, lines: Sequence[Line]) -> None:
    """A bar for each contender, with its figure, and the limit as a line."""
    ranked = by_speed(lines)
    bars = [(name, rate(found)) for name, found in ranked if not name.startswith(LIMIT)][::-1]
    labels, rates = [label_of(name) for name, _ in bars], [value for _, value in bars]
    colors = [
        _BLUE if name.startswith(OURS) else _RED if label.startswith("limit") else _GREY
        for (name, _), label in zip(bars, labels, strict=True)
    ]
    axis.bar_label(axis.barh(labels, rates, color=colors), fmt="{:.3g}", padding=3)
    if limit := dict(ranked).get(LIMIT):
        axis.axvline(rate(limit), color=_RED, linestyle="--")
        axis.annotate(
            f"limit: numpy from a\nmemory map, {rate(limit):.3g}",
            (rate(limit), 0),
            xytext=(-5, 0),
            textcoords="offset points",
            color=_RED,
            ha="right",
            va="center",
        )
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(_PLAIN)
    axis.set_xlim(right=2 * max([*rates, rate(limit)] if limit else rates))
    workload = lines[-1]["workload"]
    axis.set_xlabel("million rows/s, whole epochs (logarithmic)")
    axis.set_title(f"{workload['rows']:,} rows, batches of {workload['batch']:,}", fontsize=10)


def _draw_curve(axis: Axes, name: str, lines: Sequence[Line]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    in_bytes = name == "columns"
    _draw_points(axis, name, lines, _megabytes_per_s if in_bytes else rate)
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    if high / low < _NARROW:
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(_PLAIN)
    axis.set_ylabel(f"{'MB' if in_bytes else 'million rows'}/s, whole epochs")
    if curves.CURVES[name].job == "convert":
        axis.set_ylabel("million rows/s, converted")


def _draw_memory(axis: Axes, lines: Sequence[Line]) -> None:
    _draw_points(axis, "rows", lines, peak_mb)
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.set_ylabel("peak memory of the process tree, MB")


def _megabytes_per_s(lines: Sequence[Line]) -> float:
    return median_of(lines, lambda line: line["bytes"] / line["timed_s"]) / MEGA


def _draw_points(
    axis: Axes, name: str, lines: Sequence[Line], value: Callable[[Sequence[Line]], float]
) -> None:
    """A line for each contender, over the values of a curve; the legend beside."""
    field = curves.CURVES[name].field
    points: dict[str, dict[int, list[Line]]] = {}
    for line in lines:
        at = points.setdefault(curves.kind_of(line["contender"]), {})
        at.setdefault(line["workload"][field], []).append(line)
    everywhere = sorted({x for found in points.values() for x in found})
    for kind in (kind for kind in STYLES if kind in points):
        found, (color, style) = points[kind], STYLES[kind]
        values = [value(found[x]) for x in sorted(found)]
        label = label_of(kind)
        axis.plot(sorted(found), values, style, color=color, label=label, markersize=5)
    axis.set_xscale("log")
    axis.set_xticks(everywhere, [f"{x:,}" for x in everywhere])
    axis.minorticks_off()
    axis.set_xlabel(_AXES[name])
    axis.grid(visible=True, axis="y", color="#e5e5e5")
    axis.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    workload = lines[-1]["workload"]
    conditions = [f"{workload['rows']:,} rows"] if name not in {"rows", "columns"} else []
    if name not in {"batch", "files"}:
        conditions.append(f"batches of {workload['batch']:,}")
    if conditions:
        axis.set_xlabel(f"{_AXES[name]}  ({', '.join(conditions)})")


def _draw_callback(axis: Axes, lines: Sequence[Line]) -> None:
    """What a million rows take in fit, with the callback and without, and the difference."""
    found = dict(by_speed(lines))
    seconds = {name: 1 / rate(found[name]) for name in CALLBACKS if name in found}
    labels = [label_of(name) for name in seconds]
    colors = [_GREY, _BLUE][-len(seconds) :]
    bars = axis.bar(labels, list(seconds.values()), color=colors, width=0.4)
    axis.margins(x=0.3)
    axis.bar_label(bars, fmt="{:.3g} s", padding=3)
    axis.set_ylabel("seconds for a million rows, in fit")
    if len(seconds) == len(CALLBACKS):
        without, with_ = (seconds[name] for name in CALLBACKS)
        axis.set_title(f"with the callback: {(with_ / without - 1) * 100:+.1f} %", fontsize=10)
