"""CSV files: records, and where to cut between them."""

from __future__ import annotations

import functools
import itertools
import math
import mmap
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.csv

from tfstream import storage
from tfstream.conversion import exact, text_source
from tfstream.conversion.reading import FindOut, Found, Source, Wish
from tfstream.conversion.text_source import TextStretch
from tfstream.conversion.types import kept_schema
from tfstream.errors import DataError
from tfstream.storage import Place

_SCAN_BYTES = 16 << 20
_BLOCK_BYTES = 1 << 20
_OTHER_MARKS = ";\t|"
"""What stands between fields elsewhere."""
_QUOTE, _COMMA, _LF, _CR = b'",\n\r'
_FIELD = rb'(?:"[^"]*(?:""[^"]*)*"[^,\r\n]*|[^",\r\n][^,\r\n]*|)'
_RECORD = re.compile(_FIELD + rb"(?:," + _FIELD + rb")*(?:\r\n|\n|\r|\Z)")
"""A record as pyarrow parses it: a quote counts at the start of a field, and doubled inside."""


class UnclosedQuoteError(ValueError):
    """A quoted field that does not end."""

    def __init__(self, places: Sequence[int], byte: int) -> None:
        """With the cuts before it, the last one at the byte at which its record begins."""
        super().__init__(f"a quoted field in the record at byte {byte} does not end")
        self.places = [*(place for place in places if place < byte), byte]


@dataclass(frozen=True, slots=True)
class CsvForm:
    """See `Form`."""

    names: tuple[str, ...]
    """The columns, from the file's first record."""
    asked: frozenset[str] = frozenset()
    """Those whose types were asked for: a float among them may be rounded."""

    def parse(
        self,
        data: bytes,
        columns: Sequence[str] | None,
        types: Mapping[str, pa.DataType],
        *,
        whole: bool,
    ) -> pa.Table:
        """See `Form`."""
        names = [name for name in self.names if columns is None or name in columns]
        if not data:
            return pa.schema([(name, types.get(name, pa.null())) for name in names]).empty_table()
        # Where no column is asked for, one must be read for the number of rows.
        read = names or list(self.names[:1])
        known = {name: types.get(name, pa.string()) for name in read if name in types or not names}
        try:
            table = pyarrow.csv.read_csv(
                pa.BufferReader(data),
                pyarrow.csv.ReadOptions(
                    column_names=list(self.names),
                    use_threads=False,
                    block_size=max(len(data) + 1, _BLOCK_BYTES) if whole else _BLOCK_BYTES,
                ),
                pyarrow.csv.ParseOptions(newlines_in_values=True),
                pyarrow.csv.ConvertOptions(
                    column_types=known,
                    include_columns=read,
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )
        except pa.ArrowInvalid as error:
            raise pa.ArrowInvalid(self._reason(str(error), read)) from error
        for name in types.keys() & set(names):
            numbers = table[name]
            limit = math.inf if name in self.asked else exact.EXACT_WHOLE
            if pa.types.is_floating(numbers.type) and exact.holds_large(numbers, limit):
                texts = self.parse(data, [name], {name: pa.string()}, whole=whole)[name]
                exact.check_text(name, texts, numbers, limit)
        return table.select(names)

    def records(self, data: bytes) -> list[tuple[int, int]]:
        """See `Form`."""
        ends = [0, *(match.end() for match in _RECORD.finditer(data))]
        # pyarrow passes over empty lines.
        return [(a, b) for a, b in itertools.pairwise(ends) if data[a:b].strip(b"\r\n")]

    def chosen(self, wish: Wish) -> list[str]:
        """See `Form`."""
        return [name for name in self.names if wish.wants(name)]

    def unified(self, left: pa.DataType, right: pa.DataType) -> pa.DataType:
        """See `Form`."""
        return unified(left, right)

    @staticmethod
    def _reason(message: str, columns: Sequence[str]) -> str:
        """What pyarrow says of a record, without its place among those that it was given."""
        text = re.sub(r"Row #\d+: ", "", message)
        return re.sub(
            r"^In CSV column #(\d+)", lambda match: f"column {columns[int(match[1])]!r}", text
        )


def find(files: Sequence[Source], wish: Wish, run: FindOut) -> list[Found]:
    """The columns and stretches of CSV files, from one pass over all of them.

    Raises:
        DataError: if a file is empty or does not parse.
        StorageError: if a file cannot be read.
    """
    # What pyarrow does not parse from text is cast from strings later.
    types = {name: type_ if _parses(type_) else pa.string() for name, type_ in wish.types.items()}
    return text_source.find("CSV", stretches, files, replace(wish, types=types), run)


def stretches(source: Source, wish: Wish) -> list[TextStretch]:
    """The stretches of a file, about `wish.partition_bytes` long.

    Raises:
        DataError: if it has no first line, or, unless `wish.lenient`, if a quoted field does not
            end.
        StorageError: if it cannot be read.
    """
    if source.size_bytes == 0:
        raise DataError(
            f"{source.path} is empty; a CSV file needs a first line with the names of its columns"
        )
    broken = None
    try:
        places = cuts(source.path, wish.partition_bytes)
    except UnclosedQuoteError as error:
        if not wish.lenient:
            raise DataError(f"{source.path} is not readable as CSV: {error}") from error
        places, broken = error.places, "a quoted field does not end"
    except ValueError as error:
        raise DataError(f"{source.path} is not readable as CSV: {error}") from error
    form = CsvForm(_names(source, places[0]), frozenset(wish.types))
    found = [
        TextStretch(source=source, start=start, stop=stop, form=form)
        for start, stop in itertools.pairwise(places)
    ]
    if broken is not None:
        end = source.size_bytes
        found.append(
            TextStretch(source=source, start=places[-1], stop=end, form=form, broken=broken)
        )
    return found


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


def cuts(path: Place, partition_bytes: int) -> list[int]:
    """Bytes at which records begin, about `partition_bytes` apart, and the end of the file.

    The first is behind the header.

    Raises:
        UnclosedQuoteError: if a quoted field does not end.
        ValueError: if that is in the first line.
    """
    with storage.mapped(path) as data:
        header = _RECORD.match(data)
        if header is None:
            raise ValueError("a quoted field in its first line does not end")
        quick = _quick_cuts(data, header.end(), partition_bytes)
        return _careful_cuts(data, header.end(), partition_bytes) if quick is None else quick


@functools.cache
def _parses(type_: pa.DataType) -> bool:
    try:
        CsvForm(("x",)).parse(b'"?"\n', None, {"x": type_}, whole=False)
    except pa.ArrowNotImplementedError:
        return False
    except pa.ArrowInvalid:
        pass
    return True


def _names(source: Source, stop: int) -> tuple[str, ...]:
    header = storage.read_range(source.path, 0, stop)
    try:
        schema = pyarrow.csv.read_csv(
            pa.BufferReader(header), parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True)
        ).schema
    except pa.ArrowException as error:
        raise DataError(
            f"the first line of {source.path} does not name columns: {error}"
        ) from error
    kept_schema(schema, str(source))
    others = [mark for mark in _OTHER_MARKS if mark in schema.names[0]]
    if len(schema) == 1 and others:
        raise DataError(
            f"the first line of {source} has no comma but {others[0]!r}; write its fields with "
            "commas between them"
        )
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
            raise UnclosedQuoteError(places, place)
        place = record.end()
        if place >= places[-1] + partition_bytes:
            places.append(place)
    return _closed(places, len(data))


def _closed(places: list[int], end: int) -> list[int]:
    return [*places[:-1], end] if len(places) > 1 and places[-1] == end else [*places, end]
