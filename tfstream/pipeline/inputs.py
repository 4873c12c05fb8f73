"""Keras inputs and their encoding, made from the statistics of a stream's subset: no `adapt` pass, no leak."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfstream.errors import UsageError
from tfstream.format import statistics
from tfstream.format.schema import NULL_CODE, UNSEEN_CODE
from tfstream.pipeline.features import Feature

if TYPE_CHECKING:
    from tfstream.pipeline.stream import Stream

Tensor = Any


def keras_inputs(stream: Stream) -> tuple[Any, Tensor]:
    """See `Stream.keras_inputs`."""
    catalog, groups = stream.subset.catalog, stream.subset.groups
    merged = statistics.merge(catalog.statistics, groups)
    counts = catalog.vocabulary_counts
    counts = counts.filter(pc.is_in(counts["group"], pa.array(groups, pa.int64())))
    if stream.options.packed:
        packed = keras.Input((len(stream.plan),), dtype="float32", name="features")
        parts = []
        for i, feature in enumerate(stream.plan):
            parts += _encode(feature, packed[:, i : i + 1], None, merged, counts)
        return packed, _join(parts)
    inputs, parts = {}, []
    for feature in stream.plan:
        if feature.column.is_text and not feature.column.coded:
            raise UsageError(
                f"{feature.name!r} has too many distinct strings for an embedding of its values; leave it out of the "
                "features or encode it with layers of your own"
            )
        inputs[feature.name] = keras.Input((1,), dtype=_dtype(feature), name=feature.name)
        missing = None
        if feature.mask_name is not None:
            missing = keras.Input((1,), dtype="bool", name=feature.mask_name)
            inputs[feature.mask_name] = missing
        parts += _encode(feature, inputs[feature.name], missing, merged, counts)
    return inputs, _join(parts)


def _encode(
    feature: Feature,
    values: Tensor,
    missing: Tensor | None,
    merged: dict[str, statistics.ColumnStatistics],
    counts: pa.Table,
) -> list[Tensor]:
    """The encoding of one feature, (batch, width) float32 each."""
    name = feature.name
    if feature.column.coded:
        seen = counts.filter(pc.equal(counts["column"], name))["code"].unique().to_numpy()
        return [_embed(name, values, np.sort(seen[seen != UNSEEN_CODE]))]
    values = keras.ops.cast(values, "float32")
    if pa.types.is_boolean(feature.column.arrow) and feature.nulls is None:
        return [values]
    if missing is None and feature.nulls == "nan":
        missing = keras.ops.isnan(values)
    known = merged.get(name)
    mean, variance = (known.mean, known.variance) if known is not None else (None, None)
    normalise = keras.layers.Normalization(
        mean=mean or 0.0, variance=variance or 1.0, name=f"{name}_normalised"
    )
    normalised = normalise(values)
    if missing is None:
        return [normalised]
    # What is missing gets the mean, and the model is told so.
    normalised = keras.ops.where(missing, keras.ops.zeros_like(normalised), normalised)
    return [normalised, keras.ops.cast(missing, "float32")]


def _embed(name: str, codes: Tensor, seen: np.ndarray) -> Tensor:
    """An embedding of the codes that the subset has; all others are one unseen value."""
    known = keras.layers.IntegerLookup(
        vocabulary=[int(code) for code in seen] or [NULL_CODE],
        num_oov_indices=1,
        name=f"{name}_known",
    )
    size = len(seen) + 1
    width = max(1, min(50, round(1.6 * size**0.56)))
    embedded = keras.layers.Embedding(size + 1, width, name=f"{name}_embedding")(
        known(keras.ops.cast(codes, "int64"))
    )
    return keras.layers.Flatten(name=f"{name}_flat")(embedded)


def _dtype(feature: Feature) -> str:
    if feature.column.coded:
        return "int32"
    if pa.types.is_boolean(feature.column.arrow):
        return "bool"
    assert feature.column.dtype is not None
    if feature.nulls == "nan" and feature.column.dtype.kind != "f":
        return "float32"
    return str(feature.column.dtype.name)


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else keras.layers.Concatenate(name="encoded")(parts)
