"""The command line: argv in, exit code out. Nothing else in the package prints.

Results go to stdout; progress and errors go to stderr.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from tfstream import arguments, cells, questions, storage
from tfstream.errors import TfstreamError, UsageError
from tfstream.format.check import Finding, check_dataset
from tfstream.format.manifest import MANIFEST, Catalog, open_catalog
from tfstream.lineage import description
from tfstream.screen import Screen, ShardsFolder

_SHOWN_GROUPS, _SHOWN_SOURCES = 6, 3

app = typer.Typer(
    help="Tables too large for memory, streamed to Keras, every step traceable to its source rows.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Folder = Annotated[str, typer.Argument(metavar="OUT", help="Folder of the data set, or URL.")]
SchedulerOption = Annotated[
    str | None,
    typer.Option(help="Address of a Dask scheduler, or threads, processes or synchronous."),
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Show no progress, the result alone.")]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments without the program's name; those of the process if None.

    Returns:
        0, or 1 where `verify` has findings, or the exit code of the error's class: see
        `tfstream.errors`.
    """
    # TensorFlow reads it when it loads; below 3 it tells of plugins that nobody asked for.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        app(args=None if argv is None else list(argv), prog_name="tfstream")
    except TfstreamError as error:
        print(f"tfstream: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


@app.command()
def convert(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Files, globs or folders: Parquet, CSV, JSON lines, Arrow or ORC.",
        ),
    ],
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="Folder of the data set, new or empty; or URL.")
    ],
    group_by: Annotated[
        list[str],
        typer.Option(
            metavar="EXPR",
            help="Column, \"month(ts, 'Europe/Paris')\", hash(id, 64) or the like; once a key.",
        ),
    ],
    columns: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]SOURCE_NAME", help="Column to keep; once a column."),
    ] = None,
    dtypes: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=TYPE", help="Arrow type to cast a column to: x=float32."),
    ] = None,
    default: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Value in place of a column's nulls."),
    ] = None,
    on_bad_rows: Annotated[
        str,
        typer.Option(help="raise, or quarantine: leave out rows that cannot be read, and tell."),
    ] = "raise",
    scheduler: SchedulerOption = None,
    *,
    quiet: QuietOption = False,
) -> None:
    """Convert tables into grouped TFRecord shards."""
    from tfstream.conversion.convert import convert as run

    options = arguments.options(columns, dtypes, default, on_bad_rows)
    screen, start = Screen(quiet=quiet), time.perf_counter()
    with screen.progress() as progress:
        run(
            sources,
            out,
            group_by=arguments.keys(group_by),
            options=options,
            scheduler=scheduler,
            progress=progress,
        )
    catalog = open_catalog(storage.place(out))
    _say_speed(screen, catalog, catalog.rows, time.perf_counter() - start)
    bad = sum(catalog.sources["quarantined"].to_pylist())
    if bad:
        screen.say(f"{bad:,} rows could not be read; {catalog.folder / 'quarantine'} tells why")


@app.command()
def append(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="New files of the columns that OUT has."),
    ],
    out: Folder,
    scheduler: SchedulerOption = None,
    *,
    quiet: QuietOption = False,
) -> None:
    """Add new source files to a data set; its rows, ids and runs stay as they are."""
    from tfstream.conversion.convert import append as run

    screen, start = Screen(quiet=quiet), time.perf_counter()
    before = open_catalog(storage.place(out)).rows
    with screen.progress() as progress:
        run(sources, out, scheduler=scheduler, progress=progress)
    catalog = open_catalog(storage.place(out))
    _say_speed(screen, catalog, catalog.rows - before, time.perf_counter() - start)


def _say_speed(screen: Screen, catalog: Catalog, rows: int, seconds: float) -> None:
    speed = f"{rows:,} rows in {seconds:.1f} s, {rows / seconds:,.0f} rows/s"
    screen.say(f"{catalog.folder}: {speed}, {_sizes(catalog)}")


@app.command()
def inspect(out: Folder) -> None:
    """Show the columns, groups, sizes and statistics of a data set."""
    catalog = open_catalog(storage.place(out))
    screen = Screen()
    names = catalog.sources["path"].to_pylist()
    screen.say(f"data set  {catalog.folder}")
    screen.say(f"digest    {catalog.digest}")
    for parent in reversed(catalog.manifest.parents):
        screen.say(f"parent    {parent.digest}")
    screen.say(f"rows      {catalog.rows:,}, {_sizes(catalog)}")
    for one in catalog.manifest.forgotten:
        rows = sum(stop - start for start, stop in one.ranges)
        screen.say(f"          {rows:,} of them were forgotten on {one.date}")
    more = f" and {len(names) - _SHOWN_SOURCES} more" if len(names) > _SHOWN_SOURCES else ""
    screen.say(f"sources   {', '.join(names[:_SHOWN_SOURCES])}{more}")
    if catalog.manifest.root:
        screen.say(f"          in {catalog.manifest.root}")
    screen.say("")
    for line in cells.aligned(cells.column_table(catalog)):
        screen.say(line)
    screen.say("")
    groups = catalog.groups
    for line in cells.aligned(cells.cells(groups.slice(0, _SHOWN_GROUPS))):
        screen.say(line)
    if groups.num_rows > _SHOWN_GROUPS:
        screen.say(f"… and {groups.num_rows - _SHOWN_GROUPS:,} groups more")


@app.command()
def repair(out: Folder, scheduler: SchedulerOption = None, *, quiet: QuietOption = False) -> None:
    """Make damaged files of a data set again from its sources: equal, or nothing is changed."""
    from tfstream.conversion.repair import repair as run

    screen = Screen(quiet=quiet)
    with screen.progress() as progress:
        findings = run(out, scheduler=scheduler, progress=progress)
    for finding in findings:
        screen.say(str(finding))
    screen.say(
        f"{storage.place(out)}: {len(findings)} findings before; equal to what was converted"
    )


@app.command()
def forget(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of a data set.")],
    where: Annotated[
        str | None, typer.Option(help="A condition on columns, such as \"tailnum = 'N14228'\".")
    ] = None,
    row_id: Annotated[list[int] | None, typer.Option(help="A row; once a row.")] = None,
    runs: Annotated[
        list[Path] | None, typer.Option(help="Folder with runs that may have seen the rows.")
    ] = None,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove the values of some rows from all files of a data set, for good."""
    from tfstream.conversion import forget as forgetting
    from tfstream.format.block_cache import default_folder
    from tfstream.lineage.witnesses import witnesses

    screen = Screen()
    found = forgetting.planned(out, where=where, row_ids=row_id or None)
    screen.say(f"{len(found.row_ids):,} rows in {len(found.shards):,} shards of {out}")
    for witness in witnesses(runs or [], found.catalog, found.row_ids):
        screen.say(f"run {witness}")
    for source in found.sources:
        screen.say(f"may still hold their values: {source}")
    if dry_run:
        return
    if len(found.row_ids) and not yes:
        typer.confirm("Forget them? Nothing brings them back", abort=True)
    removed, cache = forgetting.forget(found), default_folder()
    screen.say(f"{removed.blocks:,} blocks removed from the cache {cache}")
    if removed.readers:
        screen.say(f"may still hold their values: {removed.readers} processes that read through it")
    screen.say("may still hold their values: such folders of others, or of other machines")
    screen.say(f"forgotten; the data set is {open_catalog(out).digest} now")


@app.command()
def verify(
    folder: Annotated[
        str, typer.Argument(metavar="OUT|RUN", help="Folder or URL of a data set or of a run.")
    ],
    *,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="For a run: read every step's labels again from the shards."),
    ] = False,
    shards: ShardsFolder = None,
) -> None:
    """Print every finding; exit code 1 if there is one."""
    screen = Screen()
    findings = 0
    place = storage.place(folder)
    for finding in _findings(folder, deep=deep, shards=shards):
        screen.say(str(finding))
        findings += 1
    if findings:
        screen.say(f"{findings} finding{'s' if findings > 1 else ''} in {place}")
        raise typer.Exit(1)
    screen.say(f"no finding in {place}")


@app.command()
def bench(
    out: Folder,
    batch_size: Annotated[int, typer.Option(help="Rows of a batch.")] = 1024,
    features: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Column to deliver; once a column.")
    ] = None,
    rows: Annotated[int, typer.Option(help="About how many rows to read.")] = 2_000_000,
    *,
    packed: Annotated[bool, typer.Option("--packed", help="As one tensor of numbers.")] = False,
) -> None:
    """Measure how fast a data set streams, which stage takes the time, and which knob helps."""
    from tfstream.pipeline.options import StreamOptions
    from tfstream.pipeline.shards import open_shards

    options = StreamOptions(packed=packed)
    stream = open_shards(out).stream(batch_size=batch_size, features=features, options=options)
    screen, found = Screen(), stream.speed(rows=rows)
    rates = f"{found.rows_per_s:,.0f} rows/s, {found.mb_per_s:,.0f} MB/s"
    screen.say(f"{rates}, {found.cpu_seconds / found.seconds:.1f} cores at work")
    for stage in found.stages:
        screen.say(f"  {stage.name:<10}{stage.seconds / found.seconds:>5.0%}")
    screen.say(f"{found.slowest.name} binds: {found.advice}")


for question in questions.COMMANDS:
    app.command()(question)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo writes.")] = Path(
        "tfstream-demo"
    ),
) -> None:
    """Convert, train on and trace 336,776 real flights, in about a minute."""
    from tfstream.demo import run_demo

    # What the summary proposes to type must work where it is pasted, in a virtual environment too.
    called = Path(sys.argv[0])
    command = (
        str(called) if called.name == "tfstream" and not shutil.which("tfstream") else "tfstream"
    )
    run_demo(out, screen=Screen(), command=command)


def _findings(out: str, *, deep: bool, shards: str | None) -> Iterator[Finding]:
    folder = storage.place(out)
    if (folder / description.NAME).is_file():
        from tfstream.lineage.run import open_run

        yield from open_run(out, shards=shards).verify(deep=deep)
    elif (folder / MANIFEST).is_file():
        yield from check_dataset(open_catalog(folder))
    else:
        raise UsageError(
            f"there is nothing to verify in {folder}: it has neither {MANIFEST} (a data set) "
            f"nor {description.NAME} (a run)"
        )


def _sizes(catalog: Catalog) -> str:
    size = sum(catalog.shards["size_bytes"].to_pylist()) / 1e6
    counts = (
        f"{catalog.groups.num_rows:,} groups by {', '.join(catalog.manifest.group_by)}",
        f"{catalog.shards.num_rows:,} shards",
        f"{catalog.blocks.num_rows:,} blocks",
        f"{size:,.1f} MB",
    )
    return ", ".join(counts)


if __name__ == "__main__":
    sys.exit(main())
