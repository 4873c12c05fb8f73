"""What is saved is drawn, and the README's table is what the command makes of the saved lines."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import __main__ as command
from benchmarks import curves, drawing, jobs, report, runner, saved
from benchmarks.workload import Task, Workload
from tests.benchmarking import SMALL

if TYPE_CHECKING:
    from pathlib import Path

RATES = {"tfstream-packed": 3e6, "numpy-limit": 9e6, "textbook-packed": 2e5, "npy-200-w1": 2e4}
CALLBACKS = {"without-callback": 1e6, "with-callback": 9e5}


def outcome(action: str, contender: str, rate: float, workload: Workload = SMALL) -> runner.Outcome:
    """A measurement of that rate."""
    fields = {"whole_epoch": True, "findings": [], "timed_rows": 10, "timed_s": 10 / rate}
    fields |= {"quality": 1.1, "rows_per_s": 2 * rate, "whole_rows_per_s": rate}
    task = Task(action=action, contender=contender, folder=runner.ROOT, workload=workload)
    return runner.Outcome(task=task, fields=fields, peak_bytes=5_000_000, error=None, cpu_s=2.5)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that measurements are saved to."""
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def test_what_is_saved_is_drawn(results: Path, tmp_path: Path) -> None:
    """A picture for each thing that was measured, as SVG and PNG, the same from the same lines."""
    found = [outcome("read", name, rate) for name, rate in RATES.items()]
    found += [outcome("callback", name, rate) for name, rate in CALLBACKS.items()]
    for name, curve in curves.CURVES.items():
        for workload in curves.points(name, SMALL, curve.small):
            found += [
                outcome(curve.job, entry.name, 1e5, workload)
                for entry in curves.taking_part(name, workload)
            ]
    report.save(found, report.machine())
    lines = saved.lines_of(results)
    assert len(lines) == len(found)
    first, second = (drawing.draw(lines, tmp_path / name) for name in ("first", "second"))
    names = ("speed", "callback", "memory", "overview", *(f"by-{name}" for name in curves.CURVES))
    assert sorted(path.name for path in first) == sorted(
        f"{name}.{suffix}" for name in names for suffix in ("png", "svg")
    )
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    texts = {path.stem: path.read_text("utf-8") for path in first if path.suffix == ".svg"}
    assert "with the callback: +11.1 %" in texts["callback"]
    assert all(saved.label_of(name) in texts["speed"] for name in RATES if "numpy" not in name)
    assert all(
        saved.label_of(kind) in texts["by-workers"] for kind in curves.CURVES["workers"].kinds
    )


def test_a_line_holds_its_conditions(results: Path) -> None:
    """Bytes, seconds, what the shuffle reaches, and the sizes of its own point."""
    workload = replace(SMALL, columns=8, curve="columns")
    failed = replace(outcome("read", "numpy-limit", 1), fields={}, error="ended with status 1")
    good = outcome("read", "numpy-limit", 1e6, workload)
    path = report.save([good, failed], report.machine())
    first, second = (json.loads(text) for text in path.read_text("utf-8").splitlines())
    assert path.parent == results
    assert (first["bytes"], first["cpu_s"]) == (10 * (8 * 4 + 1), 2.5)
    assert first["shuffle"] == "inside windows of 512 rows"
    assert first["workload"]["curve"] == "columns"
    assert second["error"] == "ended with status 1"
    assert [line["contender"] for line in saved.lines_of(results)] == ["numpy-limit"]


def test_the_table_names_ratio_memory_and_quality(results: Path) -> None:
    """The fastest first; points of curves are none of its rows."""
    point = next(curves.points("rows", SMALL, (10**6,)))
    found = [outcome("read", name, rate) for name, rate in RATES.items()]
    report.save([*found, outcome("read", "dask-groups", 1e6, point)], report.machine())
    lines = saved.lines_of(results)
    conditions, *rows = saved.table(saved.of_job(lines, "read")).splitlines()
    assert conditions.startswith("2,000 rows of 32 float32")
    assert report.machine()["processor"] in conditions
    assert rows[3:] == [
        "| limit: numpy, memory map | 9 | 18 | 0.33 | 5 | 1.10 | inside windows of 512 rows |",
        "| tfstream, packed | 3 | 6 | 1.00 | 5 | 1.10 | blocks + windows of 512 rows |",
        "| one Example a row, packed | 0.2 | 0.4 | 15.00 | 5 | 1.10 | shards + buffer of 500 |",
        "| a file a row, 200 files, 1 worker | 0.02 | 0.04 | 150.00 | 5 | 1.10 | whole |",
    ]


def line_of(time: str, rate: float, **machine: object) -> dict[str, Any]:
    """A saved line."""
    where = {"processor": "A", "cores": 2, "memory_gib": 1.0} | machine
    workload = {"rows": 10, "batch": 2}
    said = {"time": time, "job": "read", "contender": "numpy-limit", "rows_per_s": rate}
    return said | {"workload": workload, "machine": where}


def test_the_latest_counts(tmp_path: Path) -> None:
    """Repeats that were saved together remain; those of before, and of other machines, do not."""
    lines = [
        line_of("2026-01-03", 4.0),
        line_of("2026-01-01", 1.0),
        line_of("2026-01-03", 5.0),
        line_of("2026-01-02", 2.0) | {"contender": "dask-groups"},
        line_of("2026-01-02", 3.0, cores=4) | {"contender": "saved-blocks"},
        line_of("2026-01-04", 6.0) | {"findings": ["lost"]},
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
    assert [line["rows_per_s"] for line in saved.lines_of(tmp_path)] == [2.0, 4.0, 5.0]


def test_a_torn_line_is_named(tmp_path: Path) -> None:
    """By its file and number."""
    (tmp_path / "a.jsonl").write_text('{"job": "read"}\n{"job"', encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2"):
        saved.lines_of(tmp_path)


def test_every_contender_has_a_label() -> None:
    """The README calls none by the name that the command line has for it."""
    names = {entry.name for job in ("read", "callback") for entry in jobs.entries(job, SMALL)}
    names |= {kind for curve in curves.CURVES.values() for kind in curve.kinds}
    assert {name for name in names if saved.label_of(name) == name} == set()
    assert {kind for curve in curves.CURVES.values() for kind in curve.kinds} <= set(drawing.STYLES)
    assert saved.label_of("npy-65000-w2-processes") == "a file a row, 65,000 files, 2 processes"


def test_the_readme_shows_what_is_saved() -> None:
    """Picture and table are those of `report --readme`, and the picture is there."""
    readme = runner.ROOT / "README.md"
    _, shown, _ = saved.parts_of(readme)
    assert shown == saved.section(saved.lines_of(report.RESULTS), "benchmarks/results")
    for name in re.findall(r"!\[.*?\]\((.*?)\)", shown):
        assert (readme.parent / name).is_file()


def test_the_command_writes_the_readme(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two comments, and nothing else of it."""
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text("before\n", encoding="utf-8")
    report.save([outcome("read", "tfstream-packed", 3e6)], report.machine())
    with pytest.raises(ValueError, match="has no lines"):
        command.main(["report", str(results), "--readme"])
    readme.write_text(f"before\n{saved.BEGIN}\n\n{saved.END}\nafter\n", encoding="utf-8")
    assert command.main(["report", str(results), "--readme"]) == 0
    start, shown, end = saved.parts_of(readme)
    assert (start, end) == ("before\n", "\nafter\n")
    assert shown.startswith("![Speed by contender](results/speed.svg)\n")
