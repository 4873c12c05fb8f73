"""The way from raw rows to the features of a stream, as plain Keras operations of a model.

Raw rows are a dict of tensors by column, (rows, 1) unless said otherwise: text as strings, decimals
of up to 18 digits as float64, times as integers of their unit, tensors (rows, *shape), lists as the
stream has them. Where a null is told apart, `<name>_missing` is true and the value itself is 0 or
an empty string; for tensors it is told an item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import pyarrow as pa
import tensorflow as tf

from tfstream.format.manifest import Catalog
from tfstream.format.schema import NULL_CODE, UNSEEN_CODE
from tfstream.format.values import stored_bytes
from tfstream.pipeline import inputs as making
from tfstream.pipeline import raw
from tfstream.pipeline.features import PACKED, Feature

KerasTensor = Any


@dataclass(frozen=True, kw_only=True)
class Preprocessor:
    """Keras tensors of raw rows and of the features that a stream makes of them.

    `keras.Model(p.inputs, model(p.features))` takes raw rows, and saves and exports as any model.
    """

    inputs: dict[str, KerasTensor]
    """The raw columns, and what tells their nulls, by name."""
    features: KerasTensor
    """What the stream delivers: a dict by name, or one tensor if all is packed."""
    _plan: Sequence[Feature] = field(repr=False)

    def raw(self, rows: pa.Table | Sequence[dict[str, Any]] | Any) -> dict[str, tf.Tensor]:  # noqa: ANN401 - a pandas.DataFrame
        """Rows of a source as the model's inputs.

        To get what training got, call the model with them, or use `predict_on_batch`: `predict`
        first makes float32 of any float64.

        Args:
            rows: a pyarrow table or record batch, a pandas DataFrame, or dicts of a row each, with
                the names of the data set's columns, of which others than the features are not
                looked at. Structs may be structs, or columns by dotted name.

        Raises:
            UsageError: if a column is missing, is no such type, or is null where no row of the
                data set is.
        """
        return raw.tensors(rows, self._plan)


def preprocessor(catalog: Catalog, plan: Sequence[Feature], *, packed: bool) -> Preprocessor:
    """The mapping of a stream with these features.

    Raises:
        UsageError: if a text's values cannot be kept by a Keras layer.
    """
    inputs: dict[str, KerasTensor] = {}
    features: dict[str, KerasTensor] = {}
    parts = []
    for feature in plan:
        own = _inputs(feature)
        inputs |= own
        if feature.packed:
            parts.append(_slots(feature, own, catalog))
        elif feature.column.is_list:
            features |= own
        else:
            features |= _features(feature, own, catalog)
    if parts:
        whole = parts[0] if len(parts) == 1 else keras.ops.concatenate(parts, axis=1)
        features = {PACKED: whole} | features
    made = features[PACKED] if packed else features
    return Preprocessor(inputs=inputs, features=made, _plan=tuple(plan))


def _inputs(feature: Feature) -> dict[str, KerasTensor]:
    column = feature.column
    if column.is_list:
        return making.inputs_of([feature], PACKED)
    shape, dtype = column.shape or (1,), making.item_dtype(column)
    inputs = {feature.name: keras.Input(shape, dtype=dtype, name=feature.name)}
    if raw.tells_nulls(feature):
        name = feature.missing_name
        inputs[name] = keras.Input(shape, dtype="bool", name=name)
    return inputs


def _features(
    feature: Feature, own: dict[str, KerasTensor], catalog: Catalog
) -> dict[str, KerasTensor]:
    value, missing = _value(feature, own, catalog), own.get(feature.missing_name)
    if feature.as_float:
        value = keras.ops.cast(value, "float32")
    found = {feature.name: _filled(feature, value, missing)}
    return found | ({feature.missing_name: missing} if feature.mask else {})


def _slots(feature: Feature, own: dict[str, KerasTensor], catalog: Catalog) -> KerasTensor:
    """A packed feature, (rows, slots) float32."""
    value, missing = _value(feature, own, catalog), own.get(feature.missing_name)
    value = _filled(feature, keras.ops.cast(value, "float32"), missing)
    return keras.ops.reshape(value, (-1, feature.column.slots))


def _value(feature: Feature, own: dict[str, KerasTensor], catalog: Catalog) -> KerasTensor:
    """The value as the data set stores it, a code where it is one."""
    value = own[feature.name]
    if feature.is_text or not feature.column.coded:
        return value
    words = stored_bytes(catalog.vocabularies[feature.name]).to_pylist()
    missing = own[feature.missing_name]
    if words:
        codes = making.lookup_of(words, feature.name)(value) + UNSEEN_CODE
    else:
        codes = keras.ops.full_like(keras.ops.cast(missing, "int64"), UNSEEN_CODE)
    codes = keras.ops.where(missing, keras.ops.full_like(codes, NULL_CODE), codes)
    return keras.ops.cast(codes, "int32")


def _filled(feature: Feature, value: KerasTensor, missing: KerasTensor | None) -> KerasTensor:
    if missing is None or feature.is_text or (feature.column.coded and feature.fill is None):
        return value
    fill: Any = 0 if feature.fill is None or not feature.has_nulls else feature.fill
    if value.dtype == "uint64":
        # Keras' `where` makes uint32 of it; through int64 all bits stay.
        signed = keras.ops.cast(value, "int64")
        fill -= (fill >> 63) << 64
        filled = keras.ops.where(missing, keras.ops.full_like(signed, fill), signed)
        return keras.ops.cast(filled, "uint64")
    return keras.ops.where(missing, keras.ops.full_like(value, fill), value)
