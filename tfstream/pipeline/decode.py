"""Features, labels and weights of a window, as tensors of steps by rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfstream.format import expressions
from tfstream.format.manifest import Catalog
from tfstream.format.schema import FIRST_CODE, NULL_CODE, Column, Schema
from tfstream.format.values import stored_bytes
from tfstream.pipeline import conditions, lists
from tfstream.pipeline.columns import WindowColumns
from tfstream.pipeline.features import PACKED, Feature

Tensor = Any


def features(
    columns: WindowColumns, catalog: Catalog, plan: Sequence[Feature]
) -> dict[str, Tensor]:
    """The features of a dict by name: the packed tensor, if there is one, and the others."""
    inside = [feature for feature in plan if feature.packed]
    found = {PACKED: packed(columns, inside)} if inside else {}
    return found | by_column(columns, catalog, [feature for feature in plan if not feature.packed])


def by_column(
    columns: WindowColumns, catalog: Catalog, features: Sequence[Feature]
) -> dict[str, Tensor]:
    """Each feature (steps, rows) by its name, and the masks that were asked for."""
    found: dict[str, Tensor] = {}
    for feature in features:
        if feature.column.is_list:
            found |= lists.by_name(columns, feature)
            continue
        values = _values(columns, feature.column)
        if feature.is_text and feature.column.coded:
            values = tf.gather(_words(catalog, feature.column), values)
        if feature.as_float:
            values = tf.cast(values, tf.float32)
        if feature.has_nulls and feature.fill is not None:
            fill = tf.cast(tf.constant(feature.fill), values.dtype)
            values = tf.where(_missing(columns, feature.column), fill, values)
        found[feature.name] = values
        if feature.mask:
            found[feature.missing_name] = _missing(columns, feature.column)
    return found


def packed(columns: WindowColumns, features: Sequence[Feature]) -> Tensor:
    """All features in one tensor, (steps, rows, features) float32, in the order of the features."""
    parts = []
    for pack, start, stop in _runs(columns.schema, [feature.name for feature in features]):
        whole = columns.pack(pack)
        part = whole if stop - start == whole.shape[-1] else whole[..., start:stop]
        parts.append(tf.cast(_divided(part, columns.schema, pack, start), tf.float32))
    values = parts[0] if len(parts) == 1 else tf.concat(parts, axis=-1)
    if not any(feature.has_nulls and feature.fill is not None for feature in features):
        return values
    missing = tf.concat([_filled(columns, feature) for feature in features], axis=-1)
    slots = [feature.column.slots for feature in features]
    fills = np.repeat([0.0 if f.fill is None else f.fill for f in features], slots)
    return tf.where(missing, tf.constant(fills, tf.float32), values)


def label(
    columns: WindowColumns, catalog: Catalog, tree: expressions.Node
) -> tuple[Tensor, Tensor]:
    """The label (steps, rows), a condition as float32 1 or 0, and its bits as uint64."""
    if isinstance(tree, expressions.Column):
        values = _values(columns, catalog.schema[tree.name])
    else:
        values = tf.cast(conditions.evaluate(tree, columns, catalog), tf.float32)
    if not values.dtype.is_floating:
        return values, tf.cast(values, tf.uint64)
    bits = {2: tf.uint16, 4: tf.uint32, 8: tf.uint64}[values.dtype.size]
    return values, tf.cast(tf.bitcast(values, bits), tf.uint64)


def weight(columns: WindowColumns, name: str) -> Tensor:
    """The weights, (steps, rows) float32."""
    return tf.cast(columns.stored(name), tf.float32)


def _values(columns: WindowColumns, column: Column) -> Tensor:
    if column.shape:
        return lists.tensors(columns, column)
    stored = columns.stored(column.name)
    return tf.cast(stored, tf.bool) if column.type == "bool" else stored


def _words(catalog: Catalog, column: Column) -> Tensor:
    """The text of each code; that of a null is empty, as where text is stored as such."""
    words = stored_bytes(catalog.vocabularies[column.name]).to_pylist()
    return tf.constant([b""] * FIRST_CODE + words, tf.string)


def _missing(columns: WindowColumns, column: Column) -> Tensor:
    """Where a value is missing, (steps, rows), of tensors an item, (steps, rows, *shape)."""
    if column.shape:
        return lists.missing_items(columns, column)
    if column.coded:
        return columns.stored(column.name) == NULL_CODE
    if column.nullable:
        return columns.missing(column.name)
    return tf.zeros_like(columns.places, tf.bool)


def _filled(columns: WindowColumns, feature: Feature) -> Tensor:
    """Where a packed feature is filled, (steps, rows, slots) bool."""
    steps, rows = tf.unstack(tf.shape(columns.places))
    shape = [steps, rows, feature.column.slots]
    if feature.has_nulls and feature.fill is not None:
        return tf.reshape(_missing(columns, feature.column), shape)
    return tf.zeros(shape, tf.bool)


def _divided(part: Tensor, schema: Schema, pack: str, start: int) -> Tensor:
    """Neighbours in a pack, decimals among them as their values."""
    names = next(found.columns for found in schema.packs if found.name == pack)
    divisors = [schema[name].divisor for name in names[start : start + part.shape[-1]]]
    if all(divisor == 1 for divisor in divisors):
        return part
    return tf.cast(part, tf.float64) / tf.constant(divisors, tf.float64)


def _runs(schema: Schema, names: Sequence[str]) -> list[tuple[str, int, int]]:
    """The names as stretches of neighbours in a pack: pack, first column, end."""
    homes = {
        name: (pack.name, place) for pack in schema.packs for place, name in enumerate(pack.columns)
    }
    runs: list[tuple[str, int, int]] = []
    for name in names:
        pack, place = homes[name]
        if runs and runs[-1][0] == pack and runs[-1][2] == place:
            runs[-1] = (pack, runs[-1][1], place + 1)
        else:
            runs.append((pack, place, place + schema[name].slots))
    return runs
