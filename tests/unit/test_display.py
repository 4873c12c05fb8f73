"""What is said of a conversion's progress, and when."""

from __future__ import annotations

import pytest

from tfstream.conversion.progress import Progress
from tfstream.display import duration, in_lines, speed


def at(done: int, tasks: int = 100, stage: str = "sort by group") -> Progress:
    """A stage of tasks of 10 rows and 50 MB each."""
    return Progress(
        stage=stage,
        tasks_done=done,
        tasks=tasks,
        rows_done=10 * done,
        rows=10 * tasks,
        size_bytes=50_000_000 * tasks,
    )


def test_lines_come_at_the_ends_of_a_stage_and_every_ten_seconds() -> None:
    """However many tasks end in between, and however fast."""
    lines: list[str] = []
    seconds = 0.0
    report = in_lines(lines.append, lambda: seconds)
    for done in range(101):
        seconds = done / 4
        report(at(done))
    report(at(0, tasks=0, stage="code strings"))
    assert lines == [
        "sort by group: 0 of 1,000 rows (0 %)",
        "sort by group: 400 of 1,000 rows (40 %), 40 rows/s, 200 MB/s, 15 s left",
        "sort by group: 800 of 1,000 rows (80 %), 40 rows/s, 200 MB/s, 5 s left",
        "sort by group: 1,000 of 1,000 rows (100 %), 40 rows/s, 200 MB/s, in 25 s",
        "code strings: 0 of 0 rows (100 %)",
    ]


def test_a_stage_of_the_same_name_begins_anew() -> None:
    """It has its own first line, and its own time."""
    lines: list[str] = []
    seconds = 0.0
    report = in_lines(lines.append, lambda: seconds)
    for seconds, done in ((0.0, 0), (100.0, 1), (100.0, 0), (101.0, 1)):  # noqa: B007 - the clock tells them
        report(at(done, tasks=1))
    assert lines == [
        "sort by group: 0 of 10 rows (0 %)",
        "sort by group: 10 of 10 rows (100 %), 0 rows/s, 0 MB/s, in 1 min 40 s",
        "sort by group: 0 of 10 rows (0 %)",
        "sort by group: 10 of 10 rows (100 %), 10 rows/s, 50 MB/s, in 1 s",
    ]


def test_what_was_done_before_counts_for_no_speed() -> None:
    """A stage that goes on at 90 of 100 tasks is as fast as its own tasks are."""
    assert speed(at(90), at(95), 10) == ", 5 rows/s, 25 MB/s, 10 s left"
    assert speed(at(90), at(90), 10) == ""
    assert speed(at(100), at(100), 10) == ""


def test_tasks_count_where_rows_and_bytes_are_not_known() -> None:
    """And no number is made up."""
    lines: list[str] = []
    seconds = 0.0
    report = in_lines(lines.append, lambda: seconds)
    for done in range(3):
        seconds = 10.0 * done
        report(
            Progress(
                stage="infer types",
                tasks_done=done,
                tasks=3,
                rows_done=0,
                rows=None,
                size_bytes=None,
            )
        )
    assert lines == [
        "infer types: 0 of 3 tasks (0 %)",
        "infer types: 1 of 3 tasks (33 %), 20 s left",
        "infer types: 2 of 3 tasks (66 %), 10 s left",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s"), (7260, "2 h 1 min")],
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    """From seconds to hours."""
    assert duration(seconds) == text
