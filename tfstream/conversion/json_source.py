"""Files of JSON lines: an object a line; the types of its fields are found."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.json

from tfstream.conversion import exact, text_source
from tfstream.conversion.promotion import merged
from tfstream.conversion.reading import FindOut, Found, Source, Wish
from tfstream.conversion.text_source import TextStretch
from tfstream.errors import StorageError

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class JsonForm:
    """See `Form`."""

    names: tuple[str, ...] = ()
    asked: frozenset[str] = frozenset()
    """Fields whose types were asked for: a float among them may be rounded."""

    def parse(
        self,
        data: bytes,
        columns: Sequence[str] | None,
        types: Mapping[str, pa.DataType],
        *,
        whole: bool,
    ) -> pa.Table:
        """See `Form`."""
        lines = sum(1 for line in data.split(b"\n") if line.strip())
        if not lines:
            return pa.schema(list(types.items())).empty_table()
        size = max(len(data) + 1, _BLOCK_BYTES) if whole else _BLOCK_BYTES
        try:
            table = pyarrow.json.read_json(
                pa.BufferReader(data),
                pyarrow.json.ReadOptions(use_threads=False, block_size=size),
                pyarrow.json.ParseOptions(
                    explicit_schema=pa.schema(list(types.items())),
                    unexpected_field_behavior="infer" if columns is None else "ignore",
                ),
            )
            # It takes any bytes for text.
            table.validate(full=True)
            _ = table.column_names
        except UnicodeDecodeError as error:
            raise pa.ArrowInvalid(f"a name is not UTF-8: {error}") from error
        except pa.ArrowInvalid as error:
            raise pa.ArrowInvalid(re.sub(r" in row \d+$", "", str(error))) from error
        if table.num_rows != lines:
            raise pa.ArrowInvalid(f"{table.num_rows} objects in {lines} lines")
        self._check(table, data, types)
        if columns is not None:
            return table
        # It makes a column of each type that it is given, whether there is such a field or not.
        absent = [
            name
            for name in types
            if table[name].null_count == lines
            and json.dumps(name, ensure_ascii=False).encode() not in data
        ]
        return table.drop_columns(absent)

    def _check(self, table: pa.Table, data: bytes, types: Mapping[str, pa.DataType]) -> None:
        """Nothing, if the floats of columns with a known type are what the text says."""
        limits = {name: math.inf if name in self.asked else exact.EXACT_WHOLE for name in types}
        large = [name for name in types if exact.holds_large(table[name], limits[name])]
        for line in data.split(b"\n") if large else ():
            held = json.loads(line) if line.strip() else {}
            for name in large:
                type_ = table.schema.field(name).type
                exact.check_json(name, held.get(name), type_, may_round=name in self.asked)

    def records(self, data: bytes) -> list[tuple[int, int]]:
        """See `Form`."""
        ends = [0, *(match.end() for match in re.finditer(rb"\n|\Z", data))]
        return [(a, b) for a, b in itertools.pairwise(ends) if data[a:b].strip()]

    def chosen(self, wish: Wish) -> None:
        """See `Form`; a line tells its fields itself."""

    def unified(self, left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
        """See `Form`."""
        return merged(left, right, _widened)


_LINE_BYTES = 1 << 16
"""Read at once where a line's end is looked for."""


def find(files: Sequence[Source], wish: Wish, run: FindOut) -> list[Found]:
    """The columns and stretches of files of JSON lines, from one pass over all of them.

    Raises:
        DataError: if a field has values of types that no type holds, or a line does not parse.
        StorageError: if a file cannot be read.
    """
    # Numbers are parsed as they are asked for, lest a large one be rounded on the way. All else is
    # cast from what is found.
    types = {n: t for n, t in wish.types.items() if _is_parsed_number(t)}
    return text_source.find("JSON lines", stretches, files, replace(wish, types=types), run)


def stretches(source: Source, wish: Wish) -> list[TextStretch]:
    """The stretches of a file, about `wish.partition_bytes` long, cut behind line feeds.

    Raises:
        StorageError: if it cannot be read.
    """
    places = [0]
    try:
        with source.path.open("rb", _LINE_BYTES) as file:
            while places[-1] + wish.partition_bytes < source.size_bytes:
                file.seek(places[-1] + wish.partition_bytes - 1)
                file.readline()
                places.append(file.tell())
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"cannot read {source.path}: {error.strerror or error}") from error
    if places[-1] < source.size_bytes:
        places.append(source.size_bytes)
    form = JsonForm(asked=frozenset(wish.types))
    return [
        TextStretch(source=source, start=start, stop=stop, form=form)
        for start, stop in itertools.pairwise(places)
    ]


def _widened(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    if {left, right} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if pa.string() in {left, right} and any(map(pa.types.is_timestamp, (left, right))):
        return pa.string()
    return None


def _is_parsed_number(type_: pa.DataType) -> bool:
    floating = type_ in {pa.float32(), pa.float64()}
    return floating or bool(pa.types.is_integer(type_) or pa.types.is_decimal(type_))
