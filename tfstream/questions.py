"""The commands that ask a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfstream import arguments
from tfstream.errors import UsageError
from tfstream.lineage.run import open_run
from tfstream.screen import Format, FormatOption, RunFolder, Screen, ShardsFolder, print_table


def trace(
    run: RunFolder,
    step: Annotated[
        str | None,
        typer.Option(metavar="N|A:B", help="Step, counted from 0 over the whole run, or A to B-1."),
    ] = None,
    epoch: Annotated[
        int | None, typer.Option(help="Epoch of the stream, in place of --step.")
    ] = None,
    *,
    values: Annotated[
        bool,
        typer.Option("--values", help="The rows themselves, checked against their sources."),
    ] = False,
    form: FormatOption = Format.table,
    shards: ShardsFolder = None,
) -> None:
    """Print the rows of steps, back to their sources."""
    steps = None if step is None else arguments.steps(step)
    opened = open_run(run, shards=shards)
    rows = opened.rows(step=steps, epoch=epoch)
    if not values:
        print_table(rows, form)
        return
    from tfstream.evidence import evidence

    found = evidence(opened.catalog, rows["row_id"].to_numpy())
    places = [
        n for n in ("step", "run_step", "row_id", "source", "source_row") if n in rows.column_names
    ]
    table = rows.select(places)
    for name, column in zip(found.values.column_names, found.values.columns, strict=True):
        table = table.append_column(f"value_{name}" if name in places else name, column)
    print_table(table, form)
    screen = Screen()
    for reason in found.missing:
        screen.note(f"not compared: {reason}")
    screen.note(f"{found.compared:,} of {rows.num_rows:,} rows equal their sources")


def find(
    run: RunFolder,
    source: Annotated[str | None, typer.Option(help="Source file, or the end of its path.")] = None,
    row: Annotated[int | None, typer.Option(help="Row of the source, 0 for the first.")] = None,
    row_id: Annotated[
        list[int] | None, typer.Option(help="Row id, in place of --source and --row; once a row.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(metavar="CONDITION", help="\"tailnum = 'N14228'\" or the like.")
    ] = None,
    *,
    count: Annotated[
        bool, typer.Option("--count", help="How many of the rows each epoch has seen.")
    ] = False,
    form: FormatOption = Format.table,
    shards: ShardsFolder = None,
) -> None:
    """Print the steps that saw a row, or all rows that fulfil a condition."""
    asked = [source is not None, bool(row_id), where is not None]
    if (source is None) is not (row is None) or sum(asked) != 1:
        raise UsageError(
            "find needs --source FILE and --row ROW, or --row-id ID, or --where CONDITION"
        )
    opened = open_run(run, shards=shards)
    steps = opened.steps_of(source=source, source_row=row, row_ids=row_id or None, where=where)
    if not steps.num_rows and form is Format.table:
        Screen().say("no step saw such a row")
        return
    if count:
        by = ["attempt", "epoch"]
        steps = steps.group_by(by).aggregate([("row_id", "count"), ("step", "count_distinct")])
        steps = steps.sort_by([(name, "ascending") for name in by]).rename_columns(
            [*by, "rows", "steps"]
        )
    print_table(steps, form)


def coverage(
    run: RunFolder, form: FormatOption = Format.table, shards: ShardsFolder = None
) -> None:
    """Print how many rows of each group were seen how often."""
    print_table(open_run(run, shards=shards).coverage(), form)


def composition(
    run: RunFolder,
    by: Annotated[
        str | None,
        typer.Option(metavar="EXPR", help="Column or bucket(price, 10); else the groups."),
    ] = None,
    step: Annotated[
        str | None, typer.Option(metavar="N|A:B", help="Step, or A to B-1; else all.")
    ] = None,
    form: FormatOption = Format.table,
    shards: ShardsFolder = None,
) -> None:
    """Print what the batches were made of: rows of each group or value, step by step."""
    steps = None if step is None else arguments.steps(step)
    print_table(open_run(run, shards=shards).composition(by, steps=steps), form)


def diff(left: RunFolder, right: RunFolder) -> None:
    """Tell the first step at which two runs saw different rows, and why; exit code 1 if so."""
    screen = Screen()
    runs = (open_run(left), open_run(right))
    found = runs[0].difference(runs[1])
    for name, first, second in found.reasons:
        screen.say(f"{name}: {first} in {runs[0].folder}, {second} in {runs[1].folder}")
    for run, steps in zip(runs, found.only, strict=True):
        if steps:
            screen.say(f"{steps:,} steps are in {run.folder} alone")
    if found.step is None:
        screen.say(f"the {found.steps:,} steps that both have saw the same rows in the same order")
        return
    screen.say(f"step {found.step} is the first of {found.steps:,} that saw other rows")
    raise typer.Exit(1)


def report(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path(
        "report.html"
    ),
    shards: ShardsFolder = None,
) -> None:
    """Write a page about a run: speed, coverage, mix of the batches, unusual steps."""
    from tfstream.lineage.report import write_report

    write_report(open_run(run, shards=shards), out)
    Screen().say(f"{out}, {out.stat().st_size / 1e6:.1f} MB; open it in a browser")


COMMANDS = (trace, find, coverage, composition, diff, report)
