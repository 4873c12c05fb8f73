"""`report`: pictures and the README's table out of the saved lines, the latest of each kind."""

from __future__ import annotations

import json
from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

Line = dict[str, Any]
"""A saved measurement."""

_OURS, _THEIRS, _LIMIT = "#1f5f8b", "#9aa5b1", "#b5482f"
_LIMIT_OF_READING = "numpy-limit"
_MEGA = 1e6
_CURVES = ("tfstream-packed", "tfstream-dict", _LIMIT_OF_READING, "saved-blocks", "dask-groups")
"""Contenders of the curves; others have one point, or are too slow to be seen."""


def lines_of(results: Path) -> list[Line]:
    """The measurements below a folder that count: no error, no finding.

    Raises:
        ValueError: a line is no JSON; its file and number are told.
    """
    found = []
    for path in sorted(results.glob("*.jsonl")):
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                line = json.loads(text)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            if not line.get("error") and not line.get("findings") and "rows_per_s" in line:
                found.append(line)
    return found


def report(results: Path, out: Path) -> tuple[str, list[Path]]:
    """Draw what there are lines for; the README's table in Markdown, and the pictures' paths."""
    lines = lines_of(results)
    reading = _of_job(lines, "read")
    pictures: dict[str, tuple[list[Line], Callable[[Axes, list[Line]], None]]] = {
        "speed": (_largest(reading), _draw_speed),
        "scaling": (reading, _draw_scaling),
        "memory": (reading, _draw_memory),
        "callback": (_largest(_of_job(lines, "callback")), _draw_callback),
    }
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, (chosen, draw) in pictures.items():
        if chosen:
            paths += _drawn(out / name, chosen, draw)
    return table(_largest(reading)) if reading else "no measurement of job read is saved", paths


def table(lines: Sequence[Line]) -> str:
    """The contenders of job read by their speed, with conditions, in Markdown."""
    machine, workload = lines[-1]["machine"], lines[-1]["workload"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    conditions = (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB; "
        f"{workload['rows']:,} rows, batches of {workload['batch']:,}; "
        f"{lines[-1]['time'][:10]}; {versions}"
    )
    rows = [
        conditions,
        "",
        "| contender | M rows/s | peak MB | quality | shuffles |",
        "|---|--:|--:|--:|---|",
    ]
    for name, found in _by_speed(lines):
        quality = [line["quality"] for line in found if line.get("quality") is not None]
        rows.append(
            f"| {name} | {_rate(found):.3g} | {_peak(found):,.0f} | "
            f"{f'{median(quality):.2f}' if quality else ''} | {found[-1]['shuffle']} |"
        )
    return "\n".join(rows)


def _of_job(lines: Iterable[Line], job: str) -> list[Line]:
    return [line for line in lines if line["job"] == job]


def _largest(lines: Sequence[Line]) -> list[Line]:
    """Those of the most rows, and of the batch size that was measured with them last."""
    if not lines:
        return []
    rows = max(line["workload"]["rows"] for line in lines)
    of_rows = [line for line in lines if line["workload"]["rows"] == rows]
    batch = of_rows[-1]["workload"]["batch"]
    return [line for line in of_rows if line["workload"]["batch"] == batch]


def _by_speed(lines: Iterable[Line]) -> list[tuple[str, list[Line]]]:
    found: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        found[line["contender"]].append(line)
    return sorted(found.items(), key=lambda item: -_rate(item[1]))


def _rate(lines: Sequence[Line]) -> float:
    return median(line["rows_per_s"] for line in lines) / _MEGA


def _peak(lines: Sequence[Line]) -> float:
    return median(line["peak_bytes"] for line in lines) / _MEGA


def _drawn(path: Path, lines: list[Line], draw: Callable[[Axes, list[Line]], None]) -> list[Path]:
    """A picture as SVG and PNG; their paths."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    draw(axis, lines)
    paths = [path.with_suffix(f".{suffix}") for suffix in ("svg", "png")]
    for one in paths:
        figure.savefig(one, dpi=120)
    return paths


def _draw_speed(axis: Axes, lines: list[Line]) -> None:
    ranked = _by_speed(lines)
    bars = [(name, _rate(found)) for name, found in ranked if not name.startswith("numpy")]
    names = [name for name, _ in bars][::-1]
    rates = [rate for _, rate in bars][::-1]
    colors = [_OURS if name.startswith("tfstream") else _THEIRS for name in names]
    axis.barh(names, rates, color=colors)
    limit = dict(ranked).get(_LIMIT_OF_READING)
    if limit:
        axis.axvline(_rate(limit), color=_LIMIT, linestyle="--", label="numpy from a memory map")
        axis.legend(frameon=False, loc="lower right")
    axis.set_xscale("log")
    axis.set_xlabel("M rows/s, steady")


def _draw_scaling(axis: Axes, lines: list[Line]) -> None:
    _curves(axis, lines, _rate)
    axis.set_yscale("log")
    axis.set_ylabel("M rows/s, steady")


def _draw_memory(axis: Axes, lines: list[Line]) -> None:
    _curves(axis, lines, _peak)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("peak of the process tree, MB")


def _curves(axis: Axes, lines: list[Line], value: Callable[[Sequence[Line]], float]) -> None:
    """A curve over rows for each contender, at the batch size that was measured last."""
    batch = lines[-1]["workload"]["batch"]
    points: dict[str, dict[int, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        if line["workload"]["batch"] == batch and line["contender"] in _CURVES:
            points[line["contender"]][line["workload"]["rows"]].append(line)
    for name, found in points.items():
        rows = sorted(found)
        axis.plot(rows, [value(found[one]) for one in rows], "o-", label=name)
    axis.set_xscale("log")
    axis.set_xlabel(f"rows; batches of {batch:,}")
    axis.legend(frameon=False)


def _draw_callback(axis: Axes, lines: list[Line]) -> None:
    ranked = _by_speed(lines)
    axis.bar([name for name, _ in ranked], [1 / _rate(found) for _, found in ranked], color=_OURS)
    axis.set_ylabel("seconds for a million rows, in fit")
