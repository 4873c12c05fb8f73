"""The types under which columns are kept, and those that are refused by name."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from tfstream.conversion.types import kept_schema, kept_table
from tfstream.errors import DataError
from tfstream.format.schema import Column, arrow_type
from tfstream.format.values import stored_numbers, stored_tensors

TAGS = pa.list_(pa.list_(pa.int8()))
PEOPLE = pa.list_(pa.struct([("name", pa.string())]))
WORDS = pa.list_(pa.string(), 2)
REFUSED = {
    pa.map_(pa.string(), pa.int8()): "make a list of its keys and a list of its values",
    pa.dense_union([pa.field("a", pa.int8())]): "make a column of each of its types",
    pa.sparse_union([pa.field("a", pa.int8())]): "make a column of each of its types",
    pa.month_day_nano_interval(): (
        "make it a duration, or a number of months, of days and of nanoseconds"
    ),
    TAGS: "make a list of numbers or strings out of it",
    pa.list_(pa.list_(pa.int8(), 2)): "make a list of numbers or strings out of it",
    pa.list_(pa.list_(pa.int8()), 2): "make a list of numbers or strings out of it",
    PEOPLE: "make a list of each of its fields",
    pa.list_(pa.null()): "cast it to a list of numbers or strings",
    WORDS: "cast it to a list of numbers or strings",
    pa.list_(pa.decimal128(30, 1), 2): "cast it to a list of numbers or strings",
    pa.list_(pa.int8(), 0): "cast it to a list of numbers or strings",
    pa.run_end_encoded(pa.int32(), pa.int8()): "cast it to a list, a number or a string",
}
"""What a message tells to do about each type that is refused."""


@pytest.mark.parametrize("type_", REFUSED, ids=str)
def test_a_type_that_cannot_be_kept_is_refused_by_name(type_: pa.DataType) -> None:
    """The message names source, column and type, and says what to do."""
    with pytest.raises(DataError) as error:
        kept_schema(pa.schema([("a", pa.int8()), ("b", type_)]), "x.parquet")
    assert str(error.value) == (
        f"x.parquet: column 'b' has the type {type_}, which cannot be kept; leave it out of the "
        f"source, or {REFUSED[type_]}"
    )


def test_a_refused_field_of_a_struct_has_its_dotted_name() -> None:
    """However deep it lies."""
    type_ = pa.struct([("a", pa.struct([("tags", TAGS)]))])
    with pytest.raises(DataError, match="^x: column 's.a.tags' has the type list<"):
        kept_schema(pa.schema([("s", type_)]), "x")


def test_two_columns_of_one_name_are_refused() -> None:
    """A column may have the name that a field of a struct gets."""
    schema = pa.schema([("s", pa.struct([("a", pa.int8())])), ("s.a", pa.int8())])
    with pytest.raises(DataError) as error:
        kept_schema(schema, "x")
    assert str(error.value) == "x has more than one column 's.a'; rename all but one"
    with pytest.raises(DataError, match="^x has no columns$"):
        kept_schema(pa.schema([]), "x")


def kept(values: pa.Array) -> pa.Table:
    """A column `s`, kept."""
    table = pa.table({"s": values})
    return kept_table(table, kept_schema(table.schema, "x"))


def test_a_null_struct_is_not_a_struct_of_nulls() -> None:
    """The bool column of the struct's name tells them apart, at every depth."""
    inner = pa.struct([("b", pa.int8())])
    values = [None, {"a": None}, {"a": {"b": None}}, {"a": {"b": 1}}]
    assert kept(pa.array(values, pa.struct([("a", inner)]))).to_pydict() == {
        "s": [False, True, True, True],
        "s.a": [False, False, True, True],
        "s.a.b": [None, None, None, 1],
    }


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        (pa.array(["a", None], pa.large_string()), pa.string()),
        (pa.array(["a", None]).dictionary_encode(), pa.string()),
        (pa.array([b"a", None], pa.large_binary()), pa.binary()),
        (pa.array([["a", None], None], pa.large_list(pa.large_string())), pa.list_(pa.string())),
        (
            pa.array([["a"], None], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
            pa.list_(pa.string()),
        ),
        (pa.DictionaryArray.from_arrays([0, None], pa.array([7])), pa.int64()),
    ],
    ids=lambda value: str(getattr(value, "type", value)),
)
def test_large_and_encoded_types_are_kept_as_plain_ones(
    values: pa.Array, type_: pa.DataType
) -> None:
    """With the same values."""
    column = kept(values)["s"]
    assert column.type == type_
    assert column.to_pylist() == values.to_pylist()


@pytest.mark.skipif(not hasattr(pa, "string_view"), reason="this pyarrow has no views")
def test_views_and_narrow_decimals_are_kept_as_plain_types() -> None:
    """Types that newer releases of pyarrow have."""
    assert kept(pa.array(["a", None], pa.string_view()))["s"].type == pa.string()
    assert kept(pa.array([b"a", None], pa.binary_view()))["s"].type == pa.binary()
    narrow = kept(pa.array([Decimal("1.5"), None], pa.decimal32(5, 1)))["s"]
    assert narrow.type == pa.decimal128(5, 1)
    assert narrow.to_pylist() == [Decimal("1.5"), None]


@pytest.mark.parametrize("in_struct", [False, True])
def test_extensions_are_kept_by_their_storage(in_struct: bool) -> None:
    """Also one whose storage is a list, and inside a struct."""
    storage = pa.array([[1, 2, 3, 4], None], pa.list_(pa.float32(), 4))
    tensors = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), (2, 2)), storage)
    values = pa.StructArray.from_arrays([tensors], ["t"]) if in_struct else tensors
    assert kept(values)["s.t" if in_struct else "s"].combine_chunks().equals(storage)


def test_a_null_in_place_of_an_inner_list_is_refused() -> None:
    """Rows and items of a tensor may be null, what lies between may not."""
    type_ = pa.list_(pa.list_(pa.int8(), 2), 2)
    assert kept(pa.array([None, [[1, None], [2, 3]]], type_)).num_rows == 2
    with pytest.raises(DataError) as error:
        kept(pa.array([[[1, 2], None]], type_))
    assert str(error.value) == (
        f"column 's' has a null in place of a list inside a {type_}; make it a list of nulls, or "
        "the whole value null"
    )


def test_a_column_that_is_not_there_is_named() -> None:
    """The schema has one that the table lacks."""
    with pytest.raises(DataError, match="^there is no column 'b'$"):
        kept_table(pa.table({"a": [1]}), pa.schema([("b", pa.int8())]))


def test_slices_are_stored_from_where_they_begin() -> None:
    """Numbers, decimals and tensors whose arrays begin inside their buffers."""
    decimals = pa.array([Decimal("1.5"), Decimal("-2.5"), None], pa.decimal128(5, 1))
    assert stored_numbers(decimals[1:], np.dtype("<i8")).tolist() == [-25, 0]
    type_ = pa.list_(pa.list_(pa.int16(), 2), 2)
    tensors = pa.array([[[9, 9], [9, 9]], [[1, None], [3, 4]], None], type_)
    column = Column(name="t", type=str(type_))
    numbers, items = stored_tensors(tensors[1:], column, np.dtype("<i2"))
    assert numbers.tolist() == [[1, 0, 3, 4], [0, 0, 0, 0]]
    assert items is not None
    assert items.tolist() == [[1, 0, 1, 1], [0, 0, 0, 0]]


@pytest.mark.parametrize("text", ["complex", "list<item: complex>", "decimal128(3)", "list<x>"])
def test_a_text_that_is_no_kept_type_is_refused(text: str) -> None:
    """As a manifest by another hand may have it."""
    with pytest.raises(DataError, match="is not a column type of this format$"):
        arrow_type(text)
