"""What --save kept: the lines that count, the latest of each kind, and the README's table."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks import curves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

Line = dict[str, Any]
"""A saved measurement."""

MEGA = 1e6
OURS, LIMIT = "tfstream", "numpy-limit"
CALLBACKS = ("without-callback", "with-callback")
PICTURE = "overview"
_REFERENCE = "tfstream-packed"
BEGIN, END = "<!-- made by python -m benchmarks report --readme -->", "<!-- end of report -->"
_LABELS = {
    "tfstream-packed": "tfstream, packed",
    "tfstream-dict": "tfstream, dict by column",
    "tfstream-convert": "tfstream",
    "numpy-limit": "limit: numpy, memory map",
    "numpy-limit-id": "limit: numpy, with ids",
    "pyarrow-read": "limit: pyarrow reads",
    "file-read": "limit: the shards' bytes",
    "pyarrow-hive-buffered": "write_dataset, hive, buffered",
    "textbook-packed": "one Example a row, packed",
    "textbook-columns": "one Example a row, by column",
    "dask-groups": "Dask Sequence, a file a group",
    "saved-blocks": "Dataset.save of blocks",
    "pyarrow-batches": "limit: pyarrow, unshuffled",
    "ray-batches": "Ray Data",
    "petastorm-dataset": "petastorm",
    "tfio-parquet": "tensorflow-io, Parquet",
    "grain-arrayrecord": "Grain, ArrayRecord",
    "mosaic-loader": "MosaicML Streaming",
    "without-callback": "fit without the callback",
    "with-callback": "with LineageCallback",
}


def label_of(contender: str) -> str:
    """What a reader calls a contender; one without a label keeps its name."""
    if found := re.fullmatch(r"npy(?:-(\d+))?-w(\d)(?:-(\w+))?", contender):
        files, workers, kind = found.groups()
        rows = f"{int(files):,} files, " if files else ""
        return f"a file a row, {rows}{workers} {(kind or 'worker').rstrip('s' * (workers == '1'))}"
    return _LABELS.get(contender, contender)


def lines_of(results: Path) -> list[Line]:
    """The measurements below a folder that count: no error, no finding, the latest of each kind.

    A kind is a job, contender, rows, batch and point of a curve, on the machine of the last line.
    Its repeats are saved at one time, so these remain together.

    Raises:
        ValueError: a line is no JSON; its file and number are told.
    """
    kinds: dict[tuple[Any, ...], list[Line]] = {}
    for line in _all_of(results):
        same = kinds.setdefault(_kind(line), [])
        if same and same[-1]["time"] < line["time"]:
            same.clear()
        if not same or same[-1]["time"] == line["time"]:
            same.append(line)
    found = sorted((line for same in kinds.values() for line in same), key=lambda one: one["time"])
    return [line for line in found if _place(line) == _place(found[-1])]


def _all_of(results: Path) -> list[Line]:
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


def _kind(line: Line) -> tuple[Any, ...]:
    workload = line["workload"]
    curve = workload.get("curve")
    at = workload[curves.CURVES[curve].field] if curve else None
    return (line["job"], line["contender"], workload["rows"], workload["batch"], curve, at)


def _place(line: Line) -> tuple[Any, ...]:
    return tuple(line["machine"][name] for name in ("processor", "cores", "memory_gib"))


def of_job(lines: Iterable[Line], job: str) -> list[Line]:
    """Those of a job, not of a curve: of most rows, and of the batch that most contenders had."""
    groups: dict[tuple[int, int], list[Line]] = defaultdict(list)
    for line in lines:
        workload = line["workload"]
        if line["job"] == job and not workload.get("curve"):
            groups[workload["rows"], workload["batch"]].append(line)
    return max(
        groups.values(),
        key=lambda found: (
            found[-1]["workload"]["rows"],
            len({line["contender"] for line in found}),
            found[-1]["time"],
        ),
        default=[],
    )


def of_curve(lines: Iterable[Line], name: str) -> list[Line]:
    """Those of a scaling curve, of the latest sizes of what it does not vary."""
    found = [line for line in lines if line["workload"].get("curve") == name]
    varied = {curves.CURVES[name].field, *(("rows",) if name == "columns" else ())}
    same = [field for field in ("rows", "batch") if field not in varied]
    return [
        line
        for line in found
        if all(line["workload"][field] == found[-1]["workload"][field] for field in same)
    ]


def by_speed(lines: Iterable[Line]) -> list[tuple[str, list[Line]]]:
    """Contenders with their lines, the fastest first."""
    found: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        found[line["contender"]].append(line)
    return sorted(found.items(), key=lambda item: -rate(item[1]))


def median_of(lines: Sequence[Line], value: Callable[[Line], float]) -> float:
    """The median of a value over repeats."""
    return median(map(value, lines))


def rate(lines: Sequence[Line]) -> float:
    """Million rows/s over whole epochs."""
    return median_of(lines, curves.rate_of) / MEGA


def peak_mb(lines: Sequence[Line]) -> float:
    """Most memory of the process tree."""
    return median_of(lines, lambda line: line["peak_bytes"]) / MEGA


def table(lines: Sequence[Line]) -> str:
    """The contenders of a job by their speed, below their conditions, in Markdown."""
    ranked = by_speed(lines)
    ours = dict(ranked).get(_REFERENCE)
    rows = [
        _conditions(lines),
        "",
        "| | million rows/s | after a first batch | tfstream / it | peak MB | quality | shuffles |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for name, found in ranked:
        steady = median_of(found, lambda line: line["rows_per_s"]) / MEGA
        ratio = f"{rate(ours) / rate(found):.2f}" if ours else ""
        qualities = [line["quality"] for line in found if line.get("quality") is not None]
        quality = f"{median(qualities):.2f}" if qualities else ""
        cells = (
            label_of(name),
            f"{rate(found):.3g}",
            f"{steady:.3g}",
            ratio,
            f"{peak_mb(found):,.0f}",
            quality,
            found[-1]["shuffle"],
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _conditions(lines: Sequence[Line]) -> str:
    """Machine, data, day and versions; those of peers are of their own environments."""
    last = lines[-1]
    machine, workload = last["machine"], last["workload"]
    versions: dict[str, str] = dict(machine["versions"])
    for line in lines:
        versions = line.get("versions", {}) | versions
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{workload['rows']:,} rows of 32 float32, an int64 id and an int8 label, 365 groups; "
        f"batches of {workload['batch']:,}; {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB; {last['time'][:10]}; Python {machine['python']}, {said}. "
        "Rates are over whole epochs, and from their first batches on; memory is that of the whole "
        "process tree; quality tells how far batches are from uniform draws, and 1 is perfect."
    )


def section(lines: Sequence[Line], pictures: str) -> str:
    """What stands in the README between the two comments.

    Args:
        lines: what `lines_of` found.
        pictures: the folder of the pictures, as the README names it.
    """
    reading = of_job(lines, "read")
    drawn = reading and of_curve(lines, "rows")
    name = PICTURE if drawn else "speed"
    alt = "Speed by contender" + (", and with rows" if drawn else "")
    return f"![{alt}]({pictures}/{name}.svg)\n\n{table(reading)}" if reading else ""


def into_readme(readme: Path, text: str) -> None:
    """Put a section between the two comments of a README.

    Raises:
        ValueError: the comments are not there, once each and in order.
    """
    before, _, after = parts_of(readme)
    readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def parts_of(readme: Path) -> tuple[str, str, str]:
    """A README before, between and after the two comments.

    Raises:
        ValueError: as `into_readme`.
    """
    found = re.fullmatch(
        f"(.*){re.escape(BEGIN)}\n(.*)\n{re.escape(END)}(.*)",
        readme.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    if found is None:
        raise ValueError(f"{readme} has no lines {BEGIN} and {END}")
    before, between, after = found.groups()
    return before, between, after
