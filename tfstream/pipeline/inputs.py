"""Keras inputs and preprocessing layers from a subset's statistics. The model is plain Keras."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pyarrow as pa

from tfstream.errors import UsageError
from tfstream.format import kept_statistics
from tfstream.format.subset import Subset
from tfstream.pipeline.features import Feature

KerasTensor = Any

_MOST_DIMENSIONS = 50
_FACTOR, _POWER = 1.6, 0.56


def keras_inputs(
    subset: Subset, features: Sequence[Feature], *, packed: bool
) -> tuple[KerasTensor, KerasTensor]:
    """Inputs as a dict by name, or one if packed, and all features encoded, (batch, k) float32.

    Raises:
        UsageError: if a feature is uncoded text or lists.
    """
    for feature in features:
        if feature.column.is_list:
            raise UsageError(
                f"{feature.name!r} is a list of any length; leave it out of the features or build "
                "its layers by hand"
            )
        if feature.column.dtype is None:
            raise UsageError(
                f"{feature.name!r} is text with too many values for codes; leave it out of the "
                "features or build its layers by hand"
            )
    # One pass over the rows that must be read; what follows takes its columns from there.
    kept_statistics.describe(
        subset, [f.column.name for f in features if not (f.column.shape or _is_bool(f))]
    )
    if packed:
        stops = np.cumsum([feature.column.slots for feature in features]).tolist()
        whole = keras.Input((stops[-1],), dtype="float32", name="features")
        inputs: dict[str, KerasTensor] = {}
        columns = {
            f.name: whole[:, stop - f.column.slots : stop]
            for f, stop in zip(features, stops, strict=True)
        }
    else:
        inputs = columns = _inputs(features)
    parts = []
    numbers = [f for f in features if not (f.column.coded or f.column.shape or _is_bool(f))]
    if numbers:
        parts += _normalised(subset, numbers, columns, inputs)
    for feature in features:
        if feature.column.coded:
            parts.append(_embedded(subset, feature, columns[feature.name]))
        elif feature not in numbers:
            parts += [_flat(feature, part) for part in _as_float(feature, columns[feature.name])]
        if feature not in numbers and feature.mask:
            parts.append(_flat(feature, _float(inputs[feature.missing_name])))
    encoded = parts[0] if len(parts) == 1 else keras.layers.Concatenate()(parts)
    return (whole if packed else inputs), encoded


def embedding_size(values: int) -> int:
    """Dimensions of the embedding of a column with so many values: fastai's rule, at most 50."""
    return max(1, min(_MOST_DIMENSIONS, round(_FACTOR * math.pow(values, _POWER))))


def _inputs(features: Sequence[Feature]) -> dict[str, KerasTensor]:
    inputs = {}
    for feature in features:
        shape = feature.column.shape or (1,)
        inputs[feature.name] = keras.Input(shape, dtype=_dtype(feature), name=feature.name)
        if feature.mask:
            name = feature.missing_name
            inputs[name] = keras.Input(shape, dtype="bool", name=name)
    return inputs


def _dtype(feature: Feature) -> str:
    if feature.as_float:
        return "float32"
    if _is_bool(feature):
        return "bool"
    if pa.types.is_decimal(feature.column.item):
        return "float64"
    return np.dtype(feature.column.dtype).name


def _is_bool(feature: Feature) -> bool:
    return bool(pa.types.is_boolean(feature.column.item))


def _normalised(
    subset: Subset,
    features: Sequence[Feature],
    columns: dict[str, KerasTensor],
    inputs: dict[str, KerasTensor],
) -> list[KerasTensor]:
    """Numbers less their mean, by their deviation; 0 where there is none, and a 1 that tells so."""
    found = kept_statistics.describe(subset, [feature.name for feature in features])
    known = [found[feature.name] for feature in features]
    for feature, one in zip(features, known, strict=True):
        if any(isinstance(bound, float) and math.isinf(bound) for bound in (one.min, one.max)):
            raise UsageError(
                f"column {feature.name!r} has infinite values, so it has no mean to be normalised "
                f"by; leave their rows out by where(), or the column by features="
            )
    means = [0.0 if c.mean is None else c.mean for c in known]
    variances = [c.variance or 1.0 for c in known]
    values = [
        # Subtracted in double precision, since a float32 keeps no second of a time in microseconds.
        _standard(columns[feature.name], mean, variance)
        for feature, mean, variance in zip(features, means, variances, strict=True)
    ]
    parts = []
    for feature, value in zip(features, values, strict=True):
        blank = None
        if feature.mask:
            blank = _float(inputs[feature.missing_name])
        elif feature.fill is not None and np.isnan(feature.fill):
            # A NaN may also be a value of the source, so it is always looked for.
            blank = _float(keras.ops.isnan(value))
        if blank is None:
            parts.append(value)
            continue
        parts.append(keras.ops.where(blank > 0, keras.ops.zeros_like(value), value))
        if feature.has_nulls:
            parts.append(blank)
    return parts


def _standard(value: KerasTensor, mean: float, variance: float) -> KerasTensor:
    wide = keras.ops.cast(value, "float64")
    normal = keras.layers.Normalization(mean=mean, variance=variance, dtype="float64")(wide)
    return _float(normal)


def _embedded(subset: Subset, feature: Feature, codes: KerasTensor) -> KerasTensor:
    values = kept_statistics.describe(subset, [feature.name])[feature.name].values
    # Null is a value of its own; what the subset does not have is the layer's unseen.
    vocabulary = [0, *(values["code"].to_pylist() if values is not None else [])]
    if feature.as_float:
        codes = keras.ops.where(keras.ops.isnan(codes), keras.ops.zeros_like(codes), codes)
    lookup = keras.layers.IntegerLookup(vocabulary=vocabulary, num_oov_indices=1)
    places = lookup(keras.ops.cast(codes, "int64"))
    size = len(vocabulary) + 1
    return keras.layers.Flatten()(keras.layers.Embedding(size, embedding_size(size))(places))


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
