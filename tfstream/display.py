"""How the progress of a conversion looks: a bar a stage on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column

from tfstream.conversion.progress import Progress, ProgressCallback

LINE_EVERY_S = 10.0
"""Seconds from a plain line to the next one of its stage, at least; first and last come anyway."""
_BAR_WIDTH, _FRAMES_PER_S = 40, 4
_MINUTE_S, _HOUR_S = 60, 3600


@contextmanager
def progress(console: Console) -> Iterator[ProgressCallback]:
    """A function that shows how far a conversion is."""
    # A dumb terminal cannot draw a line again.
    if not console.is_terminal or console.is_dumb_terminal:
        # The lines of a log are not folded at the width of a terminal that is not there.
        yield in_lines(partial(console.print, highlight=False, markup=False, soft_wrap=True))
        return
    with Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(None, table_column=Column(max_width=_BAR_WIDTH)),
        TextColumn("{task.percentage:>3.0f}% {task.fields[text]}", markup=False),
        console=console,
        refresh_per_second=_FRAMES_PER_S,
    ) as bars:
        yield _in_bars(bars)


def in_lines(
    write: Callable[[str], None], clock: Callable[[], float] = time.perf_counter
) -> ProgressCallback:
    """A function that writes a line when a stage begins and ends, and now and then between.

    Args:
        write: takes one line.
        clock: tells the time in seconds.
    """
    written_s = 0.0

    def show(now: Progress, first: Progress, start_s: float) -> None:
        nonlocal written_s
        at_s = clock()
        if now is first or now.is_done or at_s - written_s >= LINE_EVERY_S:
            written_s = at_s
            percent = f"({int(100 * now.share)} %)"
            write(f"{now.stage}: {_counts(now)} {percent}{speed(first, now, at_s - start_s)}")

    return _by_stage(show, clock)


def _in_bars(bars: Bars) -> ProgressCallback:
    bar = TaskID(0)

    def show(now: Progress, first: Progress, start_s: float) -> None:
        nonlocal bar
        if now is first:
            bar = bars.add_task(now.stage, total=1.0, text="")
        done = _counts(now) if now.rows is None else f"{now.rows_done:,} rows"
        text = f"{done}{speed(first, now, time.perf_counter() - start_s)}"
        bars.update(bar, completed=now.share, text=text)

    return _by_stage(show, time.perf_counter)


def _by_stage(
    show: Callable[[Progress, Progress, float], None], clock: Callable[[], float]
) -> ProgressCallback:
    """Calls a function with what is done, what was when the stage began, and when that was."""
    last: Progress | None = None
    begun: tuple[Progress, float]

    def advance(now: Progress) -> None:
        nonlocal last, begun
        if last is None or last.stage != now.stage or last.is_done:
            begun = (now, clock())
        last = now
        show(now, *begun)

    return advance


def _counts(now: Progress) -> str:
    if now.rows is None:
        return f"{now.tasks_done:,} of {now.tasks:,} tasks"
    return f"{now.rows_done:,} of {now.rows:,} rows"


def speed(first: Progress, now: Progress, seconds: float) -> str:
    """How fast a stage goes: `, 812,000 rows/s, 91 MB/s, 12 s left`; empty if nothing has ended.

    Args:
        first: what was done when it began; that does not count.
        now: what is done.
        seconds: how long that took.
    """
    share = now.share - first.share
    if share <= 0 or seconds <= 0:
        return ""
    text = ""
    if now.rows is not None:
        text += f", {(now.rows_done - first.rows_done) / seconds:,.0f} rows/s"
    if now.size_bytes is not None:
        text += f", {(now.bytes_done - first.bytes_done) / seconds / 1e6:,.0f} MB/s"
    if now.is_done:
        return f"{text}, in {duration(seconds)}"
    return f"{text}, {duration((1 - now.share) * seconds / share)} left"


def duration(seconds: float) -> str:
    """Seconds, or two units where there are minutes: `7 s`, `2 min 5 s`, `31 h 0 min`."""
    whole = round(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S} s"
    return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"
