"""Blocks: canonical bytes that TensorFlow reads as an Example."""

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfstream.format import block, framing
from tfstream.format.schema import RECORD_ROW_BYTES, Column, Schema

SCHEMA = Schema(
    (
        Column(name="a", type="float"),
        Column(name="b", type="int64", nullable=True),
        Column(name="c", type="string"),
        Column(name="d", type="float", nullable=True),
        Column(name="e", type="binary"),
    )
)
TEXTS = st.lists(st.binary(max_size=300), min_size=1, max_size=20)


def encode(texts: list[bytes], seed: int) -> tuple[block.Header, dict[str, bytes], bytes]:
    """A block of random values with these texts, and what it was made of."""
    rng, rows = np.random.default_rng(seed), len(texts)
    header = block.Header(first_row=seed * 1000, rows=rows, token=2**64 - 1 - seed)
    fixed = {name: rng.bytes(width * rows) for name, width in SCHEMA.fixed_features}
    values = pa.array(texts, pa.binary())
    data = block.encode(
        header, list(fixed.items()), [(name, values) for name in SCHEMA.texts.values()]
    )
    return header, fixed, data


@given(TEXTS, st.integers(0, 9))
def test_decode_gives_back_what_encode_took(texts: list[bytes], seed: int) -> None:
    """A round trip loses nothing, whatever the lengths of the texts."""
    header, fixed, data = encode(texts, seed)
    features = block.decode(data)
    assert block.Header.decode(features.pop("header")[0]) == header
    assert {name: features.pop(name) for name in fixed} == {name: [v] for name, v in fixed.items()}
    assert features == dict.fromkeys(SCHEMA.texts.values(), texts)


@given(TEXTS, st.integers(0, 9))
def test_fixed_features_lie_where_the_layout_says(texts: list[bytes], seed: int) -> None:
    """A feature's place follows from the number of rows alone."""
    header, fixed, data = encode(texts, seed)
    where = block.layout(SCHEMA)
    assert data[where.header :].startswith(header.encode())
    for name, value in fixed.items():
        start = where.starts[name] + where.widths[name] * header.rows
        assert data[start : start + where.row_bytes[name] * header.rows] == value


WIDE = st.builds(
    lambda floats, doubles, nullable, texts: Schema(
        tuple(
            Column(name=f"{type_}{i}", type=type_, nullable=nullable and type_ != "string")
            for type_, count in (("float", floats), ("double", doubles), ("string", texts))
            for i in range(count)
        )
    ),
    st.integers(1, 300),
    st.integers(0, 100),
    st.booleans(),
    st.integers(0, 2),
)


def block_of(schema: Schema, rows: int) -> tuple[block.Header, dict[str, bytes], list[bytes]]:
    """A block of random values and the same texts, as the frames of its records."""
    rng = np.random.default_rng(rows)
    header = block.Header(first_row=7, rows=rows, token=2**64 - 1)
    fixed = {name: rng.bytes(width * rows) for name, width in schema.fixed_features}
    texts = dict.fromkeys(
        schema.texts.values(), block.Listed(pa.array([b"text"] * rows)).between(0, rows)
    )
    data = block.joined(block.framed(schema, header, fixed, texts))
    return header, fixed, [framing.frame(record) for record in framing.frames(data)]


@settings(max_examples=60)
@given(WIDE, st.integers(1, 20), st.data())
def test_consecutive_records_of_wide_rows_come_back(
    schema: Schema, rows: int, data: st.DataObject
) -> None:
    """Their places follow from the number of rows, and any of them hold their features alone."""
    header, fixed, frames = block_of(schema, rows)
    where, whole = block.layout(schema), b"".join(frames)
    places = [begin + width * rows for begin, width in where.records] + [len(whole)]
    assert places[:-1] == [len(b"".join(frames[:i])) for i in range(len(frames))]
    low = data.draw(st.integers(0, len(frames) - 1))
    high = data.draw(st.integers(low + 1, len(frames)))
    part = whole[places[low] : places[high]]
    own, features = block.unframed(schema, part, range(low, high))
    names = [name for record in schema.records[low:high] for name, _ in record]
    assert own == header
    assert {name: features[name] for name in names} == {name: [fixed[name]] for name in names}
    has_texts = high == len(frames) and schema.texts
    assert set(features) - set(names) == (set(schema.texts.values()) if has_texts else set())


@given(WIDE)
def test_every_record_is_wide_enough(schema: Schema) -> None:
    """All features are there once, in order, and none of several records is a small rest."""
    assert [f for record in schema.records for f in record] == list(schema.fixed_features)
    widths = [sum(width for _, width in record) for record in schema.records]
    assert len(widths) == 1 or min(widths) >= RECORD_ROW_BYTES


def test_records_in_each_others_place_are_refused() -> None:
    """Packs of one dtype have equal names' lengths and widths; the header tells the record."""
    schema = Schema(tuple(Column(name=f"x{i}", type="float") for i in range(192)))
    _, _, frames = block_of(schema, 3)
    swapped = [frames[1], frames[0], frames[2]]
    with pytest.raises(ValueError, match="record 1 has the header"):
        block.unframed(schema, b"".join(swapped))
    with pytest.raises(ValueError, match="expected 3 records, found 2"):
        block.unframed(schema, b"".join(frames[:2]))


@settings(max_examples=30)
@given(TEXTS, st.integers(0, 9))
def test_tensorflow_reads_a_block_as_an_example(texts: list[bytes], seed: int) -> None:
    """Padded lengths are accepted by the parser of protobuf and by the one of tf.io."""
    header, fixed, data = encode(texts, seed)
    example = tf.train.Example.FromString(data)
    names = ["header", *fixed, *SCHEMA.texts.values()]
    assert sorted(example.features.feature) == sorted(names) == names
    parsed = tf.io.parse_single_example(
        data,
        {name: tf.io.FixedLenFeature([], tf.string) for name in ["header", *fixed]}
        | {name: tf.io.RaggedFeature(tf.string) for name in SCHEMA.texts.values()},
    )
    assert parsed["header"].numpy() == header.encode()
    assert {name: parsed[name].numpy() for name in fixed} == fixed
    for name in SCHEMA.texts.values():
        assert parsed[name].numpy().tolist() == texts


@given(st.binary(max_size=200))
def test_bytes_that_are_no_block_are_refused(data: bytes) -> None:
    """Whatever the bytes are, the answer is a ValueError, no other exception and no long loop."""
    with pytest.raises(ValueError, match=r"\w"):
        block.decode(data)


@given(TEXTS, st.data())
def test_a_changed_block_never_crashes_the_parser(texts: list[bytes], data: st.DataObject) -> None:
    """A mutated block either parses or is refused with a ValueError."""
    mutated = bytearray(encode(texts, 0)[2])
    mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    try:
        features = block.decode(bytes(mutated))
    except ValueError:
        return
    assert "header" in features


def test_a_header_of_another_length_is_refused() -> None:
    """The header has 20 bytes."""
    with pytest.raises(ValueError, match="^a header has 20 bytes, found 3$"):
        block.Header.decode(b"abc")


def test_the_mask_has_the_first_column_in_the_lowest_bit() -> None:
    """Nine columns take two bytes a row."""
    valid = np.array([[True, *[False] * 7, True], [*[False] * 8, True]])
    assert block.pack_mask(valid).tolist() == [[1, 1], [0, 1]]


def test_a_framed_block_is_a_tfrecord(tmp_path) -> None:  # noqa: ANN001 - a pytest fixture
    """TensorFlow reads the frame, CRCs included."""
    data = encode([b"x", b"y"], 1)[2]
    path = tmp_path / "x.tfrecord"
    path.write_bytes(framing.frame(data) * 2)
    assert [r.numpy() for r in tf.data.TFRecordDataset(str(path))] == [data, data]
