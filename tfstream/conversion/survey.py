"""What is known of the sources before their rows are read for good, and how they are then read."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from tfstream.conversion.options import ConvertOptions
from tfstream.conversion.promotion import promoted
from tfstream.conversion.reading import Bad, FindOut, Found, Rows, Source, Stretch, Wish, sifted
from tfstream.conversion.shape import Shape
from tfstream.conversion.sources import Sources
from tfstream.conversion.text_source import TextStretch
from tfstream.conversion.types import kept_schema
from tfstream.errors import DataError

NOTHING_READABLE = "no row of the sources can be read; on_bad_rows='raise' tells why"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Consecutive rows of a source, those that cannot be read apart."""

    table: pa.Table
    """The rows, with the columns and types of the data set."""
    source_rows: np.ndarray
    """(rows,) int64: 0-based place of each in the source."""
    bad: tuple[Bad, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Consecutive rows of one source that one task reads."""

    stretch: Stretch
    columns: tuple[str, ...]
    """The columns of the source that are read."""
    shape: Shape
    lenient: bool
    """Whether rows that cannot be read are left out."""

    @property
    def source(self) -> Source:
        """The file."""
        return self.stretch.source

    def read(self, schema: pa.Schema) -> Iterator[Piece]:
        """Its rows in order, in pieces that fit in memory, with the columns and types of `schema`.

        Raises:
            DataError: if a row cannot be read and may not be left out, naming file and row.
            StorageError: if the file cannot be read.
        """
        for parts in self.stretch.read(self.columns):
            # In a call of its own, so that nothing here holds the table while it is worked on.
            yield self._piece(parts, schema)

    def retyped(self, schema: pa.Schema) -> Partition:
        """The same rows of a CSV file, whose text is read as the types of another schema."""
        assert isinstance(self.stretch, TextStretch)  # noqa: S101 - for the type checker
        types = {self.shape.origin(field.name): field.type for field in schema}
        found = self.stretch.schema or ()
        read = pa.schema([(field.name, types.get(field.name, field.type)) for field in found])
        return replace(self, stretch=replace(self.stretch, schema=read))

    def _piece(self, parts: Iterable[Rows | Bad], schema: pa.Schema) -> Piece:
        tables, rows, bad = [schema.empty_table()], [np.empty(0, np.int64)], []
        for part in itertools.chain.from_iterable(self._shaped(one, schema) for one in parts):
            if isinstance(part, Rows):
                tables.append(part.table)
                rows.append(np.arange(part.first_row, part.first_row + part.rows))
            elif self.lenient:
                bad.append(part)
            else:
                raise part.error(self.source)
        # An empty table would be one chunk more.
        table = pa.concat_tables(tables[1:]) if tables[1:] else tables[0]
        return Piece(table=table, source_rows=np.concatenate(rows), bad=tuple(bad))

    def _shaped(self, part: Rows | Bad, schema: pa.Schema) -> Iterator[Rows | Bad]:
        if isinstance(part, Bad):
            yield part
            return

        def read(start: int, stop: int) -> pa.Table:
            return self.shape.apply(part.table.slice(start, stop - start), self.source, schema)

        for start, stop, table in sifted(0, part.rows, read):
            if isinstance(table, str):
                byte, raw = part.line(start) if part.line else (None, None)
                yield Bad(
                    first_row=part.first_row + start, rows=1, reason=table, byte=byte, raw=raw
                )
            else:
                yield Rows(first_row=part.first_row + start, rows=stop - start, table=table)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is known of the sources before their rows are read for good."""

    schema: pa.Schema
    """The columns, with the types under which they are kept."""
    rows: tuple[int, ...]
    """Rows of each source, those that cannot be read included."""
    partitions: tuple[Partition, ...]
    """In the order of (source, row)."""
    size_bytes: int
    """Bytes of all rows, uncompressed; an estimate."""

    @property
    def partition_rows(self) -> list[int]:
        """Rows of each partition, those that cannot be read included."""
        return [partition.stretch.rows for partition in self.partitions]

    def partitions_by_source(self) -> list[list[int]]:
        """The numbers of the partitions of each source."""
        found: list[list[int]] = [[] for _ in self.rows]
        for number, partition in enumerate(self.partitions):
            found[partition.source.ordinal].append(number)
        return found


def survey(sources: Sources, options: ConvertOptions, run: FindOut) -> Survey:
    """The columns, types and partitions of the sources.

    Raises:
        DataError: if a file is not what its suffix says, has no column, or its types do not go
            together with those of another.
        UsageError: if a column that was named is not there, or cannot be cast.
    """
    shape, lenient = Shape.of(options), options.on_bad_rows == "quarantine"
    origins = None if shape.columns is None else tuple(shape.columns.values())
    types = {shape.origin(n): t for n, t in shape.dtypes.items() if _is_chosen(n, shape)}
    wish = Wish(
        partition_bytes=options.partition_bytes, columns=origins, types=types, lenient=lenient
    )
    found = sources.kind.find(sources.files, wish, run)
    schema, there = _schema(found, shape, wish)
    shape.check(schema, there)
    return Survey(
        schema=schema,
        rows=tuple(file.rows for file in found),
        partitions=tuple(
            Partition(
                stretch=stretch,
                columns=tuple(name for name in file.schema.names if wish.wants(name)),
                shape=shape,
                lenient=lenient,
            )
            for file in found
            for stretch in file.stretches
        ),
        size_bytes=sum(file.size_bytes for file in found),
    )


def _is_chosen(name: str, shape: Shape) -> bool:
    return shape.columns is None or name in shape.columns


def _schema(found: Sequence[Found], shape: Shape, wish: Wish) -> tuple[pa.Schema, list[str]]:
    """The columns of the data set, and all those that the sources have."""
    types: dict[str, tuple[pa.DataType, Source] | None] = {}
    there: dict[str, None] = {}
    for file in found:
        kept = _kept(file, wish)
        there.update(dict.fromkeys([*file.names, *file.source.folder_columns]))
        for name, type_ in shape.chosen(kept):
            if pa.types.is_null(type_):
                types.setdefault(name, None)
                continue
            cast = shape.cast_type(name, type_, file.source)
            types[name] = _joined(name, types.get(name), (cast, file.source))
    if not there:
        if any(file.rows for file in found):
            raise DataError(NOTHING_READABLE)
        raise DataError(f"{found[0].source} has no columns; give a source that has rows")
    if not types:
        shape.check(pa.schema([]), list(there))
    known = {
        name: shape.dtypes.get(name, pa.null()) if held is None else held[0]
        for name, held in types.items()
    }
    ordered = known if shape.columns is None else {n: known[n] for n in shape.columns if n in known}
    return kept_schema(pa.schema(list(ordered.items())), str(found[0].source)), list(there)


def _kept(file: Found, wish: Wish) -> pa.Schema:
    """The columns that matter as they are kept; the null type stays, as any type can take it in."""
    told = file.source.folder_columns
    wanted = [field for field in file.schema if wish.wants(field.name) and field.name not in told]
    if wanted:
        kept_schema(pa.schema(wanted), str(file.source))
    kept: list[tuple[str, pa.DataType]] = []
    for field in wanted:
        null = pa.types.is_null(field.type)
        flat = pa.schema([field]) if null else kept_schema(pa.schema([field]), str(file.source))
        kept += zip(flat.names, flat.types, strict=True)
    kept += [(name, value.type) for name, value in file.source.folder_columns.items()]
    return pa.schema(kept)


def _joined(
    name: str, left: tuple[pa.DataType, Source] | None, right: tuple[pa.DataType, Source]
) -> tuple[pa.DataType, Source]:
    if left is None:
        return right
    both = promoted(left[0], right[0])
    if both is None:
        raise DataError(
            f"the sources differ in column {name!r}: {left[1]} has {left[0]}, but {right[1]} has "
            f"{right[0]}, and no type holds the values of both; choose one by dtypes="
        )
    return both, (left[1] if both == left[0] else right[1])
