"""One type for the values of two: no value is changed by it."""

from __future__ import annotations

import itertools

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfstream.conversion.promotion import promoted

INTEGERS = {
    type_: (-(2 ** (type_.bit_width - 1)), 2 ** (type_.bit_width - 1) - 1)
    for type_ in (pa.int8(), pa.int16(), pa.int32(), pa.int64())
} | {
    type_: (0, 2**type_.bit_width - 1)
    for type_ in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
}
TYPES = (
    *INTEGERS,
    pa.float16(),
    pa.float32(),
    pa.float64(),
    pa.string(),
    pa.bool_(),
    pa.timestamp("s"),
    pa.timestamp("ns", "UTC"),
    pa.date32(),
    pa.time32("ms"),
    pa.decimal128(10, 2),
    pa.list_(pa.int8()),
    pa.struct([("a", pa.int8())]),
)


@pytest.mark.parametrize(
    ("left", "right", "both"),
    [
        (pa.null(), pa.string(), pa.string()),
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.uint8(), pa.int8(), pa.int16()),
        (pa.uint32(), pa.int8(), pa.int64()),
        (pa.uint8(), pa.int64(), pa.int64()),
        (pa.uint64(), pa.int64(), None),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.float16(), pa.int8(), pa.float16()),
        (pa.float32(), pa.int32(), pa.float64()),
        (pa.float64(), pa.int64(), None),
        (pa.timestamp("s"), pa.timestamp("us"), pa.timestamp("us")),
        (pa.timestamp("s", "UTC"), pa.timestamp("s"), None),
        (pa.timestamp("s", "UTC"), pa.timestamp("s", "Europe/Paris"), None),
        (pa.duration("ms"), pa.duration("ns"), pa.duration("ns")),
        (pa.time32("s"), pa.time64("us"), pa.time64("us")),
        (pa.decimal128(5, 2), pa.decimal128(5, 4), pa.decimal128(7, 4)),
        (pa.decimal128(38, 0), pa.decimal128(38, 38), pa.decimal256(76, 38)),
        (pa.decimal256(76, 0), pa.decimal256(76, 76), None),
        (pa.string(), pa.int64(), None),
        (pa.date32(), pa.timestamp("s"), None),
        (pa.list_(pa.int8()), pa.list_(pa.int16()), pa.list_(pa.int16())),
        (pa.list_(pa.int8()), pa.list_(pa.string()), None),
        (
            pa.struct([("a", pa.int8())]),
            pa.struct([("b", pa.string()), ("a", pa.int16())]),
            pa.struct([("a", pa.int16()), ("b", pa.string())]),
        ),
        (pa.struct([("a", pa.int8())]), pa.struct([("a", pa.string())]), None),
    ],
)
def test_types_of_two_files(
    left: pa.DataType, right: pa.DataType, both: pa.DataType | None
) -> None:
    """The narrowest one that holds the values of both, if there is one."""
    assert promoted(left, right) == both


@pytest.mark.parametrize(("left", "right"), list(itertools.product(TYPES, repeat=2)))
def test_the_order_of_two_files_does_not_matter(left: pa.DataType, right: pa.DataType) -> None:
    """Nor does a type change by itself."""
    assert promoted(left, right) == promoted(right, left)
    assert promoted(left, left) == left


@given(
    left=st.sampled_from(list(INTEGERS)),
    right=st.sampled_from([*INTEGERS, pa.float16(), pa.float32(), pa.float64()]),
    share=st.fractions(0, 1),
)
def test_no_integer_is_changed(left: pa.DataType, right: pa.DataType, share: float) -> None:
    """Each integer of a type is the same in the type that both have."""
    both = promoted(left, right)
    low, high = INTEGERS[left]
    for value in (low, high, int(low + share * (high - low))):
        if both is not None:
            assert int(pa.scalar(value, left).cast(both).as_py()) == value
