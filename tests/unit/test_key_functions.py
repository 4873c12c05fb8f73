"""Values that rows are grouped by: the fixed hash, and buckets."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfstream.errors import UsageError
from tfstream.format import expressions, key_functions
from tfstream.format.hashing import hashes

WORDS = 2**64


def splitmix(state: int) -> int:
    """The published algorithm, on Python's numbers."""
    z = (state + 0x9E3779B97F4A7C15) % WORDS
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORDS
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORDS
    return z ^ (z >> 31)


def of_text(text: str) -> int:
    """The hash of a string, word by word."""
    data = text.encode()
    words = [int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8)]
    return splitmix(
        (sum(splitmix(w ^ splitmix(i)) for i, w in enumerate(words)) + len(data)) % WORDS
    )


GOLDEN = {
    "int64": (pa.array([0, 1, -1, 2**53 + 1]), [
        0xE220A8397B1DCDAF, 0x910A2DEC89025CC1, 0xE4D971771B652C20, 0x055CE0BFD3337037,
    ]),
    "string": (pa.array(["", "a", "abcdefgh", "abcdefghi", "ü"]), [
        0xE220A8397B1DCDAF, 0x008DBFB7F6A331DE, 0xAD829E2666105EEF, 0x00D6B1B429C82919,
        0x148F79A765BA4C24,
    ]),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_hashes_never_change(name: str) -> None:
    """Another value would move rows to other groups: these may change with a new format only."""
    values, expected = GOLDEN[name]
    assert hashes(values).tolist() == expected


@given(st.lists(st.text(max_size=40)), st.integers(0, 5))
def test_the_hash_of_a_string_is_that_of_its_words(texts: list[str], start: int) -> None:
    """Whatever stands before and behind it in the array, sliced or not, as bytes or as text."""
    values = pa.array(texts, pa.string())
    assert hashes(values).tolist() == [of_text(text) for text in texts]
    assert hashes(values.slice(start)).tolist() == [of_text(text) for text in texts[start:]]
    assert (hashes(values.cast(pa.binary())) == hashes(values)).all()


@given(st.lists(st.integers(-128, 127)))
def test_the_width_of_a_number_does_not_matter(numbers: list[int]) -> None:
    """The same value in any type that holds it has the same hash."""
    expected = [splitmix(number % WORDS) for number in numbers]
    for type_ in (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.duration("ms")):
        assert hashes(pa.array(numbers, type_)).tolist() == expected
    floats = np.array(numbers, np.float64)
    for type_ in (pa.float16(), pa.float32(), pa.float64()):
        found = hashes(pa.array(floats.astype(type_.to_pandas_dtype()), type_))
        assert found.tolist() == [splitmix(int(x)) for x in (floats + 0.0).view(np.uint64)]


def test_equal_values_have_equal_hashes() -> None:
    """-0.0 is 0.0, and a NaN is a NaN whatever its bits."""
    nans = np.array([0x7FF8000000000000, 0xFFF8000000000001], np.uint64).view(np.float64)
    found = hashes(pa.array(np.array([0.0, -0.0, *nans])))
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert hashes(pa.array([False, True])).tolist() == hashes(pa.array([0, 1])).tolist()


def test_a_type_without_a_hash_is_refused() -> None:
    """By its name."""
    with pytest.raises(UsageError, match=r"^a value of type list<\w+: int64> has no hash$"):
        hashes(pa.array([[1]]))


def value(text: str, array: pa.Array) -> list[object]:
    """An expression over a table of one column x."""
    return expressions.evaluate(expressions.parse(text), pa.table({"x": array})).to_pylist()


def test_a_hash_key_is_the_hash_modulo_n() -> None:
    """From 0 to n - 1, null for null."""
    numbers = pa.array([0, 1, -1, None])
    expected = [h % 10 for h in hashes(numbers).tolist()[:3]]
    assert value("hash(x, 10)", numbers) == [*expected, None]
    assert value("hash(x, 1)", numbers) == [0, 0, 0, None]


@pytest.mark.parametrize(
    ("text", "array", "expected"),
    [
        ("bucket(x, 10)", pa.array([-11, -10, -1, 0, 9, 10, None]), [-2, -1, -1, 0, 0, 1, None]),
        ("bucket(x, 3)", pa.array([2**63 - 1]), [(2**63 - 1) // 3]),
        ("bucket(x, 1)", pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
        ("bucket(x, 0.5)", pa.array([-0.1, 0.0, 0.74, None]), [-1.0, 0.0, 1.0, None]),
        ("bucket(x, 10)", pa.array([np.inf, -5.0]), [np.inf, -1.0]),
    ],
)
def test_a_bucket_is_the_floor_of_the_quotient(
    text: str, array: pa.Array, expected: list[object]
) -> None:
    """Exact for whole numbers of every size."""
    found = value(text, array)
    assert found == expected
    assert [type(x) for x in found] == [type(x) for x in expected]


def test_nan_stays_apart_from_null_in_a_bucket() -> None:
    """A group of its own each."""
    found = expressions.evaluate(
        expressions.parse("bucket(x, 2)"), pa.table({"x": pa.array([float("nan"), None])})
    )
    assert found.null_count == 1
    assert np.isnan(found[0].as_py())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hash(x, 0)", "'hash(x, 0)': hash needs a whole number from 1 to 2^63 - 1"),
        ("hash(x, 2.5)", "'hash(x, 2.5)': hash needs a whole number from 1 to 2^63 - 1"),
        ("bucket(x, -1)", "'bucket(x, -1)': bucket needs a width above 0 and below 2^63"),
        ("bucket(x, 'a')", "\"bucket(x, 'a')\": bucket needs a width above 0 and below 2^63"),
        ("bucket(x, 0.5)", "bucket(x, 0.5) needs a whole width, since 'x' is int64"),
    ],
)
def test_arguments_without_sense_are_refused(text: str, message: str) -> None:
    """The message says what is wanted."""
    with pytest.raises(UsageError) as caught:
        value(text, pa.array([1]))
    assert str(caught.value) == message


def test_a_bucket_of_times_is_refused() -> None:
    """A width without a unit would be a guess."""
    with pytest.raises(UsageError) as caught:
        value("bucket(x, 10)", pa.array([1], pa.timestamp("s")))
    assert str(caught.value) == (
        "bucket(x, 10) needs a number, but 'x' is timestamp[s]; "
        "a time has year, month, day, hour, date and weekday"
    )


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("hash(id, 64)", expressions.Key("hash", key_functions.Hash("id", 64))),
        ("bucket(price, 10)", expressions.Key("bucket", key_functions.Bucket("price", 10))),
        ("bucket(price, 0.5) as p", expressions.Key("p", key_functions.Bucket("price", 0.5))),
    ],
)
def test_a_key_function_gives_the_key_its_name(text: str, key: expressions.Key) -> None:
    """As `month(ts)` makes a key `month`."""
    assert expressions.parse_key(text) == key


def test_a_condition_on_what_made_a_key_becomes_one_on_the_key() -> None:
    """So that whole groups are decided; other functions of the column stay."""
    keys = [expressions.parse_key("hash(id, 64) as h"), expressions.parse_key("month(ts)")]
    tree = expressions.parse("hash(id, 64) < 3 and not (month(ts) in (1, 2) or hash(id, 8) = 1)")
    expected = expressions.parse("h < 3 and not (month in (1, 2) or hash(id, 8) = 1)")
    assert expressions.with_keys(tree, keys) == expected
