"""Which columns are wanted, under which names and types, and what stands for their nulls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tfstream.conversion import exact
from tfstream.conversion.options import ConvertOptions
from tfstream.conversion.reading import Source
from tfstream.conversion.types import kept_schema, kept_table
from tfstream.errors import DataError, UsageError
from tfstream.format.schema import arrow_type

_ENCODED = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What makes the columns of the data set of those of a source."""

    columns: Mapping[str, str] | None
    """Name in the source by name in the data set; all under their own names if None."""
    dtypes: Mapping[str, pa.DataType]
    """Types that were asked for, by name in the data set."""
    default: Mapping[str, Any]
    """What takes the place of nulls, by name in the data set."""

    @classmethod
    def of(cls, options: ConvertOptions) -> Shape:
        """The shape that options ask for.

        Raises:
            UsageError: if a type is none.
        """
        dtypes = {name: asked_type(name, type_) for name, type_ in (options.dtypes or {}).items()}
        return cls(columns=options.origins, dtypes=dtypes, default=dict(options.default or {}))

    def origin(self, name: str) -> str:
        """What a column of the data set is called in the sources."""
        return name if self.columns is None else self.columns[name]

    def chosen(self, schema: pa.Schema) -> list[tuple[str, pa.DataType]]:
        """The columns of the data set that a source has, with their types there."""
        if self.columns is None:
            return list(zip(schema.names, schema.types, strict=True))
        return [
            (name, schema.field(origin).type)
            for name, origin in self.columns.items()
            if origin in schema.names
        ]

    def cast_type(self, name: str, type_: pa.DataType, source: Source) -> pa.DataType:
        """The type of a column of a source after the cast that was asked for.

        Raises:
            UsageError: if there is no such cast.
        """
        asked = self.dtypes.get(name)
        if asked is None:
            return type_
        try:
            pa.array([], type_).cast(asked)
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
            raise UsageError(
                f"dtypes[{name!r}] is {asked}, but {source} has {type_} there, which cannot be "
                "cast to it; ask for another type"
            ) from error
        return asked

    def check(self, schema: pa.Schema, sources: list[str]) -> None:
        """Nothing, if every column that is named is there, and the defaults fit.

        Args:
            schema: that of the data set.
            sources: the columns that the sources have.

        Raises:
            UsageError: if not.
        """
        for name, origin in (self.columns or {}).items():
            if name not in schema.names:
                raise UsageError(
                    f"columns= names {origin!r}, which no source has; they have "
                    f"{', '.join(sources)}"
                )
        for what, named in (("dtypes", self.dtypes), ("default", self.default)):
            for name in named:
                if name not in schema.names:
                    raise UsageError(
                        f"{what}= names {name!r}, which is no column of the data set; they are "
                        f"{', '.join(schema.names)}"
                    )
        for name in self.default:
            self._filled(pa.nulls(1, schema.field(name).type), name)

    def apply(self, table: pa.Table, source: Source, schema: pa.Schema) -> pa.Table:
        """Rows of a source, with exactly the columns and types of the data set.

        Text may be encoded by a dictionary, if the source had it so.

        Raises:
            pa.ArrowInvalid: if a value does not fit.
        """
        # Where a type says that all is null, it says nothing more: the column counts as missing.
        there = [f.name for f in table.schema if not pa.types.is_null(f.type)]
        encoded = {
            field.name: table[origin]
            for field in schema
            if field.type == pa.string() and field.name not in self.default
            for origin in [self.origin(field.name)]
            if origin in there and _is_encoded(table[origin])
        }
        done = {self.origin(name) for name in encoded}
        done -= {self.origin(name) for name in schema.names if name not in encoded}
        rows, left = table.num_rows, table.select([name for name in there if name not in done])
        if left.num_columns:  # None is, where all are codes already.
            try:
                left = kept_table(left, kept_schema(left.schema, str(source)))
            except DataError as error:
                raise pa.ArrowInvalid(str(error)) from error
        # A dict, since a table looks its names up one by one.
        held = dict(zip(left.column_names, left.columns, strict=True))
        columns = [
            encoded[field.name]
            if field.name in encoded
            else self._column(held, rows, source, field)
            for field in schema
        ]
        return pa.table(columns, names=schema.names)

    def _column(
        self, held: Mapping[str, pa.ChunkedArray], rows: int, source: Source, field: pa.Field
    ) -> pa.ChunkedArray | pa.Array:
        origin = self.origin(field.name)
        try:
            if origin in source.folder_columns:
                values = pa.repeat(source.folder_columns[origin], rows).cast(field.type)
            elif origin in held:
                values = exact.cast(held[origin], field.type)
            else:
                values = pa.nulls(rows, field.type)
        except pa.ArrowInvalid as error:
            raise pa.ArrowInvalid(f"column {field.name!r}: {error}") from error
        return self._filled(values, field.name) if field.name in self.default else values

    def _filled(self, values: pa.ChunkedArray | pa.Array, name: str) -> pa.ChunkedArray | pa.Array:
        value = self.default[name]
        try:
            # A text says a value of any type, as on the command line.
            scalar = pa.scalar(value)
            scalar = scalar if scalar.type == values.type else scalar.cast(values.type)
            return pc.fill_null(values, scalar)
        except (pa.ArrowException, TypeError) as error:
            raise UsageError(
                f"default[{name!r}] is {value!r}, which is no value of the type {values.type}: "
                f"{error}"
            ) from error


def _is_encoded(values: pa.ChunkedArray) -> bool:
    return values.type == _ENCODED and not any(c.dictionary.null_count for c in values.chunks)


def asked_type(name: str, asked: str | pa.DataType) -> pa.DataType:
    """The type that is meant, as it is kept.

    Raises:
        UsageError: if there is none of that name, or it is not kept.
    """
    try:
        type_ = asked if isinstance(asked, pa.DataType) else _named(asked)
        kept = kept_schema(pa.schema([(name, type_)]), f"dtypes[{name!r}]")
    except DataError as error:
        raise UsageError(
            f"dtypes[{name!r}] is {asked}, which is no type that a column can have: {error}"
        ) from error
    if kept.names != [name]:
        raise UsageError(f"dtypes[{name!r}] is {asked}, which is more than one column")
    return kept.field(0).type


def _named(text: str) -> pa.DataType:
    try:
        return pa.type_for_alias(text)
    except ValueError:
        return arrow_type(text)
