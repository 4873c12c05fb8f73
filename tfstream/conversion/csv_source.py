"""CSV files: partitions cut between records, and types that hold for every value of a column."""

from __future__ import annotations

import itertools
import mmap
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from tfstream.conversion.sources import Source, Sources, Survey, refuse_differences
from tfstream.conversion.types import kept_schema
from tfstream.errors import DataError, StorageError

_SCAN_BYTES = 16 << 20
_QUOTE, _COMMA, _LF, _CR = b'",\n\r'
_FIELD = rb'(?:"[^"]*(?:""[^"]*)*"[^,\r\n]*|[^",\r\n][^,\r\n]*|)'
_RECORD = re.compile(_FIELD + rb"(?:," + _FIELD + rb")*(?:\r\n|\n|\r|\Z)")
"""A record as pyarrow parses it: a quote counts at the start of a field, and doubled inside."""

Infer = Callable[[Sequence["CsvPartition"]], list[tuple[int, pa.Schema]]]
"""Runs `CsvPartition.infer` on every partition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvPartition:
    """Consecutive records of a file."""

    source: Source
    first_row: int
    start: int
    """Byte at which its first record begins."""
    stop: int
    """Byte behind its last record."""
    names: tuple[str, ...]
    """The columns, from the file's first record."""

    def read(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """See `Partition`."""
        yield self._table({field.name: field.type for field in schema}).select(schema.names)

    def infer(self) -> tuple[int, pa.Schema]:
        """Number of rows, and the narrowest types that pyarrow finds for these rows."""
        table = self._table({})
        return table.num_rows, table.schema

    def _table(self, types: dict[str, pa.DataType]) -> pa.Table:
        try:
            with self.source.path.open("rb") as file:
                file.seek(self.start)
                data = file.read(self.stop - self.start)
        except OSError as error:
            raise StorageError(
                f"cannot read {self.source.path}: {error.strerror or error}"
            ) from error
        if not data:
            empty = [(name, types.get(name, pa.null())) for name in self.names]
            return pa.schema(empty).empty_table()
        try:
            return pyarrow.csv.read_csv(
                pa.BufferReader(data),
                pyarrow.csv.ReadOptions(column_names=list(self.names), use_threads=False),
                pyarrow.csv.ParseOptions(newlines_in_values=True),
                pyarrow.csv.ConvertOptions(
                    column_types=types, strings_can_be_null=True, quoted_strings_can_be_null=False
                ),
            )
        except pa.ArrowException as error:
            first = str(error).splitlines()[0]
            raise DataError(
                f"{self.source.path} is not readable as CSV in bytes {self.start} to "
                f"{self.stop}: {first}"
            ) from error


def survey(sources: Sources, partition_bytes: int, infer: Infer) -> Survey:
    """The columns and partitions of CSV files, from one pass over all of them.

    Raises:
        DataError: if a file is empty, does not parse, or has other columns than the first.
    """
    cut = [
        partition for source in sources.files for partition in _partitions(source, partition_bytes)
    ]
    inferred = infer(cut)
    rows = Counter({source.ordinal: 0 for source in sources.files})
    partitions: list[CsvPartition] = []
    types: dict[str, pa.DataType] = {name: pa.null() for name in cut[0].names}
    for partition, (count, schema) in zip(cut, inferred, strict=True):
        if set(partition.names) != set(types):
            named = [
                (p.source, pa.schema([(name, pa.null()) for name in p.names]))
                for p in (cut[0], partition)
            ]
            refuse_differences(named[0], named[1])
        partitions.append(replace(partition, first_row=rows[partition.source.ordinal]))
        rows[partition.source.ordinal] += count
        types = {name: unified(type_, schema.field(name).type) for name, type_ in types.items()}
    return Survey(
        schema=kept_schema(pa.schema(list(types.items())), str(cut[0].source.path)),
        rows=tuple(rows[source.ordinal] for source in sources.files),
        partitions=tuple(partitions),
        size_bytes=sum(source.size_bytes for source in sources.files),
    )


def unified(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    """The narrowest type in which the CSV values of both types can be read."""
    if left == right or pa.types.is_null(right):
        return left
    if pa.types.is_null(left):
        return right
    pair = {left, right}
    if pair == {pa.int64(), pa.float64()}:
        return pa.float64()
    if pa.binary() in pair:
        return pa.binary()
    moments = [type_ for type_ in pair if pa.types.is_timestamp(type_) and type_.tz is None]
    if pair <= {*moments, pa.date32()} and moments:
        return pa.timestamp("ns") if pa.timestamp("ns") in pair else moments[0]
    return pa.string()


def cuts(path: Path, partition_bytes: int) -> list[int]:
    """Bytes at which records begin, about `partition_bytes` apart, and the end of the file.

    The first is behind the header.

    Raises:
        ValueError: if a quoted field does not end.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        header = _RECORD.match(data)
        if header is None:
            raise ValueError("a quoted field in its first line does not end")
        quick = _quick_cuts(data, header.end(), partition_bytes)
        return _careful_cuts(data, header.end(), partition_bytes) if quick is None else quick


def _partitions(source: Source, partition_bytes: int) -> Iterator[CsvPartition]:
    if source.size_bytes == 0:
        raise DataError(
            f"{source.path} is empty; a CSV file needs a first line with the names of its columns"
        )
    try:
        places = cuts(source.path, partition_bytes)
    except ValueError as error:
        raise DataError(f"{source.path} is not readable as CSV: {error}") from error
    except OSError as error:
        raise StorageError(f"cannot read {source.path}: {error.strerror or error}") from error
    names = _names(source, places[0])
    for start, stop in itertools.pairwise(places):
        yield CsvPartition(source=source, first_row=0, start=start, stop=stop, names=names)


def _names(source: Source, stop: int) -> tuple[str, ...]:
    with source.path.open("rb") as file:
        header = file.read(stop)
    try:
        schema = pyarrow.csv.read_csv(
            pa.BufferReader(header), parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True)
        ).schema
    except pa.ArrowException as error:
        raise DataError(
            f"the first line of {source.path} does not name columns: {error}"
        ) from error
    kept_schema(schema, str(source.path))
    return tuple(schema.names)


def _quick_cuts(data: mmap.mmap, start: int, partition_bytes: int) -> list[int] | None:
    """The cuts by counting quotes; None if a quote stands where counting would mislead.

    A line feed ends a record if an even number of quotes precedes it. That holds as long as every
    opening quote stands at the start of a field.
    """
    places, quotes, place = [start], 0, start
    while place < len(data):
        stop = min(place + _SCAN_BYTES, len(data))
        # One byte more on the left, to see what precedes an opening quote.
        strip = np.frombuffer(data[place - 1 : stop], np.uint8)
        at = np.flatnonzero(strip[1:] == _QUOTE) + 1
        opening = at[quotes % 2 :: 2]
        # A doubled quote closes and opens again; then a quote precedes.
        if not np.isin(strip[opening - 1], (_COMMA, _LF, _CR, _QUOTE)).all():
            return None
        ends = np.flatnonzero(strip[1:] == _LF) + 1
        ends = ends[(quotes + np.searchsorted(at, ends)) % 2 == 0] + place
        while len(ends) and ends[-1] >= places[-1] + partition_bytes:
            places.append(int(ends[np.searchsorted(ends, places[-1] + partition_bytes)]))
        quotes, place = quotes + len(at), stop
    if quotes % 2:
        return None
    return _closed(places, len(data))


def _careful_cuts(data: mmap.mmap, start: int, partition_bytes: int) -> list[int]:
    places, place = [start], start
    while place < len(data):
        record = _RECORD.match(data, place)
        if record is None:
            raise ValueError(f"a quoted field in the record at byte {place} does not end")
        place = record.end()
        if place >= places[-1] + partition_bytes:
            places.append(place)
    return _closed(places, len(data))


def _closed(places: list[int], end: int) -> list[int]:
    return [*places[:-1], end] if len(places) > 1 and places[-1] == end else [*places, end]
