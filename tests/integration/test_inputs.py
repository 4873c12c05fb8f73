"""Keras inputs from the subset's statistics."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pytest

import tfstream
from tests.streams import converted, table
from tfstream.errors import UsageError

NAMES = ["f", "d", "i", "b", "s", "seen", "v"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tfstream.Shards:
    """700 rows in seven groups."""
    return converted(tmp_path_factory.mktemp("inputs"), table(), block_rows=512)


def stream_of(shards: tfstream.Shards, *, packed: bool, names: list[str]) -> tfstream.Stream:
    """One batch an epoch."""
    return shards.stream(
        batch_size=shards.rows,
        features=names,
        label="y > 0",
        options=tfstream.StreamOptions(packed=packed),
    )


@pytest.mark.parametrize("packed", [False, True])
def test_numbers_are_normalised_by_the_subset_and_nulls_are_told(
    shards: tfstream.Shards, packed: bool
) -> None:
    """Mean 0 and variance 1 over the values that are there; 0 and an indicator where none is."""
    part = shards.where("g < 5")
    stream = stream_of(part, packed=packed, names=["f", "d", "i"])
    inputs, encoded = stream.keras_inputs()
    features, _ = next(iter(stream.dataset()))
    model = keras.Model(inputs, encoded)
    found = model.predict(features, verbose=0, batch_size=part.rows)
    rows = shards.take(stream.row_ids(0, 0))
    place = 0
    for name in ("f", "d", "i"):
        missing = rows[name].is_null().to_numpy()
        values = rows[name].to_numpy().astype(np.float64)
        there = values[~missing]
        normal = np.where(missing, 0, (values - there.mean()) / there.std())
        np.testing.assert_allclose(found[:, place], normal, rtol=1e-4, atol=1e-4)
        place += 1
        if missing.any():
            np.testing.assert_array_equal(found[:, place], missing)
            place += 1
    assert place == found.shape[1]


@pytest.mark.parametrize("packed", [False, True])
def test_all_kinds_fit_save_and_load_without_tfstream(
    shards: tfstream.Shards, tmp_path: Path, packed: bool
) -> None:
    """The model is plain Keras."""
    stream = stream_of(shards, packed=packed, names=NAMES)
    inputs, encoded = stream.keras_inputs()
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(encoded))
    model.compile("adam", "binary_crossentropy")
    history = model.fit(stream.dataset(), epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    features, _ = next(iter(stream.dataset()))
    np.testing.assert_allclose(
        loaded.predict_on_batch(features), model.predict_on_batch(features), rtol=1e-5
    )


def test_codes_that_the_subset_has_not_are_unseen(tmp_path: Path) -> None:
    """They share one embedding, so that no validation row leaks in."""
    source = table()
    words = [f"w{g}" for g in source["g"].to_pylist()]
    shards = converted(tmp_path, source.set_column(8, "s", [words]))
    train, rest = shards.where("g < 4"), shards.where("g >= 4")
    inputs, encoded = stream_of(train, packed=False, names=["s"]).keras_inputs()
    model = keras.Model(inputs, encoded)
    features, _ = next(iter(stream_of(rest, packed=False, names=["s"]).dataset()))
    assert len(np.unique(model.predict_on_batch(features), axis=0)) == 1
    features, _ = next(iter(stream_of(train, packed=False, names=["s"]).dataset()))
    assert len(np.unique(model.predict_on_batch(features), axis=0)) == 4


def test_embeddings_grow_with_the_vocabulary() -> None:
    """The rule, at its ends."""
    from tfstream.pipeline.inputs import embedding_size

    assert [embedding_size(n) for n in (1, 2, 100, 65_538)] == [2, 2, 21, 50]


def test_infinite_values_are_not_normalised(tmp_path: Path) -> None:
    """They have no mean; a subset without them has."""
    shards = converted(tmp_path, pa.table({"g": [0, 1, 1], "x": [np.inf, 1.0, 2.0]}))
    with pytest.raises(UsageError, match="^column 'x' has infinite values, so it has no mean "):
        shards.stream(batch_size=1, features=["x"]).keras_inputs()
    shards.where("g > 0").stream(batch_size=1, features=["x"]).keras_inputs()
