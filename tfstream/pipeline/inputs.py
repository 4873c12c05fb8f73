"""Keras inputs and preprocessing layers from a subset's statistics. The model is plain Keras."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pyarrow as pa

from tfstream.errors import UsageError
from tfstream.format import kept_statistics
from tfstream.format.schema import Column, storage_dtype
from tfstream.format.statistics import ColumnStatistics
from tfstream.format.subset import Subset
from tfstream.format.values import stored_bytes
from tfstream.pipeline import samples
from tfstream.pipeline.features import PACKED, Feature

KerasTensor = Any

_MOST_DIMENSIONS = 50
_FACTOR, _POWER = 1.6, 0.56
_MOST_BINS = 1 << 18
"""Of a hashed text: with 50 dimensions each an embedding of 52 MB."""


def keras_inputs(
    subset: Subset, features: Sequence[Feature], *, packed: bool
) -> tuple[KerasTensor, KerasTensor]:
    """Inputs as a dict by name, or one if all is packed, and all features encoded.

    Returns:
        The inputs, and (batch, k) float32: numbers first, then the others in their order.

    Raises:
        UsageError: if a coded text cannot be a text of a Keras layer, or a number is infinite.
    """
    inputs = inputs_of(features, "features" if packed else PACKED)
    columns, place = dict(inputs), 0
    for feature in features:
        if feature.packed:
            stop = place + feature.column.slots
            columns[feature.name] = inputs[PACKED][:, place:stop]
            place = stop
    numbers = [feature for feature in features if _is_number(feature)]
    known = kept_statistics.describe(subset, [f.name for f in features if not f.column.shape])
    parts = [part for f in numbers for part in _number(f, columns, known[f.name])]
    for feature in features:
        if feature in numbers:
            continue
        value, column = columns[feature.name], feature.column
        if column.is_list:
            parts += _list(subset, feature, columns, known[feature.name])
        elif column.shape:
            parts += _tensor(subset, feature, columns)
        elif column.is_text:
            parts.append(_text(feature, value, known[feature.name]))
        else:
            parts += _as_float(feature, value)
        if feature.mask:
            parts.append(_flat(feature, _float(columns[feature.missing_name])))
    encoded = parts[0] if len(parts) == 1 else keras.layers.Concatenate()(parts)
    return (inputs[PACKED] if packed else inputs), encoded


def inputs_of(features: Sequence[Feature], packed_name: str) -> dict[str, KerasTensor]:
    """A Keras input for each feature of a batch, by its name; `packed_name` is the input's own."""
    inputs = {}
    if slots := sum(feature.column.slots for feature in features if feature.packed):
        inputs[PACKED] = keras.Input((slots,), dtype="float32", name=packed_name)
    for feature in features:
        if feature.packed:
            continue
        column, padded = feature.column, feature.padded
        shape: tuple[int | None, ...] = column.shape or (1,)
        ragged = column.is_list and padded is None
        if column.is_list:
            shape = (padded.length if padded else None,)
        inputs[feature.name] = keras.Input(
            shape, dtype=dtype_of(feature), name=feature.name, ragged=ragged
        )
        if feature.mask:
            name = feature.missing_name
            inputs[name] = keras.Input(column.shape or (1,), dtype="bool", name=name)
        if items := feature.item_missing_name:
            inputs[items] = keras.Input(shape, dtype="bool", name=items, ragged=ragged)
        if length := feature.length_name:
            inputs[length] = keras.Input((1,), dtype="int32", name=length)
    return inputs


def dtype_of(feature: Feature) -> str:
    """The dtype of a feature of the dict."""
    if feature.as_float:
        return "float32"
    return "int32" if _is_codes(feature) else item_dtype(feature.column)


def item_dtype(column: Column) -> str:
    """The dtype of a value, or of an item, before anything is done to it."""
    dtype = storage_dtype(column.item)
    if dtype is None:
        return "string"
    if pa.types.is_boolean(column.item):
        return "bool"
    return "float64" if pa.types.is_decimal(column.item) else str(dtype.name)


def embedding_size(values: int) -> int:
    """Dimensions of the embedding of a column with so many values: fastai's rule, at most 50."""
    return max(1, min(_MOST_DIMENSIONS, round(_FACTOR * math.pow(values, _POWER))))


def lookup_of(words: Sequence[bytes], name: str) -> KerasTensor:
    """A Keras layer from text to places: 0 is unseen, 1 the first word.

    Raises:
        UsageError: if a word is none that the layer keeps as it is.
    """
    texts = samples.plain_texts(words, name)
    unseen = "[UNK]"
    while unseen in texts:
        unseen += "]"
    return keras.layers.StringLookup(vocabulary=texts, num_oov_indices=1, oov_token=unseen)


def _is_codes(feature: Feature) -> bool:
    return feature.column.coded and not feature.is_text


def _is_number(feature: Feature) -> bool:
    """Whether it is one number a row that is normalised by its statistics."""
    column = feature.column
    is_bool = pa.types.is_boolean(column.item)
    return not (column.is_list or column.shape or column.is_text or is_bool)


def _number(
    feature: Feature, columns: Mapping[str, KerasTensor], known: ColumnStatistics
) -> list[KerasTensor]:
    """A number less its mean, by its deviation; 0 where there is none, and a 1 that tells so."""
    if any(isinstance(bound, float) and math.isinf(bound) for bound in (known.min, known.max)):
        raise UsageError(
            f"column {feature.name!r} has infinite values, so it has no mean to be normalised "
            f"by; leave their rows out by where(), or the column by features="
        )
    value = _standard(columns[feature.name], known.mean, known.variance)
    if feature.mask:
        blank = _float(columns[feature.missing_name])
    elif feature.fill is not None and np.isnan(feature.fill):
        # A NaN may also be a value of the source, so it is always looked for.
        blank = _float(keras.ops.isnan(value))
    else:
        return [value]
    value = keras.ops.where(blank > 0, keras.ops.zeros_like(value), value)
    return [value, blank] if feature.has_nulls else [value]


def _standard(value: KerasTensor, mean: float | None, variance: float | None) -> KerasTensor:
    # Subtracted in double precision, since a float32 keeps no second of a time in microseconds.
    wide = keras.ops.cast(value, "float64")
    normal = keras.layers.Normalization(
        mean=mean or 0.0, variance=variance or 1.0, dtype="float64", axis=None
    )(wide)
    return _float(normal)


def _text(feature: Feature, value: KerasTensor, known: ColumnStatistics) -> KerasTensor:
    """Text or codes, embedded; what the subset does not have is the layer's unseen."""
    if not feature.column.coded:
        bins = max(2, min(_MOST_BINS, known.distinct or 0))
        return _embedded(keras.layers.Hashing(bins)(value), bins)
    values = known.values
    if feature.is_text:
        words = [] if values is None else stored_bytes(values["value"].combine_chunks()).to_pylist()
        # Without a null of its own: an empty text stands for it.
        words = [b"", *(word for word in words if word)]
        return _embedded(lookup_of(words, feature.name)(value), len(words) + 1)
    vocabulary = [0, *(values["code"].to_pylist() if values is not None else [])]
    if feature.as_float:
        value = keras.ops.where(keras.ops.isnan(value), keras.ops.zeros_like(value), value)
    lookup = keras.layers.IntegerLookup(vocabulary=vocabulary, num_oov_indices=1)
    return _embedded(lookup(keras.ops.cast(value, "int64")), len(vocabulary) + 1)


def _embedded(places: KerasTensor, size: int) -> KerasTensor:
    return keras.layers.Flatten()(keras.layers.Embedding(size, embedding_size(size))(places))


def _tensor(
    subset: Subset, feature: Feature, columns: Mapping[str, KerasTensor]
) -> list[KerasTensor]:
    value = columns[feature.name]
    if not pa.types.is_boolean(feature.column.item):
        found = samples.moments(subset, feature.column)
        value = _standard(value, found.mean, found.variance)
        if feature.mask:
            blank = columns[feature.missing_name]
            value = keras.ops.where(blank, keras.ops.zeros_like(value), value)
    return [_flat(feature, part) for part in _as_float(feature, value)]


def _list(
    subset: Subset, feature: Feature, columns: Mapping[str, KerasTensor], known: ColumnStatistics
) -> list[KerasTensor]:
    """The mean of the items that are there, numbers normalised and text embedded, and how many."""
    ops, value = keras.ops, columns[feature.name]
    is_text = storage_dtype(feature.column.item) is None
    if is_text:
        bins = max(2, min(_MOST_BINS, samples.distinct_bound(subset, feature.column)))
        value = keras.layers.Hashing(bins)(value)
    there = ops.ones_like(ops.cast(value, "float32"))
    if feature.length_name:
        place = ops.cumsum(there, axis=1)
        there = ops.cast(place <= _float(columns[feature.length_name]), "float32")
    if feature.item_missing_name:
        there *= 1 - _float(columns[feature.item_missing_name])
    if is_text:
        items = keras.layers.Embedding(bins, embedding_size(bins))(value)
        items *= ops.expand_dims(there, -1)
    else:
        found = samples.moments(subset, feature.column)
        items = _standard(value, found.mean, found.variance)
        lost = ops.isnan(items)
        there *= 1 - _float(lost)
        items = ops.where(lost, ops.zeros_like(items), items) * there
    count = ops.sum(there, axis=1, keepdims=True)
    total = ops.sum(items, axis=1, keepdims=not is_text)
    return [total / ops.maximum(count, 1), _standard(count, known.mean, known.variance)]


def _as_float(feature: Feature, value: KerasTensor) -> list[KerasTensor]:
    value = _float(value)
    if feature.fill is None or not np.isnan(feature.fill) or not feature.has_nulls:
        return [value]
    blank = keras.ops.isnan(value)
    return [keras.ops.where(blank, keras.ops.zeros_like(value), value), _float(blank)]


def _flat(feature: Feature, value: KerasTensor) -> KerasTensor:
    """Tensors as (batch, k)."""
    return keras.layers.Flatten()(value) if len(feature.column.shape) > 1 else value


def _float(value: KerasTensor) -> KerasTensor:
    return keras.ops.cast(value, "float32")
