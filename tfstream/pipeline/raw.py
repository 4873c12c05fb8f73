"""Rows of a source as tensors, for a model that has its preprocessing inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from numpy.typing import NDArray

from tfstream.errors import UsageError
from tfstream.format.schema import Column, storage_dtype
from tfstream.format.values import stored_bytes, stored_numbers, stored_tensors
from tfstream.pipeline.features import Feature
from tfstream.pipeline.padding import Padded

Tensor = Any


def tells_nulls(feature: Feature) -> bool:
    """Whether a raw row tells beside its value whether that is missing."""
    if feature.column.is_list or feature.is_text:
        return feature.mask
    return feature.has_nulls or feature.mask or feature.column.coded


def tensors(rows: Any, plan: Sequence[Feature]) -> dict[str, Tensor]:  # noqa: ANN401 - as Preprocessor.raw has it
    """The columns of the features as `serving` describes raw rows.

    Raises:
        UsageError: if a column is missing, is no such type, or is null where no row of the data
            set is.
    """
    found: dict[str, Tensor] = {}
    table = _table(rows, {feature.name: feature.column for feature in plan})
    for feature in plan:
        array = _array(table, feature.column)
        found |= _list(feature, array) if feature.column.is_list else _plain(feature, array)
    return found


def _plain(feature: Feature, array: pa.Array) -> dict[str, Tensor]:
    """A column of one value or one tensor a row."""
    column, dtype = feature.column, storage_dtype(feature.column.item)
    missing = array.is_null().to_numpy(zero_copy_only=False)[:, np.newaxis]
    if dtype is None:
        values: Any = _texts(array)[:, tf.newaxis]
    elif column.shape:
        numbers, items = stored_tensors(array, column, dtype)
        values = tf.constant(_delivered(numbers, column).reshape(-1, *column.shape))
        missing = np.repeat(missing, column.slots, 1) if items is None else items == 0
        missing = missing.reshape(-1, *column.shape)
    else:
        values = tf.constant(_delivered(stored_numbers(array, dtype), column)[:, np.newaxis])
    if tells_nulls(feature):
        return {feature.name: values, feature.missing_name: tf.constant(missing)}
    if missing.any() and not feature.is_text:
        _refuse(feature, int(missing.sum()))
    return {feature.name: values}


def _list(feature: Feature, array: pa.Array) -> dict[str, Tensor]:
    column, padded = feature.column, feature.padded
    if not feature.mask and array.null_count:
        _refuse(feature, array.null_count)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy().astype(np.int64)
    values, lost = _items(feature, array.flatten())
    parts = [(feature.name, values, padded.value_of(column) if padded else None)]
    if feature.item_missing_name:
        parts.append((feature.item_missing_name, tf.constant(lost), False))
    found: dict[str, Tensor] = {}
    for name, flat, value in parts:
        made = tf.RaggedTensor.from_row_lengths(flat, lengths)
        if padded:
            made = made.to_tensor(tf.constant(value, flat.dtype), shape=[None, padded.length])
        found[name] = made
    if feature.mask:
        missing = array.is_null().to_numpy(zero_copy_only=False)
        found[feature.missing_name] = tf.constant(missing[:, np.newaxis])
    if feature.length_name and padded:
        found[feature.length_name] = tf.constant(_cut(lengths, column, padded)[:, np.newaxis])
    return found


def _items(feature: Feature, items: pa.Array) -> tuple[Tensor, NDArray[Any]]:
    """All items of the lists, and which of them are null."""
    column, dtype = feature.column, storage_dtype(feature.column.item)
    lost = items.is_null().to_numpy(zero_copy_only=False)
    if lost.any() and not column.null_items:
        raise UsageError(
            f"{column.name!r} has a null in a list, but no list of the data set has one"
        )
    if dtype is None:
        return _texts(items), lost
    numbers = _delivered(stored_numbers(items, dtype), column)
    if column.null_items and feature.item_missing_name is None:
        numbers = np.where(lost, np.asarray(np.nan, numbers.dtype), numbers)
    return tf.constant(numbers), lost


def _cut(lengths: NDArray[Any], column: Column, padded: Padded) -> NDArray[Any]:
    """The items that are left of each list, (rows,) int32."""
    longest = int(lengths.max(initial=0))
    if padded.length and longest > padded.length and not padded.cut:
        raise UsageError(
            f"{column.name!r} has a list of {longest} items, but is padded to {padded.length}; "
            "give a stream with Padded(cut=True) to leave items out"
        )
    kept: NDArray[Any] = np.minimum(lengths, padded.length or longest).astype(np.int32)
    return kept


def _refuse(feature: Feature, nulls: int) -> None:
    raise UsageError(
        f"{feature.name!r} is null in {nulls} rows, but no row of the data set has a null there, "
        "so the model never saw one; give a value, or ask for a mask by StreamOptions(nulls=...)"
    )


def _delivered(stored: NDArray[Any], column: Column) -> NDArray[Any]:
    """Stored numbers as a stream delivers them."""
    native = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    if pa.types.is_boolean(column.item):
        return native.astype(bool)
    if pa.types.is_decimal(column.item):
        return native.astype(np.float64) / column.divisor
    return native


def _texts(array: pa.Array) -> Tensor:
    words = pc.fill_null(stored_bytes(array), pa.scalar(b"", pa.binary()))
    return tf.constant(words.to_pylist(), tf.string)


def _table(rows: Any, columns: Mapping[str, Column]) -> pa.Table:  # noqa: ANN401 - as Preprocessor.raw has it
    """The rows as Arrow has them."""
    if isinstance(rows, pa.Table):
        return rows
    if isinstance(rows, pa.RecordBatch):
        return pa.Table.from_batches([rows])
    if not isinstance(rows, Sequence):
        return pa.Table.from_pandas(rows, preserve_index=False)
    names = dict.fromkeys(name for row in rows for name in row)
    wanted = [name for name in names if any(c == name or c.startswith(f"{name}.") for c in columns)]
    return pa.table({n: _typed([row.get(n) for row in rows], n, columns.get(n)) for n in wanted})


def _typed(values: list[Any], name: str, column: Column | None) -> pa.Array:
    """Values of a column of the rows; a struct is told by its dicts."""
    is_struct = column is None or any(isinstance(value, dict) for value in values)
    try:
        return pa.array(values, None if column is None or is_struct else column.arrow)
    except (pa.ArrowException, TypeError, OverflowError) as error:
        type_ = "struct" if column is None or is_struct else column.type
        raise UsageError(f"{name!r} is no {type_} in these rows: {error}") from error


def _array(rows: pa.Table, column: Column) -> pa.Array:
    """One column of the rows, in the type of the data set."""
    try:
        found = _column(rows, column.name)
        if isinstance(found, pa.ChunkedArray):
            found = found.combine_chunks()
        if pa.types.is_dictionary(found.type):
            found = found.dictionary_decode()
        if isinstance(found, pa.ExtensionArray):
            found = found.storage
        return found.cast(column.arrow)
    except KeyError as error:
        raise UsageError(
            f"the rows have no column {column.name!r}, which is a feature of the model"
        ) from error
    except (pa.ArrowException, TypeError) as error:
        raise UsageError(f"{column.name!r} is no {column.type} in these rows: {error}") from error


def _column(table: pa.Table, name: str) -> Any:  # noqa: ANN401 - Arrow has no types
    """A column, or the field of a struct by its dotted name; of a struct whether it is there."""
    if name in table.schema.names:
        found = table.column(name)
        return pc.is_valid(found) if pa.types.is_struct(found.type) else found
    parent, dot, field = name.rpartition(".")
    if not dot:
        raise KeyError(name)
    found = _struct(table, parent)
    if pa.types.is_struct(found.type.field(field).type):
        return pc.is_valid(pc.struct_field(found, field))
    return pc.struct_field(found, field)


def _struct(table: pa.Table, name: str) -> Any:  # noqa: ANN401 - Arrow has no types
    if name in table.schema.names:
        return table.column(name)
    parent, dot, field = name.rpartition(".")
    if not dot:
        raise KeyError(name)
    return pc.struct_field(_struct(table, parent), field)
