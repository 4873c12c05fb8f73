"""The types under which columns are kept: without loss, or refused by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from tfstream.errors import DataError
from tfstream.format.schema import storage_dtype

_PLAIN = {
    **dict.fromkeys(("string", "large_string", "string_view"), pa.string()),
    **dict.fromkeys(("binary", "large_binary", "binary_view"), pa.binary()),
}
_WIDE = 128
"""Bits of the narrowest decimal that is kept as it is."""


def kept_schema(schema: pa.Schema, where: str) -> pa.Schema:
    """The columns of a source with the types under which they are kept.

    A struct `s` is the bool column `s`, whether it is there, and a column `s.x` for each field.
    Extension types are kept by their storage, dictionaries by their values, large and view types
    as plain ones.

    Args:
        schema: the columns as they are read.
        where: what the message calls the source.

    Raises:
        DataError: if there are none, a name comes twice, or a type cannot be kept.
    """
    if len(schema) == 0:
        raise DataError(f"{where} has no columns")
    try:
        kept = [pair for field in schema for pair in _columns(field.name, field.type)]
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where} has a column whose name is not UTF-8, {error.object[:80]!r}; rename it"
        ) from error
    names = [name for name, _ in kept]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise DataError(f"{where} has more than one column {twice[0]!r}; rename all but one")
    return pa.schema(kept)


def kept_table(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows of a table as read, with the columns and types of a kept schema.

    Raises:
        DataError: if a column is not there, or a list inside a tensor is null.
    """
    found = {
        name: values
        for field, column in zip(table.schema, table.columns, strict=True)
        for name, values in _values(field.name, column)
    }
    columns = []
    for field in schema:
        if field.name not in found:
            raise DataError(f"there is no column {field.name!r}")
        columns.append(found[field.name].cast(field.type))
        _refuse_null_lists(field.name, columns[-1])
    return pa.table(columns, schema=schema)


def _columns(name: str, type_: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """The kept columns of a column of this type."""
    bare = _bare(type_)
    if not pa.types.is_struct(bare):
        yield name, _kept(name, bare)
        return
    yield name, pa.bool_()
    for field in bare:
        yield from _columns(f"{name}.{field.name}", field.type)


def _values(name: str, column: pa.ChunkedArray) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """The columns that `_columns` names, with their values, not yet cast."""
    while isinstance(column.type, (pa.BaseExtensionType, pa.DictionaryType)):
        is_dictionary = pa.types.is_dictionary(column.type)
        plain = [c.dictionary_decode() if is_dictionary else c.storage for c in column.chunks]
        inner = column.type.value_type if is_dictionary else column.type.storage_type
        column = pa.chunked_array(plain, inner)
    if not pa.types.is_struct(column.type):
        yield name, column
        return
    yield name, pc.is_valid(column)
    for field, values in zip(column.type, column.flatten(), strict=True):
        yield from _values(f"{name}.{field.name}", values)


def _bare(type_: pa.DataType) -> pa.DataType:
    """The type of the storage of an extension, of the values of a dictionary."""
    if isinstance(type_, pa.BaseExtensionType):
        return _bare(type_.storage_type)
    return _bare(type_.value_type) if pa.types.is_dictionary(type_) else type_


def _kept(name: str, type_: pa.DataType) -> pa.DataType:
    is_ = pa.types
    if str(type_) in _PLAIN:
        return _PLAIN[str(type_)]
    if is_.is_decimal(type_):
        return pa.decimal128(type_.precision, type_.scale) if type_.bit_width < _WIDE else type_
    if storage_dtype(type_) is not None or is_.is_fixed_size_binary(type_) or is_.is_null(type_):
        return type_
    if _is_list(type_):
        return _kept_list(name, type_)
    raise _refusal(name, type_)


def _kept_list(name: str, type_: pa.DataType) -> pa.DataType:
    item = _bare(type_.value_type)
    if not pa.types.is_fixed_size_list(type_):
        if pa.types.is_nested(item) or pa.types.is_null(item):
            raise _refusal(name, type_)
        return pa.list_(_kept(name, item))
    is_tensor = pa.types.is_fixed_size_list(item) or storage_dtype(item) is not None
    if not is_tensor or type_.list_size == 0:
        raise _refusal(name, type_)
    return pa.list_(_kept(name, item), type_.list_size)


def _is_list(type_: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(type_) for is_kind in kinds)


def _refusal(name: str, type_: pa.DataType) -> DataError:
    return DataError(
        f"column {name!r} has the type {type_}, which cannot be kept; leave it out of the source, "
        f"or {_advice(type_)}"
    )


def _advice(type_: pa.DataType) -> str:  # noqa: PLR0911 - one return a kind of type
    """What to do about a type that is refused."""
    is_ = pa.types
    if is_.is_map(type_):
        return "make a list of its keys and a list of its values"
    if _is_list(type_):
        item = _bare(type_.value_type)
        if is_.is_struct(item):
            return "make a list of each of its fields"
        if is_.is_nested(item):
            return "make a list of numbers or strings out of it"
        return "cast it to a list of numbers or strings"
    if is_.is_interval(type_):
        return "make it a duration, or a number of months, of days and of nanoseconds"
    if is_.is_union(type_):
        return "make a column of each of its types"
    return "cast it to a list, a number or a string"


def _refuse_null_lists(name: str, column: pa.ChunkedArray) -> None:
    """Refuse a tensor one of whose inner lists is null: only rows and items can be."""
    for chunk in column.chunks:
        level = chunk
        while pa.types.is_fixed_size_list(level.type):
            level = level.flatten()
            if pa.types.is_fixed_size_list(level.type) and level.null_count:
                raise DataError(
                    f"column {name!r} has a null in place of a list inside a {column.type}; "
                    "make it a list of nulls, or the whole value null"
                )
