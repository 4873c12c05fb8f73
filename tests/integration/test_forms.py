"""Features in other forms than by column: packed beside others, padded, as text, and mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfstream
from tests.integration.test_serving import table
from tests.streams import converted
from tfstream.errors import UsageError

BATCH = 16


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tfstream.Shards:
    """Three groups in blocks of 16 rows at most."""
    return converted(tmp_path_factory.mktemp("forms"), table())


def batches(shards: tfstream.Shards, features: list[str], **options: Any) -> list[dict[str, Any]]:
    """The batches of an epoch of several windows."""
    stream = shards.stream(
        batch_size=BATCH,
        features=features,
        options=tfstream.StreamOptions(window_rows=3 * BATCH, **options),
    )
    return list(stream.dataset(epochs=range(1)))


def test_packed_columns_lie_beside_others(shards: tfstream.Shards) -> None:
    """In the order asked for, NaN where null; the others are as they are without it."""
    names = ["i", "s", "vec", "f", "at"]
    mixed = batches(shards, names, packed=("vec", "i"))
    whole = batches(shards, ["vec", "i"], packed=True)
    plain = batches(shards, names)
    for found, packed, columns in zip(mixed, whole, plain, strict=True):
        assert list(found) == ["packed", "s", "f", "at", "at_missing"]
        np.testing.assert_array_equal(found["packed"], packed)
        for name in ("s", "f", "at", "at_missing"):
            np.testing.assert_array_equal(found[name], columns[name])


@pytest.mark.parametrize("length", [None, 2, 9])
@pytest.mark.parametrize("name", ["ints", "floats", "words"])
def test_padded_lists_are_the_ragged_ones_and_their_lengths(
    shards: tfstream.Shards, name: str, length: int | None
) -> None:
    """The value behind the end, the rest cut off, and null items told in the same shape."""
    value: Any = "-" if name == "words" else -1
    ragged = batches(shards, [name])
    padded = batches(
        shards, [name], padded={name: tfstream.Padded(length=length, value=value, cut=True)}
    )
    for lists, found in zip(ragged, padded, strict=True):
        rows = lists[name].to_list()
        size = max(map(len, rows)) if length is None else length
        filler = b"-" if name == "words" else -1
        wanted = [(row + [filler] * size)[:size] for row in rows]
        assert found[name].shape == (BATCH if len(rows) == BATCH else len(rows), size)
        assert found[name].numpy().tolist() == wanted
        assert found[f"{name}_length"].numpy().tolist() == [min(len(row), size) for row in rows]
        np.testing.assert_array_equal(found[f"{name}_missing"], lists[f"{name}_missing"])
        if name == "ints":
            marks = [(row + [False] * size)[:size] for row in lists["ints_item_missing"].to_list()]
            assert found["ints_item_missing"].numpy().tolist() == marks


def test_shapes_of_padded_lists_are_known(shards: tfstream.Shards) -> None:
    """As far as a length was given."""
    options = tfstream.StreamOptions(
        padded={"ints": tfstream.Padded(length=7), "words": tfstream.Padded()}, packed=("f", "d")
    )
    spec = shards.stream(batch_size=BATCH, label="g > 0", options=options).dataset().element_spec[0]
    assert spec["ints"].shape.as_list() == [None, 7]
    assert spec["words"] == tf.TensorSpec([None, None], tf.string)
    assert spec["packed"].shape.as_list() == [None, 2]


def test_coded_text_comes_as_text(shards: tfstream.Shards) -> None:
    """By the vocabulary; a null is empty, told by a mask if one was asked for."""
    codes = batches(shards, ["s"])
    texts = batches(shards, ["s"], strings={"s": "text"}, nulls={"s": "mask"})
    words = [b"", b""] + [w.encode() for w in shards.subset.catalog.vocabularies["s"].to_pylist()]
    for code, text in zip(codes, texts, strict=True):
        assert text["s"].numpy().tolist() == [words[k] for k in code["s"].numpy()]
        assert text["s_missing"].numpy().tolist() == (code["s"].numpy() == 0).tolist()


def test_a_map_keeps_length_order_and_lineage(shards: tfstream.Shards, tmp_path: Path) -> None:
    """Two epochs in fit, by a function of the batch, are proven as any others."""
    stream = shards.stream(batch_size=BATCH, features=["d", "u"], label="g > 0", seed=2)

    def change(features: dict[str, Any], label: Any) -> Any:
        return tf.cast(features["d"] - 1e9, tf.float32)[:, tf.newaxis], 1 - label

    dataset = stream.dataset(map=change)
    assert int(dataset.cardinality()) == stream.steps_per_epoch
    for step, (values, label) in enumerate(stream.dataset(epochs=range(1), map=change)):
        rows = shards.take(stream.row_ids(0, step))
        wanted = (rows["d"].to_numpy() - 1e9).astype(np.float32)
        np.testing.assert_array_equal(values.numpy()[:, 0], wanted)
        assert label.numpy().tolist() == [float(g == 0) for g in rows["g"].to_pylist()]
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    callback = tfstream.LineageCallback(tmp_path / "run", stream)
    model.fit(dataset, epochs=2, verbose=0, shuffle=False, callbacks=[callback])
    run = tfstream.open_run(tmp_path / "run")
    assert run.steps.num_rows == 2 * stream.steps_per_epoch
    assert run.verify(deep=True) == []


def test_dropped_labels_and_weights_go_with_every_form(shards: tfstream.Shards) -> None:
    """Rows without a label or a weight are out, and what is left has its own nulls."""
    part = shards.where("i is not null")
    stream = part.stream(
        batch_size=BATCH,
        features=["f", "s", "ints", "at"],
        label="b",
        weight="i",
        options=tfstream.StreamOptions(
            null_label="drop",
            packed=("f",),
            padded={"ints": tfstream.Padded(length=4)},
            strings={"s": "text"},
            nulls={"s": "mask"},
        ),
    )
    seen = 0
    for step, (features, label, weight) in enumerate(stream.dataset(epochs=range(1))):
        rows = shards.take(stream.row_ids(0, step))
        assert label.numpy().tolist() == rows["b"].to_pylist()
        assert weight.numpy().tolist() == rows["i"].to_pylist()
        np.testing.assert_array_equal(features["packed"][:, 0], rows["f"].to_numpy())
        texts = [(text or "").encode() for text in rows["s"].to_pylist()]
        assert features["s"].numpy().tolist() == texts
        for name in ("s", "ints", "at"):
            missing = rows[name].is_null().to_pylist()
            assert features[f"{name}_missing"].numpy().tolist() == missing
        seen += len(texts)
    assert seen == part.where("b is not null").rows < part.rows


def test_uncoded_text_has_inputs(tmp_path: Path) -> None:
    """Hashed into as many bins as it has values, about; more than fit into codes."""
    rows = 66_000
    source = table().slice(0, 1).select(["g"]).take([0] * rows)
    source = source.append_column("t", [[f"row {i}" for i in range(rows)]])
    stream = converted(tmp_path, source, block_rows=512).stream(
        batch_size=100, features=["t"], label="g = 1"
    )
    inputs, encoded = stream.keras_inputs()
    model = keras.Model(inputs, encoded)
    bins = next(x for x in model.layers if isinstance(x, keras.layers.Hashing)).num_bins
    assert abs(bins / rows - 1) < 0.15
    features, _ = next(iter(stream.dataset()))
    found = model(features).numpy()
    assert len(np.unique(found, axis=0)) > 90
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(features), found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"packed": ("f", "no")}, "packed has 'no', which is no feature; there are g, "),
        ({"packed": ("f", "f")}, "packed has 'f' twice; name each column once"),
        ({"packed": ()}, "packed must be True, False or columns, got ()"),
        ({"packed": "f"}, "packed must be True, False or columns, got 'f'"),
        ({"packed": ("f", "ints")}, "'ints' is a list of any length, which cannot be packed"),
        ({"packed": ("s",), "strings": {"s": "text"}}, "'s' is text, which cannot be packed"),
        ({"padded": {"f": tfstream.Padded()}}, "padded has 'f', a float; only lists are padded"),
        ({"padded": {"no": tfstream.Padded()}}, "padded has 'no', which is no feature"),
        (
            {"padded": {"ints": tfstream.Padded(value=0.5)}},
            "the padding of 'ints', a list<item: int64>, cannot be 0.5; give a value that",
        ),
        (
            {"padded": {"words": tfstream.Padded(value=0)}},
            "the padding of 'words', a list<item: string>",
        ),
        ({"padded": {"ints": tfstream.Padded(length=3)}}, "'ints' has a list of 4 items in "),
        ({"strings": {"f": "text"}}, "strings has 'f', a float; it is no text"),
        ({"strings": {"s": "code"}}, "strings for 's' must be \"codes\" or \"text\", got 'code'"),
        (
            {"strings": {"s": "text"}, "nulls": {"s": 0}},
            "nulls for the text 's' can only be \"mask\", got 0",
        ),
    ],
)
def test_a_form_that_does_not_fit_is_refused(
    shards: tfstream.Shards, options: dict[str, Any], message: str
) -> None:
    """When the stream is made, with the column."""
    with pytest.raises(UsageError) as caught:
        shards.stream(batch_size=8, options=tfstream.StreamOptions(**options))
    assert str(caught.value).startswith(message)


def test_a_list_that_is_too_long_is_refused_for_the_rows_at_hand(shards: tfstream.Shards) -> None:
    """Not for rows that a condition leaves out."""
    ids = [i for i, v in enumerate(shards.take(range(shards.rows))["ints"].to_pylist()) if v]
    short = [i for i in ids if len(shards.take([i])["ints"][0]) <= 2][:2]
    marks = shards.take(short, ["d"])["d"].to_pylist()
    part = shards.where(f"d in ({marks[0]!r}, {marks[1]!r})")
    options = tfstream.StreamOptions(padded={"ints": tfstream.Padded(length=2)})
    stream = part.stream(batch_size=2, features=["ints"], options=options)
    assert next(iter(stream.dataset()))["ints"].shape.as_list() == [2, 2]


def test_a_length_below_one_is_refused() -> None:
    """By the option itself."""
    with pytest.raises(UsageError, match="^length of Padded must be at least 1 or None, got 0$"):
        tfstream.Padded(length=0)
