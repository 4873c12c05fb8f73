"""What the commands share: where they print, and options that several of them have."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import typer
from rich.console import Console

from tfstream import cells, display

if TYPE_CHECKING:
    from tfstream.conversion.progress import ProgressCallback

ShardsFolder = Annotated[
    str | None,
    typer.Option("--shards", help="Folder or URL of the run's data set, if it has moved since."),
]
RunFolder = Annotated[
    str, typer.Argument(metavar="RUN", help="Folder or URL, as given to LineageCallback.")
]


class Format(str, Enum):
    """How a table is printed."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


FormatOption = Annotated[Format, typer.Option("--format", help="How to print the table.")]


class Screen:
    """Where people read: results on stdout, progress on stderr."""

    def __init__(self, *, quiet: bool = False) -> None:
        """Over the process's own stdout and stderr; without progress if quiet."""
        self._console = Console(stderr=True, quiet=quiet)

    @property
    def interactive(self) -> bool:
        """Whether somebody watches."""
        return self._console.is_terminal

    def say(self, line: str) -> None:
        """One line of a result, at once."""
        print(line, flush=True)

    def note(self, line: str) -> None:
        """One line beside a result, for people alone."""
        sys.stdout.flush()
        print(line, file=sys.stderr)

    def progress(self) -> AbstractContextManager[ProgressCallback]:
        """A function that shows how far a conversion is: bars on a terminal, else plain lines."""
        return display.progress(self._console)


def print_table(table: pa.Table, form: Format) -> None:
    """Print a table on stdout."""
    if form is Format.table:
        for line in cells.aligned(cells.cells(table)):
            print(line)
        return
    if form is Format.json:
        print(json.dumps(table.to_pylist(), indent=1, default=str, ensure_ascii=False))
        return
    if form is Format.csv:
        table = _flat(table)
    sys.stdout.flush()
    write = pcsv.write_csv if form is Format.csv else pq.write_table
    buffer = pa.BufferOutputStream()
    write(table, buffer)
    sys.stdout.buffer.write(buffer.getvalue())
    sys.stdout.buffer.flush()


def _flat(table: pa.Table) -> pa.Table:
    """The table with lists as JSON, since CSV has no place for them."""
    for place, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            texts = [
                None if value is None else json.dumps(value, default=str, ensure_ascii=False)
                for value in table.column(place).to_pylist()
            ]
            table = table.set_column(place, field.name, pa.array(texts, pa.string()))
    return table
