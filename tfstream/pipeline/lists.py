"""Lists of a window as ragged tensors, and tensors with their null items.

A block holds the lengths of its lists in a pack, and the items of all of them in one feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tfstream.format.schema import Column, storage_dtype
from tfstream.pipeline.columns import DECODED, WindowColumns
from tfstream.pipeline.features import Feature
from tfstream.pipeline.padding import Padded

Tensor = Any


def by_name(columns: WindowColumns, feature: Feature) -> dict[str, Tensor]:
    """A list column, (steps, rows, items), ragged unless it has a length, and what is beside it.

    A null list is empty. Null items are NaN in floating point, else 0 or an empty string.
    """
    column, schema, padded = feature.column, columns.schema, feature.padded
    texts = columns.texts(schema.texts[column.name])
    dtype = storage_dtype(column.item)
    items = texts if dtype is None else _plain(_joined(texts, dtype), column)
    beside = {}
    if feature.mask:
        nothing = tf.zeros_like(columns.places, tf.bool)
        beside[feature.missing_name] = columns.missing(column.name) if column.nullable else nothing
    if column.null_items:
        lost = _joined(columns.texts(schema.validities[column.name]), np.dtype("u1")) == 0
        if feature.item_missing_name:
            picked = _picked(columns, column, lost)
            beside[feature.item_missing_name] = _stacked(columns, picked, padded, value=False)
        else:
            items = tf.where(lost, tf.cast(np.nan, items.dtype), items)
    if feature.length_name and padded:
        lengths = columns.stored(column.name)
        beside[feature.length_name] = (
            tf.minimum(lengths, padded.length) if padded.length else lengths
        )
    value = padded.value_of(column) if padded else None
    picked = _picked(columns, column, items)
    return {feature.name: _stacked(columns, picked, padded, value=value)} | beside


def finished(features: dict[str, Tensor], plan: Sequence[Feature]) -> dict[str, Tensor]:
    """The features of a batch, lists padded to the longest of it where no length was given."""
    found = dict(features)
    for feature in plan:
        if feature.padded and feature.padded.length is None:
            value = feature.padded.value_of(feature.column)
            ragged = found[feature.name]
            found[feature.name] = ragged.to_tensor(tf.constant(value, ragged.dtype))
            if feature.item_missing_name:
                found[feature.item_missing_name] = found[feature.item_missing_name].to_tensor()
    return found


def tensors(columns: WindowColumns, column: Column) -> Tensor:
    """A column of fixed-size lists, (steps, rows, *shape); 0 where an item or the row is null."""
    pack = next(pack for pack in columns.schema.packs if column.name in pack.columns)
    return _shaped(columns, column, _plain(columns.pack(pack.name), column))


def missing_items(columns: WindowColumns, column: Column) -> Tensor:
    """Where an item of a tensor is null or its row is, (steps, rows, *shape) bool."""
    if column.null_items:
        valid = _joined(columns.texts(columns.schema.validities[column.name]), np.dtype("u1"))
        picked = tf.gather(tf.reshape(valid, [-1, column.slots]), columns.dense_places)
        return _shaped(columns, column, picked == 0)
    nothing = tf.zeros_like(columns.places, tf.bool)
    rows = columns.missing(column.name) if column.nullable else nothing
    return _shaped(columns, column, tf.repeat(rows[..., tf.newaxis], column.slots, axis=-1))


def _picked(columns: WindowColumns, column: Column, items: Tensor) -> tf.RaggedTensor:
    """The items of all lists of the blocks, picked row by row: (steps * rows, items)."""
    # What pads a block has the length 0, so the lengths of all rows fit the items.
    count = tf.size(columns.rows, tf.int64) * tf.reduce_max(columns.rows)
    lengths = replace(columns, places=tf.range(count), _packs={}).stored(column.name)
    lists = tf.RaggedTensor.from_row_lengths(items, tf.cast(lengths, tf.int64), validate=False)
    return tf.gather(lists, tf.reshape(columns.places, [-1]))


def _stacked(
    columns: WindowColumns,
    picked: tf.RaggedTensor,
    padded: Padded | None,
    *,
    value: bool | float | bytes | None,
) -> Tensor:
    """(steps * rows, items) as (steps, rows, items): a tensor where there is a length."""
    places = columns.places
    steps, rows = tf.unstack(tf.shape(places, tf.int64))
    if padded is None or padded.length is None:
        return tf.RaggedTensor.from_uniform_row_length(
            picked, places.shape[1] or rows, nrows=steps, validate=False
        )
    flat = picked.to_tensor(tf.constant(value, picked.dtype), shape=[None, padded.length])
    shaped = tf.reshape(flat, tf.stack([steps, rows, tf.constant(padded.length, tf.int64)]))
    shaped.set_shape([*places.shape, padded.length])
    return shaped


def _joined(texts: Tensor, dtype: np.dtype[Any]) -> Tensor:
    """The numbers of all blocks, whose bytes these are."""
    known = tf.as_dtype(dtype.newbyteorder("="))
    values = tf.io.decode_raw(tf.strings.reduce_join(texts), DECODED.get(dtype.name, known))
    return tf.bitcast(values, known) if dtype.name in DECODED else values


def _plain(stored: Tensor, column: Column) -> Tensor:
    """Items as the model gets them."""
    if column.item == pa.bool_():
        return tf.cast(stored, tf.bool)
    if pa.types.is_decimal(column.item):
        return tf.cast(stored, tf.float64) / column.divisor
    return stored


def _shaped(columns: WindowColumns, column: Column, values: Tensor) -> Tensor:
    """(steps, rows, slots) as (steps, rows, *shape)."""
    steps, rows = tf.unstack(tf.shape(columns.places))
    shaped = tf.reshape(values, [steps, rows, *column.shape])
    shaped.set_shape([*columns.places.shape, *column.shape])
    return shaped
