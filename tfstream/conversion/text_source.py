"""Files of text: stretches cut between records, and types that hold for every value of a column."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import pyarrow as pa

from tfstream import storage
from tfstream.conversion.reading import Bad, FindOut, Found, Rows, Source, Wish, sifted
from tfstream.errors import DataError

INFER = "infer types"
"""The stage that parses all text once, for its types."""

_RAW_BYTES = 1 << 20
"""Bytes of a bad record that are kept."""


class Form(Protocol):
    """How the records of one file are written."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that its head tells; more may be found in its records."""

    def parse(
        self,
        data: bytes,
        columns: Sequence[str] | None,
        types: Mapping[str, pa.DataType],
        *,
        whole: bool,
    ) -> pa.Table:
        """The table of some records.

        Args:
            data: the records.
            columns: which of their columns; all if None.
            types: of columns whose types shall not be inferred.
            whole: whether to parse all bytes at once, which any length of a record allows.

        Raises:
            pa.ArrowInvalid: if a record does not parse.
        """

    def records(self, data: bytes) -> list[tuple[int, int]]:
        """Where each record begins and ends."""

    def chosen(self, wish: Wish) -> Sequence[str] | None:
        """The columns to infer the types of; None for all that are found."""

    def unified(self, left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
        """The narrowest type in which the values of both types can be read; None if there is none.

        It must not depend on the order in which several types are unified.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Inferred:
    """What is known of a stretch after it was parsed."""

    rows: int
    """How many, those that cannot be read included."""
    names: Sequence[str]
    """All columns."""
    types: pa.Schema
    """Those that matter, with the narrowest type of each."""
    bad: Bad | None
    """The first row that cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextStretch:
    """Consecutive records of a file."""

    source: Source
    start: int
    """Byte at which its first record begins."""
    stop: int
    """Byte behind its last record."""
    form: Form
    broken: str | None = None
    """Why no record ends here, which makes all of it one that is bad."""
    first_row: int = 0
    rows: int = 0
    schema: pa.Schema | None = None
    """The types of all files together; None before they are known."""

    def read(self, columns: Sequence[str]) -> Iterator[Iterable[Rows | Bad]]:
        """See `Stretch`."""
        types = {f.name: f.type for f in self.schema or () if f.name in columns}
        yield self._parts(columns, types)

    def infer(self, wish: Wish) -> Inferred:
        """Number of rows, and the narrowest types that pyarrow finds for those that it can read.

        Raises:
            DataError: if no type holds all values of a column.
        """
        known = self.form.chosen(wish) or ()
        types = {name: (pa.null(), self.source) for name in known}
        names = dict.fromkeys(self.form.names)
        rows, bad = 0, None
        for part in self._parts(self.form.chosen(wish), wish.types):
            rows += part.rows
            if isinstance(part, Bad):
                bad = bad or part
                if not wish.lenient:
                    break
                continue
            names.update(dict.fromkeys(part.table.column_names))
            for field in part.table.schema:
                if wish.wants(field.name):
                    here = (field.type, self.source)
                    types[field.name] = joined(self.form, field.name, types.get(field.name), here)
        found = {name: type_ for name, (type_, _) in types.items()}
        return Inferred(
            rows=rows, names=tuple(names), types=pa.schema(list(found.items())), bad=bad
        )

    def _parts(
        self, columns: Sequence[str] | None, types: Mapping[str, pa.DataType]
    ) -> Iterator[Rows | Bad]:
        data = self._data()
        if self.broken is not None:
            yield self._bad(0, self.broken, (0, len(data)), data)
            return
        # Only what is wrong, or asked for, needs to know where each record lies.
        places = functools.cache(lambda: self.form.records(data))
        try:
            table = self.form.parse(data, columns, types, whole=False)
        except pa.ArrowInvalid:
            pass
        else:
            yield self._rows(0, table, data, places)
            return

        def read(start: int, stop: int) -> pa.Table:
            part = data[places()[start][0] : places()[stop - 1][1]]
            table = self.form.parse(part, columns, types, whole=True)
            if table.num_rows != stop - start:
                raise pa.ArrowInvalid(f"{table.num_rows} rows in place of {stop - start}")
            return table

        for start, _, table in sifted(0, len(places()), read):
            if isinstance(table, str):
                yield self._bad(start, table, places()[start], data)
            else:
                yield self._rows(start, table, data, places)

    def _rows(
        self, start: int, table: pa.Table, data: bytes, places: Callable[[], list[tuple[int, int]]]
    ) -> Rows:
        def line(row: int) -> tuple[int, bytes]:
            first, last = places()[start + row]
            return self.start + first, data[first : min(last, first + _RAW_BYTES)]

        return Rows(first_row=self.first_row + start, rows=table.num_rows, table=table, line=line)

    def _bad(self, row: int, reason: str, place: tuple[int, int], data: bytes) -> Bad:
        first, last = place
        return Bad(
            first_row=self.first_row + row,
            rows=1,
            reason=reason,
            byte=self.start + first,
            raw=data[first : min(last, first + _RAW_BYTES)],
        )

    def _data(self) -> bytes:
        return storage.read_range(self.source.path, self.start, self.stop - self.start)


def find(
    kind: str,
    cut: Callable[[Source, Wish], list[TextStretch]],
    files: Sequence[Source],
    wish: Wish,
    run: FindOut,
) -> list[Found]:
    """The columns and stretches of files, from one pass over all of them.

    Raises:
        DataError: if no type holds all values of a column, or, unless `wish.lenient`, if a row
            cannot be read.
        StorageError: if a file cannot be read.
    """
    size_bytes = sum(source.size_bytes for source in files)
    cuts = run(f"cut {kind}", cut, [(source, wish) for source in files])
    stretches = [stretch for found in cuts for stretch in found]
    inferred = run(
        INFER,
        TextStretch.infer,
        [(stretch, wish) for stretch in stretches],
        size_bytes=size_bytes,
    )
    types: dict[str, tuple[pa.DataType, Source]] = {}
    names: dict[int, dict[str, None]] = {source.ordinal: {} for source in files}
    placed: dict[int, list[TextStretch]] = {source.ordinal: [] for source in files}
    for stretch, found in zip(stretches, inferred, strict=True):
        before = placed[stretch.source.ordinal]
        first_row = before[-1].first_row + before[-1].rows if before else 0
        if found.bad is not None and not wish.lenient:
            bad = replace(found.bad, first_row=first_row + found.bad.first_row)
            raise bad.error(stretch.source)
        before.append(replace(stretch, first_row=first_row, rows=found.rows))
        names[stretch.source.ordinal].update(dict.fromkeys(found.names))
        for field in found.types:
            name, here = field.name, (field.type, stretch.source)
            types[name] = joined(stretch.form, name, types.get(name), here)
    return [
        _found(source, placed[source.ordinal], tuple(names[source.ordinal]), types)
        for source in files
    ]


def joined(
    form: Form,
    name: str,
    left: tuple[pa.DataType, Source] | None,
    right: tuple[pa.DataType, Source],
) -> tuple[pa.DataType, Source]:
    """A type that holds the values of both, and the source that decided it.

    Raises:
        DataError: if there is none, naming both sources.
    """
    if left is None:
        return right
    both = form.unified(left[0], right[0])
    if both is None:
        raise DataError(
            f"no type holds all values of column {name!r}: {left[1]} has {left[0]}, "
            f"and {right[1]} has {right[0]}; leave the column out by columns=, or give it a type "
            "by dtypes="
        )
    return both, (left[1] if both == left[0] else right[1])


def _found(
    source: Source,
    stretches: Sequence[TextStretch],
    names: tuple[str, ...],
    types: Mapping[str, tuple[pa.DataType, Source]],
) -> Found:
    schema = pa.schema([(name, types[name][0]) for name in names if name in types])
    return Found(
        source=source,
        schema=schema,
        names=names,
        stretches=tuple(replace(s, schema=schema) for s in stretches),
        size_bytes=source.size_bytes,
    )
