"""A model that takes raw rows predicts what it predicted in training, wherever it is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import tfstream
from tests.streams import converted
from tests.types import may_be_null
from tfstream.errors import UsageError

ROWS = 120
PACKABLE = ["f", "d", "i", "u", "b", "s", "at", "dec", "vec"]


def table() -> pa.Table:
    """Every kind of column, nulls in all but `d` and `u`."""
    rng = np.random.default_rng(11)

    def some(values: Any, type_: pa.DataType) -> pa.Array:
        lost = rng.random(ROWS) < 0.2 * may_be_null(type_)
        values = [None if gone else value for value, gone in zip(values, lost, strict=True)]
        return pa.array(values, type_)

    words = ["", "a\nb", "[UNK]", "dög", "eel"]
    lengths = rng.integers(0, 5, ROWS)
    return pa.table(
        {
            "g": rng.integers(0, 3, ROWS),
            "f": some(rng.normal(size=ROWS).astype("f4"), pa.float32()),
            "d": rng.normal(size=ROWS) + 1e9,
            "i": some(rng.integers(-9, 9, ROWS), pa.int16()),
            "u": pa.array(rng.integers(0, 2**63, ROWS).astype(np.uint64) * 2, pa.uint64()),
            "b": some((rng.random(ROWS) < 0.5).tolist(), pa.bool_()),
            "s": some([words[k] for k in rng.integers(0, 5, ROWS)], pa.string()),
            "big": some([int(n) * 2 + 1 for n in rng.integers(0, 2**63, ROWS)], pa.uint64()),
            "at": some(rng.integers(0, 2**50, ROWS).tolist(), pa.timestamp("us", "UTC")),
            "dec": some(
                [Decimal(int(n)).scaleb(-2) for n in rng.integers(-9999, 9999, ROWS)],
                pa.decimal128(9, 2),
            ),
            "vec": some(
                [[None if v > 1.5 else v for v in row] for row in rng.normal(size=(ROWS, 3))],
                pa.list_(pa.float32(), 3),
            ),
            "part": some(
                [{"x": float(n) if n % 5 else None} for n in range(ROWS)],
                pa.struct([("x", pa.float64())]),
            ),
            "ints": some(
                [[None if k == 3 else k for k in range(n)] for n in lengths], pa.list_(pa.int64())
            ),
            "floats": some([[n / 7] * n for n in lengths], pa.list_(pa.float32())),
            "words": some([["ä" * k for k in range(n)] for n in lengths], pa.list_(pa.string())),
        }
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tfstream.Shards:
    """Three groups in blocks of 16 rows at most."""
    return converted(tmp_path_factory.mktemp("serving"), table())


def source(shards: tfstream.Shards, stream: tfstream.Stream) -> pa.Table:
    """The rows of the source file behind the only step of the epoch."""
    rows = pq.read_table(shards.subset.catalog.folder.parent / "source.parquet")
    marks = rows["d"].to_pylist()
    wanted = shards.take(stream.row_ids(0, 0), ["d"])["d"].to_pylist()
    return rows.take([marks.index(mark) for mark in wanted])


FORMS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "lists of a length": {
        "padded": {
            "ints": tfstream.Padded(length=3, value=-1, cut=True),
            "floats": tfstream.Padded(length=6),
            "words": tfstream.Padded(value="-"),
        }
    },
    "numbers for nulls": {
        "nulls": {"f": 7, "i": -3, "b": 1, "at": 5, "dec": 0.5, "vec": 2, "s": 4, "big": 2**64 - 1}
    },
    "nan": {"nulls": dict.fromkeys(["i", "b", "at", "dec", "vec", "s"], "nan")},
    "masks": {
        "nulls": dict.fromkeys(["f", "d", "u", "s", "dec", "vec", "part.x", "words"], "mask")
    },
    "text": {"strings": {"s": "text"}, "nulls": {"s": "mask"}},
    "some packed": {"packed": ("b", "f", "vec", "dec"), "nulls": {"b": 1}},
    "all packed": {"packed": True, "features": PACKABLE},
    "all packed, numbers": {
        "packed": True,
        "features": PACKABLE,
        "nulls": {"f": 7, "i": -3, "b": 1, "at": 5, "dec": 0.5, "vec": 2},
    },
}


def stream_of(shards: tfstream.Shards, form: str) -> tfstream.Stream:
    """One batch an epoch."""
    changes, features = dict(FORMS[form]), FORMS[form].get("features")
    changes.pop("features", None)
    options = tfstream.StreamOptions(**changes)
    return shards.stream(batch_size=ROWS, features=features, label="g > 0", seed=3, options=options)


def batch_of(stream: tfstream.Stream) -> Any:
    """The features of the step."""
    features, _ = next(iter(stream.dataset(epochs=range(1))))
    return features


def model_of(stream: tfstream.Stream) -> keras.Model:
    """A model of all features."""
    inputs, encoded = stream.keras_inputs()
    return keras.Model(inputs, keras.layers.Dense(1)(encoded))


def equal(found: Any, wanted: Any) -> None:
    """The same bits, ragged or not; what comes as (rows, 1) may be (rows,)."""
    if isinstance(wanted, tf.RaggedTensor):
        equal(found.row_splits, wanted.row_splits)
        equal(found.values, wanted.values)
        return
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(np.reshape(found, wanted.shape), wanted)


@pytest.mark.parametrize("form", FORMS)
def test_raw_rows_become_the_features_of_the_stream(shards: tfstream.Shards, form: str) -> None:
    """Bit for bit, and so do predictions, without a NaN."""
    stream = stream_of(shards, form)
    features, model, made = batch_of(stream), model_of(stream), shards.preprocessor(stream)
    raw = made.raw(source(shards, stream))
    mapped = keras.Model(made.inputs, made.features)(raw)
    if isinstance(features, dict):
        assert list(mapped) == list(features)
        for name, value in features.items():
            equal(mapped[name], value)
    else:
        equal(mapped, features)
    wanted = model(features).numpy()
    assert np.isfinite(wanted).all()
    assert len(np.unique(wanted)) > ROWS // 2
    serving = keras.Model(made.inputs, model(made.features))
    np.testing.assert_array_equal(serving(raw).numpy(), wanted)


ALONE = """
import json, sys
sys.modules["tfstream"] = None
import keras, numpy as np, tensorflow as tf
folder = sys.argv[1]
raw = json.load(open(folder + "/raw.json"))
raw = {name: tf.constant(values, dtype) for name, (dtype, values) in raw.items()}
model = keras.models.load_model(folder + "/serving.keras")
served = tf.saved_model.load(folder + "/exported")
one, other = model(raw).numpy(), served.serve(raw).numpy()
assert one.tolist() == other.tolist()
print(json.dumps(one.tolist()))
"""


def test_a_saved_model_needs_no_tfstream(shards: tfstream.Shards, tmp_path: Path) -> None:
    """Trained, saved and exported: another process predicts the same from the source's rows."""
    stream = stream_of(shards, "lists of a length")
    model, made = model_of(stream), shards.preprocessor(stream)
    model.compile("adam", "mse", jit_compile=False)
    model.fit(stream.dataset(epochs=range(1)), verbose=0, shuffle=False)
    wanted = model.predict_on_batch(batch_of(stream))
    serving, raw = keras.Model(made.inputs, model(made.features)), made.raw(source(shards, stream))
    np.testing.assert_array_equal(serving.predict_on_batch(raw), wanted)
    serving.save(tmp_path / "serving.keras")
    serving.export(tmp_path / "exported", verbose=False)
    texts = {name: (value.dtype.name, listed(value)) for name, value in raw.items()}
    (tmp_path / "raw.json").write_text(json.dumps(texts))
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout.splitlines()[-1]) == wanted.tolist()


def listed(value: tf.Tensor) -> Any:
    """The values of a tensor as JSON has them."""
    return json.loads(json.dumps(value.numpy().tolist(), default=bytes.decode))


def test_a_model_of_ragged_lists_is_saved_too(shards: tfstream.Shards, tmp_path: Path) -> None:
    """As `.keras`, whose inputs may be ragged."""
    stream = shards.stream(batch_size=ROWS, features=["ints", "floats", "words"], label="g > 0")
    model, made = model_of(stream), shards.preprocessor(stream)
    raw = made.raw(source(shards, stream))
    keras.Model(made.inputs, model(made.features)).save(tmp_path / "serving.keras")
    loaded = keras.models.load_model(tmp_path / "serving.keras")
    np.testing.assert_array_equal(loaded(raw), model(batch_of(stream)))


def test_rows_may_come_as_dicts_or_pandas(shards: tfstream.Shards) -> None:
    """The same inputs as from Arrow; a value that the data set has not seen is unseen."""
    stream = shards.stream(batch_size=8, features=["i", "s", "at", "dec", "part.x", "ints"])
    made, rows = stream.preprocessor(), table().slice(0, 40)
    wanted = made.raw(rows)
    for others in (rows.to_pylist(), rows.to_pandas(types_mapper=pd.ArrowDtype)):
        found = made.raw(others)
        assert list(found) == list(wanted)
        for name, value in wanted.items():
            equal(found[name], value)
    new = [rows.to_pylist()[0] | {"s": "new"}]
    features = keras.Model(made.inputs, made.features)(made.raw(new))
    assert features["s"].numpy().tolist() == [[1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d": None}, "'d' is null in 1 rows, but no row of the data set has a null there"),
        ({"i": "x"}, "'i' is no int16 in these rows: "),
        ({"ints": [1, 2, 3, 4, 5, 6, 7]}, "'ints' has a list of 7 items, but is padded to 4"),
        ({"floats": [1.0, None]}, "'floats' has a null in a list, but no list of the data set has"),
    ],
)
def test_rows_that_no_stream_could_have_are_refused(
    shards: tfstream.Shards, change: dict[str, Any], message: str
) -> None:
    """By the column and the reason."""
    stream = shards.stream(
        batch_size=8,
        features=["d", "i", "ints", "floats"],
        options=tfstream.StreamOptions(padded={"ints": tfstream.Padded(length=4)}),
    )
    row = {"d": 1.0, "i": 3, "ints": [1], "floats": [1.0]}
    with pytest.raises(UsageError) as caught:
        stream.preprocessor().raw([row | change])
    assert str(caught.value).startswith(message)
    with pytest.raises(UsageError, match="^the rows have no column 'ints', which is a feature"):
        stream.preprocessor().raw([{"d": 1.0, "i": 3}])


def test_a_stream_of_another_data_set_is_refused(shards: tfstream.Shards, tmp_path: Path) -> None:
    """With both places."""
    other = converted(tmp_path, table().slice(0, 50))
    with pytest.raises(UsageError, match="^the stream is of the data set "):
        other.preprocessor(stream_of(shards, "defaults"))
