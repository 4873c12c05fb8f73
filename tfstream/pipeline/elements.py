"""What leaves the pipeline: features, label and weight of the rows of a window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tfstream.format.expressions import Column
from tfstream.pipeline import conditions
from tfstream.pipeline.columns import WindowColumns
from tfstream.pipeline.features import Feature

if TYPE_CHECKING:
    from tfstream.pipeline.stream import Stream

Tensor = Any


def features_of(stream: Stream, columns: WindowColumns) -> Tensor:
    """The features, (steps, rows) each by name, or packed (steps, rows, features) float32."""
    if stream.options.packed:
        return _packed(stream.plan, columns)
    made = {}
    for feature in stream.plan:
        made[feature.name] = _value(feature, columns)
        if feature.mask_name is not None:
            made[feature.mask_name] = columns.missing(feature.name)
    return made


def label_of(stream: Stream, columns: WindowColumns) -> Tensor:
    """The label, (steps, rows): a condition as float32 1 or 0, a column as it is stored."""
    assert stream.label is not None
    if isinstance(stream.label, Column):
        return columns.stored(stream.label.name)
    return tf.cast(conditions.evaluate(stream.label, columns, stream.subset.catalog), tf.float32)


def weight_of(stream: Stream, columns: WindowColumns) -> Tensor:
    """The sample weight, (steps, rows) float32."""
    assert stream.weight_text is not None
    return tf.cast(columns.stored(stream.weight_text), tf.float32)


def _packed(features: tuple[Feature, ...], columns: WindowColumns) -> Tensor:
    names = tuple(feature.name for feature in features)
    for pack in columns.schema.packs:
        whole = pack.columns == names and pack.dtype == np.float32
        if whole and all(feature.nulls is None for feature in features):
            return columns.pack(pack.name)
    return tf.stack([tf.cast(_value(f, columns), tf.float32) for f in features], axis=-1)


def _value(feature: Feature, columns: WindowColumns) -> Tensor:
    stored = columns.stored(feature.name)
    if feature.nulls == "nan":
        if not stored.dtype.is_floating:
            stored = tf.cast(stored, tf.float32)
        return tf.where(columns.missing(feature.name), tf.constant(np.nan, stored.dtype), stored)
    if pa.types.is_boolean(feature.column.arrow):
        stored = tf.cast(stored, tf.bool)
    if feature.nulls is not None and feature.nulls != "mask":
        default = tf.cast(tf.constant(feature.nulls), stored.dtype)
        return tf.where(columns.missing(feature.name), default, stored)
    return stored
