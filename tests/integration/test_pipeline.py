"""Batches from the graph: the rows that the order says, with the values of the source."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

import tfstream
from tests.streams import ROWS, converted, table
from tfstream.errors import CorruptionError, DataError, StorageError, UsageError
from tfstream.format import block, framing
from tfstream.format.schema import FIRST_CODE

BATCH = 24


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tfstream.Shards:
    """Seven groups in blocks of 16 rows at most."""
    return converted(tmp_path_factory.mktemp("pipeline"), table())


@pytest.fixture
def copied(shards: tfstream.Shards, tmp_path: Path) -> tfstream.Shards:
    """A copy that a test may damage."""
    return tfstream.open(shutil.copytree(shards.subset.catalog.folder, tmp_path / "copy"))


def options(**changes: Any) -> tfstream.StreamOptions:
    """Several windows an epoch."""
    return tfstream.StreamOptions(**{"window_rows": 5 * BATCH} | changes)


def stream_of(shards: tfstream.Shards, **changes: Any) -> tfstream.Stream:
    """A stream of several windows an epoch."""
    arguments: dict[str, Any] = {"batch_size": BATCH, "label": "y > 0.25", "seed": 9}
    return shards.stream(**{"options": options()} | arguments | changes)


def ids_of(dataset: tf.data.Dataset) -> list[list[int]]:
    """The ids of each batch."""
    return [features["id"].numpy().tolist() for features, *_ in dataset]


def planned(stream: tfstream.Stream, shards: tfstream.Shards, epoch: int) -> list[list[int]]:
    """The ids of each batch of an epoch, by numpy."""
    return [
        shards.take(stream.row_ids(epoch, step), ["id"])["id"].to_pylist()
        for step in range(stream.steps_per_epoch)
    ]


CONDITIONS = [None, "g < 4", "d > -0.5", "(f is null or i > 0) and g <> 2"]


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("shuffle", ["global", "none"])
def test_batches_are_the_planned_rows_with_their_values(
    shards: tfstream.Shards, condition: str | None, shuffle: str
) -> None:
    """Two epochs, each a permutation of the subset's rows, with nulls, codes and labels."""
    part = shards if condition is None else shards.where(condition)
    stream = stream_of(part, weight="d", options=options(shuffle=shuffle))
    dataset, epochs = stream.dataset(), []
    for epoch in range(2):
        rows = []
        for step, (features, label, weight) in enumerate(dataset):
            ids = stream.row_ids(epoch, step)
            check_values(features, label, weight, shards.take(ids), shards)
            rows += ids.tolist()
        assert len(rows) == part.rows
        assert len(set(rows)) == part.rows
        epochs.append(rows)
    assert (epochs[0] == epochs[1]) == (shuffle == "none")
    assert (epochs[0] == sorted(epochs[0])) == (shuffle == "none")


def check_values(
    features: Any, label: Any, weight: Any, wanted: pa.Table, shards: tfstream.Shards
) -> None:
    """One batch against the source's values."""
    assert list(features) == [
        "id",
        "g",
        "f",
        "i",
        "i_missing",
        "u",
        "v",
        "b",
        "b_missing",
        "s",
        "seen",
        "seen_missing",
        "z",
    ]
    for name in ("id", "g", "u", "v"):
        assert features[name].numpy().tolist() == wanted[name].to_pylist()
    for name in ("f", "z"):
        values = wanted[name].to_numpy()
        np.testing.assert_array_equal(features[name].numpy(), values)
    for name in ("i", "b", "seen"):
        missing = wanted[name].is_null().to_numpy()
        column = wanted[name].cast(pa.int64()) if name == "seen" else wanted[name]
        plain = [value or 0 for value in column.to_pylist()]
        assert features[f"{name}_missing"].numpy().tolist() == missing.tolist()
        assert features[name].numpy().tolist() == plain
    vocabulary = shards.subset.catalog.vocabularies["s"].to_pylist()
    codes = [0 if s is None else FIRST_CODE + vocabulary.index(s) for s in wanted["s"].to_pylist()]
    assert features["s"].numpy().tolist() == codes
    y, d = wanted["y"].to_numpy(), wanted["d"].to_numpy()
    assert label.numpy().tolist() == (y > 0.25).astype(np.float32).tolist()
    np.testing.assert_array_equal(weight.numpy(), d.astype(np.float32))


def test_the_order_does_not_depend_on_parallelism_or_features(shards: tfstream.Shards) -> None:
    """The same ids in the same batches."""
    expected = planned(stream_of(shards), shards, 0)
    for parallelism in (1, 2):
        stream = stream_of(shards, options=options(parallelism=parallelism))
        assert ids_of(stream.dataset()) == expected
    assert ids_of(stream_of(shards, features=["v", "id"]).dataset()) == expected


def test_epochs_without_state(shards: tfstream.Shards) -> None:
    """`epochs=` gives these epochs each time, from a graph with neither variable nor queue."""
    stream = stream_of(shards)
    dataset = stream.dataset(epochs=range(1, 3))
    expected = planned(stream, shards, 1) + planned(stream, shards, 2)
    assert ids_of(dataset) == expected
    assert ids_of(dataset) == expected
    assert len(dataset) == 2 * stream.steps_per_epoch
    graph = str(dataset._dataset._as_serialized_graph().numpy())
    assert "VarHandle" not in graph
    assert "Queue" not in graph


def test_a_stateless_dataset_can_be_saved_and_go_on(
    shards: tfstream.Shards, tmp_path: Path
) -> None:
    """TensorFlow's own checkpoint of the iterator."""
    dataset = stream_of(shards).dataset(epochs=range(1))
    iterator = iter(dataset)
    for _ in range(7):
        next(iterator)
    path = tf.train.Checkpoint(iterator=iterator).save(str(tmp_path / "place"))
    other = iter(dataset)
    tf.train.Checkpoint(iterator=other).restore(path)
    assert next(other)[0]["id"].numpy().tolist() == ids_of(dataset)[7]


def test_the_remainder_may_be_dropped(shards: tfstream.Shards) -> None:
    """All batches are full, and TensorFlow knows it."""
    stream = stream_of(shards, options=options(remainder="drop"))
    dataset = stream.dataset()
    assert [len(ids) for ids in ids_of(dataset)] == [BATCH] * (ROWS // BATCH)
    assert dataset.element_spec[1].shape == (BATCH,)


def test_the_length_is_that_of_an_epoch(shards: tfstream.Shards) -> None:
    """Keras asks for it."""
    stream = stream_of(shards)
    assert len(stream.dataset()) == stream.steps_per_epoch == -(-ROWS // BATCH)


def test_packed_features_are_one_tensor(shards: tfstream.Shards) -> None:
    """float32 in the order asked for, NaN or a number for nulls, 0 for the code of null."""
    names = ["v", "f", "i", "s", "b", "d", "z"]
    stream = stream_of(
        shards, features=names, options=options(packed=True, nulls={"i": -1, "z": 2.5})
    )
    for step, (features, _) in enumerate(stream.dataset()):
        wanted = shards.take(stream.row_ids(0, step))
        columns = {n: wanted[n].cast(pa.int8()) if n == "b" else wanted[n] for n in names}
        vocabulary = shards.subset.catalog.vocabularies["s"].to_pylist()
        columns["s"] = pa.array(
            [0 if s is None else 2 + vocabulary.index(s) for s in wanted["s"].to_pylist()]
        )
        columns["i"], columns["z"] = columns["i"].fill_null(-1), columns["z"].fill_null(2.5)
        expected = np.stack(
            [
                np.array([np.nan if v is None else v for v in columns[n].to_pylist()], np.float32)
                for n in names
            ],
            axis=1,
        )
        np.testing.assert_array_equal(features.numpy(), expected)


def test_nulls_are_what_was_asked_for(shards: tfstream.Shards) -> None:
    """NaN makes a float of an integer, a number takes the place, a mask stands beside."""
    nulls = {"i": "nan", "seen": 7, "f": "mask", "b": 1, "s": "mask"}
    stream = stream_of(shards, features=["i", "seen", "f", "b", "s"], options=options(nulls=nulls))
    spec = stream.dataset().element_spec[0]
    assert list(spec) == ["i", "seen", "f", "f_missing", "b", "s", "s_missing"]
    assert spec["i"].dtype == tf.float32
    for step, (features, _) in enumerate(stream.dataset()):
        wanted = shards.take(stream.row_ids(0, step))
        np.testing.assert_array_equal(features["i"].numpy(), wanted["i"].to_numpy())
        assert features["seen"].numpy().tolist() == [
            7 if v is None else v for v in wanted["seen"].cast(pa.int64()).to_pylist()
        ]
        assert features["f"].numpy().tolist() == wanted["f"].fill_null(0).to_pylist()
        assert features["b"].numpy().tolist() == wanted["b"].fill_null(True).to_pylist()
        for name in ("f", "s"):
            assert (
                features[f"{name}_missing"].numpy().tolist() == wanted[name].is_null().to_pylist()
            )


LABELS = [
    "i > 2",
    "s = 'bee'",
    "s <> 'never seen'",
    "s in ('ant', 'cow') or d < 0",
    "not (f > 0 and b = true)",
    "seen > '1990-01-01'",
    "z is null",
    "d < y",
]


@pytest.mark.parametrize("label", LABELS)
def test_labels_are_what_arrow_makes_of_the_condition(shards: tfstream.Shards, label: str) -> None:
    """Rows where the condition is null are dropped; the others have its value."""
    stream = stream_of(shards, label=label, features=["id"], options=options(null_label="drop"))
    subset = shards.where(label).subset
    true = {int(i) for block in subset.blocks for i in subset.row_ids_in(int(block))}
    for step, (_, values) in enumerate(stream.dataset()):
        ids = stream.row_ids(0, step).tolist()
        assert values.numpy().tolist() == [float(i in true) for i in ids]


@pytest.mark.parametrize("name", ["i", "b", "s", "d", "u"])
def test_a_label_may_be_a_column(shards: tfstream.Shards, name: str) -> None:
    """As it is stored."""
    stream = stream_of(shards, label=name, options=options(null_label="drop"))
    assert name not in stream.features
    for step, (_, values) in enumerate(stream.dataset()):
        wanted = shards.take(stream.row_ids(0, step), [name])[name]
        if name == "s":
            assert wanted.null_count == 0
        else:
            assert values.numpy().tolist() == wanted.to_pylist()


def test_null_labels_are_counted(shards: tfstream.Shards) -> None:
    """An error with their number, unless they are dropped."""
    nulls = shards.where("z is null").rows
    with pytest.raises(DataError) as caught:
        stream_of(shards, label="z > 1")
    assert str(caught.value) == (
        f"the label 'z > 1' is null in {nulls} of {ROWS} rows; leave them out with "
        'StreamOptions(null_label="drop") or a condition'
    )
    dropped = stream_of(shards, label="z > 1", options=options(null_label="drop"))
    assert dropped.spec.rows == ROWS - nulls


def test_uncoded_text_is_text(tmp_path: Path) -> None:
    """More than 65,536 values: strings, each in its row, nulls empty."""
    rows = 70_000
    texts = [None if i % 50 == 3 else f"row {i} ü" for i in range(rows)]
    source = pa.table({"id": np.arange(rows), "g": np.arange(rows) % 3, "t": texts})
    part = converted(tmp_path, source, block_rows=512).where("id > 100")
    stream = part.stream(
        batch_size=1000, features=["id", "t"], options=tfstream.StreamOptions(nulls={"t": "mask"})
    )
    for step, features in enumerate(stream.dataset()):
        ids = features["id"].numpy()
        expected = [(texts[i] or "").encode() for i in ids]
        assert features["t"].numpy().tolist() == expected
        assert features["t_missing"].numpy().tolist() == [texts[i] is None for i in ids]
        assert len(ids) == len(stream.row_ids(0, step))
    with pytest.raises(UsageError, match="cannot be packed"):
        part.stream(batch_size=8, options=tfstream.StreamOptions(packed=True))


def test_keras_fits(shards: tfstream.Shards) -> None:
    """Three epochs, each another order, with and without steps_per_epoch."""
    stream = stream_of(shards, features=["id", "d"])
    inputs = {n: keras.Input((1,), name=n) for n in ("id", "d")}
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(inputs["d"]))
    model.compile("adam", "binary_crossentropy", metrics=["AUC"])
    history = model.fit(stream.dataset(), epochs=3, verbose=0, validation_data=stream.dataset())
    assert len(history.history["loss"]) == 3
    model.fit(stream.dataset(), epochs=2, steps_per_epoch=5, verbose=0)
    boolean = stream_of(shards, features=["id", "d"], label="b", options=options(null_label="drop"))
    model.fit(boolean.dataset(), verbose=0)


BAD = [
    ({"features": ["id", "no"]}, "there is no column 'no'; there are id, g, f, d"),
    ({"features": ["id", "id"]}, "features has 'id' twice; name each column once"),
    ({"features": []}, "there is no feature; name at least one column"),
    ({"features": "id"}, "features must be a list of columns, got the string 'id'"),
    ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ({"label": "nope > 1"}, "there is no column 'nope'; there are id, g"),
    ({"label": "month(seen) = 2"}, "month(seen) cannot be part of a label"),
    ({"weight": "s"}, "the weight 's' is string; give a column of numbers"),
    ({"label": None, "weight": "d"}, "there is the weight 'd' but no label; name a label"),
    (
        {"options": options(nulls={"i": 0.5})},
        "nulls for 'i' must be a whole number that fits int16",
    ),
    ({"options": options(nulls={"no": 1})}, "nulls has 'no', which is no feature"),
    (
        {"options": options(packed=True, nulls={"i": "mask"})},
        "nulls for 'i' is \"mask\", which packed features have no place for",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_a_wrong_call_says_what_is_wrong(
    shards: tfstream.Shards, arguments: dict[str, Any], message: str
) -> None:
    """UsageError, when the stream is made."""
    with pytest.raises(UsageError) as caught:
        stream_of(shards, **arguments)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shuffle": "yes"}, "shuffle must be one of ('global', 'shards', 'none'), got 'yes'"),
        ({"prefetch": 0}, "prefetch must be at least 1, got 0"),
        ({"shuffle": "none", "stretches": 4}, 'shuffle="none" keeps one order'),
    ],
)
def test_a_wrong_option_says_what_is_wrong(wrong: dict[str, Any], message: str) -> None:
    """UsageError, when the options are made."""
    with pytest.raises(UsageError) as caught:
        tfstream.StreamOptions(**wrong)
    assert str(caught.value).startswith(message)


def test_weights_that_are_missing_are_refused(shards: tfstream.Shards) -> None:
    """With their count."""
    with pytest.raises(DataError, match=r"^the weight 'z' is null in \d+ of 700 rows"):
        stream_of(shards, weight="z")


def test_a_truncated_or_missing_shard_is_refused_before_training(copied: tfstream.Shards) -> None:
    """By name, when the dataset is made."""
    path, stream = copied.subset.catalog.shard_path(0), stream_of(copied)
    data = path.read_bytes()
    path.write_bytes(data[:-5])
    with pytest.raises(CorruptionError) as caught:
        stream.dataset()
    assert str(caught.value) == (
        f"the shard {path} has {len(data) - 5} bytes, expected {len(data)}; "
        "restore it or convert again"
    )
    path.unlink()
    with pytest.raises(StorageError, match=str(path)):
        stream.dataset()


def spoil(shards: tfstream.Shards, how: str) -> Path:
    """Damage a shard in a way that its size does not tell."""
    catalog = shards.subset.catalog
    path = catalog.shard_path(0)
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 4
    elif how == "gone":
        path.unlink()
        return path
    elif how == "cut":
        data = data[: len(data) // 2]
    else:
        size = int(catalog.block_size[0])
        record = framing.unframe(bytes(data[:size]))
        start = block.layout(catalog.schema).header
        header = block.Header.decode(record[start : start + 20])
        other = {
            "row id": {"first_row": header.first_row + 1},
            "token": {"token": header.token ^ 1},
        }[how]
        values = {"first_row": header.first_row, "rows": header.rows, "token": header.token}
        changed = block.Header(**values | other).encode()
        data[:size] = framing.frame(record[:start] + changed + record[start + 20 :])
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("how", ["flipped", "cut", "gone", "row id", "token"])
@pytest.mark.parametrize("window_rows", [BATCH, ROWS])
def test_damage_under_way_ends_with_the_name_of_the_shard(
    shards: tfstream.Shards, copied: tfstream.Shards, how: str, window_rows: int
) -> None:
    """No wrong row leaves, whatever happens to a shard after the dataset was made."""
    stream = stream_of(copied, options=options(window_rows=window_rows))
    dataset = stream.dataset()
    path, seen = spoil(copied, how), []
    with pytest.raises(tf.errors.OpError) as caught:
        for features, *_ in dataset:
            seen.append(features["id"].numpy().tolist())
    assert str(path) in str(caught.value)
    told = "holds other rows" if how in {"row id", "token"} else "cannot be read"
    assert told in str(caught.value)
    assert seen == planned(stream, shards, 0)[: len(seen)]


def test_row_ids_need_no_tensorflow(shards: tfstream.Shards) -> None:
    """A stream is planned without loading TensorFlow or Keras."""
    code = (
        "import sys, tfstream\n"
        f"stream = tfstream.open({str(shards.subset.catalog.folder)!r})"
        ".stream(batch_size=24, label='y > 0.25', seed=9,"
        f" options=tfstream.StreamOptions(window_rows={5 * BATCH}))\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
        "print(*stream.row_ids(1, 3))\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [int(i) for i in done.stdout.split()] == stream_of(shards).row_ids(1, 3).tolist()


@pytest.mark.slow
def test_a_dataset_without_a_callback_runs_for_ever(shards: tfstream.Shards) -> None:
    """10^5 batches: nothing fills up."""
    stream = shards.stream(batch_size=1, features=["d"], label="y > 0")
    dataset, batches = stream.dataset(), 0
    while batches < 100_000:
        batches += int(dataset.reduce(np.int64(0), lambda n, _: n + 1))
    assert stream.control.pop() is None
