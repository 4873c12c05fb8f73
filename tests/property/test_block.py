"""Blocks: canonical bytes that TensorFlow reads as an Example."""

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfstream.format import block, framing
from tfstream.format.schema import Column, Schema

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
