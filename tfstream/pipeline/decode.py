"""Features, labels and weights of a window, as tensors of steps by rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfstream.format import expressions
from tfstream.format.manifest import Catalog
from tfstream.format.schema import NULL_CODE, Column, Schema
from tfstream.pipeline import conditions
from tfstream.pipeline.columns import WindowColumns
from tfstream.pipeline.features import Feature

Tensor = Any


def by_column(columns: WindowColumns, features: Sequence[Feature]) -> dict[str, Tensor]:
    """Each feature (steps, rows) by its name, and the masks that were asked for."""
    found = {}
    for feature in features:
        values = _values(columns, feature.column)
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
        parts.append(tf.cast(part, tf.float32))
    values = parts[0] if len(parts) == 1 else tf.concat(parts, axis=-1)
    filled = [feature.has_nulls and feature.fill is not None for feature in features]
    if not any(filled):
        return values
    missing = tf.stack(
        [
            _missing(columns, feature.column) if fill else tf.zeros_like(columns.places, tf.bool)
            for feature, fill in zip(features, filled, strict=True)
        ],
        axis=-1,
    )
    fills = tf.constant([0.0 if f.fill is None else f.fill for f in features], tf.float32)
    return tf.where(missing, fills, values)


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
    stored = columns.stored(column.name)
    return tf.cast(stored, tf.bool) if column.type == "bool" else stored


def _missing(columns: WindowColumns, column: Column) -> Tensor:
    if column.coded:
        return columns.stored(column.name) == NULL_CODE
    if column.nullable:
        return columns.missing(column.name)
    return tf.zeros_like(columns.places, tf.bool)


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
            runs.append((pack, place, place + 1))
    return runs
