"""Lists, tensors, decimals and structs in streams, models, conditions and labels."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

import tfstream
from tests.streams import converted
from tests.types import may_be_null
from tfstream import cli
from tfstream.errors import UsageError
from tfstream.lineage.labels import label_bits

ROWS = 90
WHOLE = ["i", "vec", "flags", "dec", "part.x"]
"""Columns that can be packed."""


def table() -> pa.Table:
    """Nested columns, all but `vec2` with nulls."""
    rng = np.random.default_rng(3)

    def some(values: list, type_: pa.DataType) -> pa.Array:
        lost = rng.random(ROWS) < 0.1 * may_be_null(type_)
        return pa.array([None if gone else v for v, gone in zip(values, lost, strict=True)], type_)

    lengths = rng.integers(0, 5, ROWS)
    vectors = rng.normal(size=(ROWS, 3)).astype(np.float32).tolist()
    vectors[4][1] = None
    return pa.table(
        {
            "g": rng.integers(0, 3, ROWS),
            "i": some(range(ROWS), pa.int64()),
            "vec": some(vectors, pa.list_(pa.float32(), 3)),
            "vec2": pa.array(rng.normal(size=(ROWS, 2)).tolist(), pa.list_(pa.float64(), 2)),
            "flags": some(
                [[[True, None], [False, True]]] * ROWS, pa.list_(pa.list_(pa.bool_(), 2), 2)
            ),
            "dec": some(
                [Decimal(int(n)).scaleb(-2) for n in rng.integers(-9999, 9999, ROWS)],
                pa.decimal128(9, 2),
            ),
            "long": some([Decimal(n) for n in range(ROWS)], pa.decimal128(30, 1)),
            "ints": some([list(range(n)) for n in lengths], pa.list_(pa.int64())),
            "words": some([["ä" * k for k in range(n)] for n in lengths], pa.list_(pa.string())),
            "part": some(
                [{"x": float(n), "y": "abc"[n % 3]} for n in range(ROWS)],
                pa.struct([("x", pa.float32()), ("y", pa.string())]),
            ),
            "nothing": pa.nulls(ROWS),
        }
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tfstream.Shards:
    """Three groups in blocks of 16 rows at most."""
    return converted(tmp_path_factory.mktemp("lists"), table())


def test_plain_tensorflow_reads_the_lists_of_a_block(shards: tfstream.Shards) -> None:
    """Lengths lie in a pack, items in a feature: one run of bytes, or a string an item."""
    folder = shards.subset.catalog.folder
    columns = json.loads((folder / "manifest.json").read_text())["schema"]
    listed = [c for c in columns if c["type"].startswith("list<") or c["name"] == "long"]
    assert [column["name"] for column in listed] == ["long", "ints", "words"]
    files = sorted(map(str, folder.glob("shards/*/*.tfrecord")))
    texts = {f"text/{i:04d}": tf.io.RaggedFeature(tf.string) for i in range(len(listed))}
    packs = {f"pack/{i:04d}": tf.io.FixedLenFeature([], tf.string) for i in range(8)}
    record = next(iter(tf.data.TFRecordDataset(files)))
    pack = next(p for p in shards.schema.packs if "ints" in p.columns)
    found = tf.io.parse_single_example(record, texts | {pack.name: packs[pack.name]})
    lengths = tf.reshape(tf.io.decode_raw(found[pack.name], tf.int32), [-1, len(pack.columns)])
    rows = shards.take(range(lengths.shape[0]))
    ints = tf.io.decode_raw(found["text/0001"], tf.int64)[0]
    for name, items in (("ints", ints), ("words", found["text/0002"])):
        ragged = tf.RaggedTensor.from_row_lengths(items, lengths[:, pack.columns.index(name)])
        wanted = [value or [] for value in rows[name].to_pylist()]
        plain = [[v.encode() if name == "words" else v for v in value] for value in wanted]
        assert ragged.to_list() == plain


def test_batches_have_the_shapes_that_keras_needs(shards: tfstream.Shards) -> None:
    """Known but for the rows, and for the items of a list."""
    spec = shards.stream(batch_size=16).dataset().element_spec
    assert spec["vec"].shape.as_list() == [None, 3]
    assert spec["flags"].shape.as_list() == [None, 2, 2]
    assert spec["flags_missing"].shape.as_list() == [None, 2, 2]
    assert spec["ints"] == tf.RaggedTensorSpec([None, None], tf.int64, 1, tf.int64)
    assert spec["words"].dtype == tf.string
    assert spec["dec"].dtype == tf.float64
    assert "nothing" not in spec
    stream = shards.stream(
        batch_size=16, features=WHOLE, options=tfstream.StreamOptions(packed=True)
    )
    assert stream.dataset().element_spec.shape.as_list() == [None, 10]


def test_packed_tensors_and_decimals_are_the_dict_s(shards: tfstream.Shards) -> None:
    """A slot each, side by side, NaN where one is missing or a number in its place."""
    features = [*WHOLE[:3], "vec2", *WHOLE[3:]]
    nulls = {"flags": 1, "i": "nan", "part.x": "nan"}
    for policies in ({"flags": "nan"}, {"vec": 7, "dec": 7}):
        options = {"nulls": nulls | policies}
        batches = [
            next(
                iter(
                    shards.stream(
                        batch_size=ROWS,
                        features=features,
                        options=tfstream.StreamOptions(packed=packed, **options),
                    ).dataset()
                )
            )
            for packed in (True, False)
        ]
        parts = [tf.reshape(tf.cast(batches[1][name], tf.float32), [ROWS, -1]) for name in features]
        np.testing.assert_array_equal(batches[0].numpy(), tf.concat(parts, 1).numpy())
        assert np.isnan(batches[0].numpy()).any()


def test_a_model_takes_tensors_and_decimals(shards: tfstream.Shards) -> None:
    """In both forms, by its inputs alone, without a NaN in what it learns."""
    for packed in (True, False):
        stream = shards.stream(
            batch_size=30,
            features=WHOLE,
            label="vec is null",
            options=tfstream.StreamOptions(packed=packed),
        )
        inputs, encoded = stream.keras_inputs()
        model = keras.Model(inputs, keras.layers.Dense(1)(encoded))
        features, _ = next(iter(stream.dataset()))
        assert not np.isnan(model(features).numpy()).any()


def test_conditions_and_labels_use_fields_and_decimals(shards: tfstream.Shards) -> None:
    """A field by its dotted name, a null list by `is null`, a decimal by its value."""
    rows = table()
    structs = [value or {} for value in rows["part"].to_pylist()]
    assert shards.where("part.y = 'a'").rows == sum(s.get("y") == "a" for s in structs)
    assert shards.where("part").rows == rows["part"].length() - rows["part"].null_count
    assert shards.where("ints is null").rows == rows["ints"].null_count
    for label, dtype in (("dec", np.uint64), ("dec > 1.25", np.uint32)):
        stream = shards.where("dec is not null").stream(batch_size=10, features=["i"], label=label)
        bits = np.concatenate([y.numpy().view(dtype) for _, y in stream.dataset()])
        ids = np.concatenate([stream.row_ids(0, s) for s in range(stream.steps_per_epoch)])
        wanted = label_bits(stream.subset, stream.subset.blocks, label)
        kept = np.concatenate([stream.subset.row_ids_in(int(b)) for b in stream.subset.blocks])
        assert dict(zip(ids, bits, strict=True)) == dict(zip(kept, wanted, strict=True))
    assert shards.where("dec > 1.25").rows == sum(
        value is not None and value > Decimal("1.25") for value in rows["dec"].to_pylist()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"features": ["ints"], "options": tfstream.StreamOptions(packed=True)},
            (
                "'ints' is a list of any length, which cannot be packed; leave it out or set "
                "packed=False"
            ),
        ),
        (
            {"features": ["ints"], "options": tfstream.StreamOptions(nulls={"ints": 0})},
            "nulls for the list 'ints' can only be \"mask\", got 0",
        ),
        ({"features": ["nothing"]}, "'nothing' has no value in any row; leave it out"),
        (
            {"label": "vec"},
            "the label 'vec' is a fixed_size_list<item: float>[3]; give one value a row",
        ),
        ({"label": "ints"}, "the label 'ints' is a list<item: int64>; give one value a row"),
        ({"label": "nothing is null"}, "the label's column 'nothing' has no value in any row"),
        (
            {"label": "long > 3"},
            (
                "a label cannot compare 'long', a decimal128(30, 1) that is stored as text; make "
                "it a column of the source"
            ),
        ),
        (
            {"label": "i", "weight": "long"},
            "the weight 'long' is decimal128(30, 1); give a column of numbers",
        ),
    ],
)
def test_what_cannot_be_streamed_is_refused(
    shards: tfstream.Shards, arguments: dict, message: str
) -> None:
    """With the column and what to do."""
    with pytest.raises(UsageError) as error:
        shards.stream(batch_size=8, **arguments)
    assert str(error.value) == message


def test_the_command_line_shows_and_verifies_nested_columns(
    shards: tfstream.Shards, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every column has a line; a data set as it was written has no finding."""
    folder = str(shards.subset.catalog.folder)
    assert cli.main(["inspect", folder]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n{name} " in shown for name in shards.schema.names)
    assert cli.main(["verify", folder]) == 0


@pytest.mark.parametrize("condition", [None, "i > 20", "g = 1"])
def test_statistics_of_nested_columns(shards: tfstream.Shards, condition: str | None) -> None:
    """Of lists those of their lengths, of decimals those of their values, of tensors the counts."""
    part = shards if condition is None else shards.where(condition)
    blocks = part.subset.blocks
    ids = np.concatenate([part.subset.row_ids_in(block) for block in blocks])
    rows, found = part.take(ids), part.statistics
    for name in ("words", "ints"):
        lengths = [len(value) for value in rows[name].to_pylist() if value is not None]
        assert (found[name].min, found[name].max) == (min(lengths), max(lengths))
        assert found[name].mean == pytest.approx(np.mean(lengths))
        assert found[name].distinct == len(set(lengths))
        assert found[name].nulls == rows[name].null_count
    numbers = [value for value in rows["dec"].to_pylist() if value is not None]
    assert (found["dec"].min, found["dec"].max) == (min(numbers), max(numbers))
    assert found["dec"].mean == pytest.approx(float(np.mean(numbers)))
    assert found["dec"].variance == pytest.approx(np.var(np.array(numbers, float)))
    assert (found["long"].min, found["long"].max) == (None, None)
    nulls = rows["vec"].null_count
    assert (found["vec"].valid, found["vec"].nulls) == (part.rows - nulls, nulls)
    assert (found["vec"].min, found["vec"].mean, found["vec"].distinct) == (None, None, None)
    nothing = found["nothing"]
    assert (nothing.nulls, nothing.valid, nothing.distinct) == (part.rows, 0, 0)


@pytest.mark.parametrize("key", ["dec", "long", "part", "part.y", "nothing"])
def test_groups_by_the_new_types(tmp_path: Path, key: str) -> None:
    """A data set that opens again, with a group for each value and one for null."""
    made = converted(tmp_path, table().append_column("x", pa.array(range(ROWS))), 16)
    again = tfstream.convert(tmp_path / "source.parquet", tmp_path / "again", group_by=[key])
    counts = made.take(range(ROWS), [key])[key].value_counts()
    assert again.groups.num_rows == len(counts)
    assert tfstream.open(tmp_path / "again").rows == ROWS


def test_groups_of_bytes(tmp_path: Path) -> None:
    """Bytes that are no text are keys too."""
    values = pa.array([b"\xff\x00", None, b"\xfe\x00", b"\xff\x00"], pa.binary(2))
    source = pa.table({"g": values, "i": range(4)})
    made = converted(tmp_path, source)
    assert made.groups["g"].to_pylist() == [b"\xfe\x00", b"\xff\x00", None]
    assert tfstream.open(tmp_path / "shards").digest == made.digest


@pytest.mark.parametrize("name", ["vec", "ints"])
def test_lists_are_no_keys(tmp_path: Path, name: str) -> None:
    """The message names the column."""
    converted(tmp_path, table())
    with pytest.raises(UsageError, match=f"^cannot group by '{name}' of type "):
        tfstream.convert(tmp_path / "source.parquet", tmp_path / "again", group_by=[name])
    assert not (tmp_path / "again").exists()
