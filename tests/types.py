"""Tables of every type that is kept, with nulls, NaN and empty lists, drawn by hypothesis."""

from __future__ import annotations

import decimal
import uuid

import pyarrow as pa
from hypothesis import strategies as st

_INTS = {
    f"{'' if signed else 'u'}int{bits}": (
        -(2 ** (bits - 1)) if signed else 0,
        2 ** (bits - signed) - 1,
    )
    for signed in (True, False)
    for bits in (8, 16, 32, 64)
}


def _decimals(digits: int, scale: int) -> st.SearchStrategy[decimal.Decimal]:
    most = 10**digits - 1
    with decimal.localcontext(prec=digits):
        return st.integers(-most, most).map(
            lambda whole: decimal.Decimal(whole).scaleb(-scale, decimal.Context(prec=digits))
        )


def _lists(type_: pa.DataType, values: st.SearchStrategy) -> tuple[pa.DataType, st.SearchStrategy]:
    return pa.list_(type_), st.lists(st.none() | values, max_size=4)


def _tensors(
    type_: pa.DataType, values: st.SearchStrategy, size: int
) -> tuple[pa.DataType, st.SearchStrategy]:
    several = st.lists(st.none() | values, min_size=size, max_size=size)
    return pa.list_(type_, size), several


_MOMENTS = st.integers(-(2**40), 2**40)
_STRUCT = pa.struct([("a", pa.int16()), ("b", pa.struct([("c", pa.list_(pa.float32()))]))])

KINDS: dict[str, tuple[pa.DataType, st.SearchStrategy]] = (
    {name: (getattr(pa, name)(), st.integers(*bounds)) for name, bounds in _INTS.items()}
    | {
        f"float{bits}": (getattr(pa, f"float{bits}")(), st.floats(width=bits))
        for bits in (16, 32, 64)
    }
    | {
        f"ts_{unit}": (pa.timestamp(unit, zone), _MOMENTS)
        for unit, zone in (("s", None), ("ms", "UTC"), ("us", "Europe/Berlin"), ("ns", None))
    }
    | {f"duration_{unit}": (pa.duration(unit), _MOMENTS) for unit in ("s", "ms", "us", "ns")}
    | {
        "flag": (pa.bool_(), st.booleans()),
        "dec": (pa.decimal128(12, 3), _decimals(12, 3)),
        "dec_whole": (pa.decimal128(15, 0), _decimals(15, 0)),
        "dec_long": (pa.decimal128(38, 9), _decimals(38, 9)),
        "dec_longer": (pa.decimal256(60, 20), _decimals(60, 20)),
        "date32": (pa.date32(), st.integers(-20_000, 20_000)),
        "date64": (pa.date64(), st.integers(-900, 900).map(lambda day: day * 86_400_000)),
        "time32": (pa.time32("ms"), st.integers(0, 86_399_999)),
        "time64": (pa.time64("us"), st.integers(0, 86_399_999_999)),
        "text": (pa.string(), st.text(max_size=4)),
        "large_text": (pa.large_string(), st.text(max_size=4)),
        "blob": (pa.binary(), st.binary(max_size=4)),
        "large_blob": (pa.large_binary(), st.binary(max_size=4)),
        "fixed_blob": (pa.binary(3), st.binary(min_size=3, max_size=3)),
        "category": (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["x", "y"])),
        "uuid": (pa.uuid(), st.integers(0, 9).map(lambda i: uuid.UUID(int=i).bytes)),
        "nothing": (pa.null(), st.none()),
        "ints": _lists(pa.int64(), st.integers(-(2**63), 2**63 - 1)),
        "uints": _lists(pa.uint64(), st.integers(0, 2**64 - 1)),
        "halves": _lists(pa.float16(), st.floats(width=16)),
        "flags": _lists(pa.bool_(), st.booleans()),
        "moments": _lists(pa.timestamp("us", "UTC"), _MOMENTS),
        "decs": _lists(pa.decimal128(9, 2), _decimals(9, 2)),
        "long_decs": _lists(pa.decimal128(30, 2), _decimals(30, 2)),
        "texts": _lists(pa.string(), st.text(max_size=4)),
        "blobs": _lists(pa.binary(), st.binary(max_size=4)),
        "large_texts": (
            pa.large_list(pa.large_string()),
            st.lists(st.none() | st.text(max_size=4), max_size=3),
        ),
        "vector": _tensors(pa.float32(), st.floats(width=32), 3),
        "vector_of_one": _tensors(pa.uint8(), st.integers(0, 255), 1),
        "days": _tensors(pa.date32(), st.integers(-20_000, 20_000), 2),
        "dec_pair": _tensors(pa.decimal128(9, 2), _decimals(9, 2), 2),
        "matrix": (
            pa.list_(pa.list_(pa.int32(), 2), 3),
            st.lists(
                st.lists(st.none() | st.integers(-9, 9), min_size=2, max_size=2),
                min_size=3,
                max_size=3,
            ),
        ),
        "struct": (
            _STRUCT,
            st.fixed_dictionaries(
                {
                    "a": st.none() | st.integers(-9, 9),
                    "b": st.none()
                    | st.fixed_dictionaries(
                        {"c": st.none() | st.lists(st.floats(width=32), max_size=2)}
                    ),
                }
            ),
        ),
    }
)
"""Column names with a type each, and values of it, nulls inside lists among them."""


def may_be_null(type_: pa.DataType) -> bool:
    """Whether a null of this type can be read from Parquet: pyarrow 25 reads no null tensor."""
    return not pa.types.is_fixed_size_list(type_) or int(pa.__version__.split(".")[0]) > 25


def array(type_: pa.DataType, values: list) -> pa.Array:
    """Values of a type; of an extension type those of its storage."""
    if isinstance(type_, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(type_, pa.array(values, type_.storage_type))
    return pa.array(values, type_)


@st.composite
def tables(draw: st.DrawFn, max_rows: int = 30) -> pa.Table:
    """A few columns of any kinds, the column `g` to group by, and `id`, the place in the source."""
    rows = draw(st.integers(1, max_rows))
    names = draw(st.lists(st.sampled_from(sorted(KINDS)), unique=True, min_size=1, max_size=8))
    groups = draw(st.lists(st.integers(0, 2), min_size=rows, max_size=rows))
    columns = {"g": pa.array(groups, pa.int8()), "id": pa.array(range(rows), pa.int64())}
    for name in names:
        type_, values = KINDS[name]
        # A column without any null is stored without validity, so it is drawn on purpose.
        some = st.none() | values if may_be_null(type_) and draw(st.booleans()) else values
        columns[name] = array(type_, draw(st.lists(some, min_size=rows, max_size=rows)))
    return pa.table(columns)
