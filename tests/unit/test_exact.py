"""No number is changed in silence."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tfstream
from tfstream.conversion import exact
from tfstream.errors import DataError

BEYOND = 2**53 + 1


@given(st.lists(st.floats(width=64) | st.none()), st.sampled_from([pa.float32(), pa.float16()]))
def test_a_cast_gives_infinity_for_infinity_alone(
    values: list[float | None], type_: pa.DataType
) -> None:
    """Any other value that would become one is refused."""
    largest = float(np.finfo(type_.to_pandas_dtype()).max)
    array = pa.array(values, pa.float64())
    fits = all(v is None or not abs(v) > largest or np.isinf(v) for v in values)
    for wrapped in (array, pa.ListArray.from_arrays(pa.array([0, len(array)], pa.int32()), array)):
        wanted = type_ if wrapped is array else pa.list_(type_)
        if fits:
            found = exact.cast(wrapped, wanted)
            assert repr(found.to_pylist()) == repr(wrapped.cast(wanted).to_pylist())
            continue
        try:
            found = exact.cast(wrapped, wanted)
        except pa.ArrowInvalid as error:
            assert str(error).endswith(f" is too large for {type_}")  # noqa: PT017 - see below
        else:
            # Just above the largest: it is rounded down.
            flat = found if wrapped is array else found.flatten()
            assert all(
                v is None or not np.isinf(v) or np.isinf(before)
                for v, before in zip(flat.to_pylist(), values, strict=True)
            )


@pytest.mark.parametrize(
    ("values", "type_", "text"),
    [
        ([1.0, -1e39], "float32", "-1e+39 is too large for float"),
        (["1", "1e39"], "float32", "1e39 is too large for float"),
        ([[1e39]], "list<item: float>", "1e+39 is too large for float"),
        ([1.0, float("inf")], "float32", None),
        (["1", "-inf"], "float32", None),
    ],
)
def test_a_value_too_large_for_a_type_that_is_asked_for(
    tmp_path: Path, values: list[object], type_: str, text: str | None
) -> None:
    """It is refused with file, row and column; infinity itself is none."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"g": [0] * len(values), "x": values}), path)
    options = tfstream.ConvertOptions(dtypes={"x": type_})
    if text is None:
        shards = tfstream.convert(path, tmp_path / "out", group_by=["g"], options=options)
        assert shards.take([1])["x"].to_pylist() == [float(values[-1])]
        return
    with pytest.raises(DataError) as caught:
        tfstream.convert(path, tmp_path / "out", group_by=["g"], options=options)
    assert str(caught.value).startswith(
        f"{path}: row {len(values) - 1} cannot be read: column 'x': {text}; mend the source"
    )
    assert not (tmp_path / "out").exists()


def lines(suffix: str, values: list[str]) -> str:
    """A file of text with these numbers in a column `n` and, of JSON, inside `s.n` and `l`."""
    if suffix == ".csv":
        return "g,n\n" + "".join(f"1,{value}\n" for value in values)
    return "".join(f'{{"g":1,"n":{v},"s":{{"n":{v}}},"l":[{v}]}}\n' for v in values)


@pytest.mark.parametrize("partition_bytes", [1 << 20, 8])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_whole_numbers_among_fractions_are_exact_or_refused(
    tmp_path: Path, suffix: str, partition_bytes: int
) -> None:
    """However the file was cut; a type that is asked for may round."""
    path = tmp_path / f"x{suffix}"
    values = ["0.5", "2", str(BEYOND - 1), f"{BEYOND}", "3"]
    path.write_text(lines(suffix, values))
    options = tfstream.ConvertOptions(partition_bytes=partition_bytes)
    with pytest.raises(DataError) as caught:
        tfstream.convert(path, tmp_path / "out", group_by=["g"], options=options)
    assert f"{path}: row 3 at byte " in str(caught.value)
    assert (
        f"cannot be read: column 'n': {BEYOND} is a whole number that double, found for the "
        "column, would round; choose a type by dtypes=;" in str(caught.value)
    )
    assert not (tmp_path / "out").exists()
    wish = tfstream.ConvertOptions(
        partition_bytes=partition_bytes, columns=["g", "n"], dtypes={"n": "float64"}
    )
    shards = tfstream.convert(path, tmp_path / "rounded", group_by=["g"], options=wish)
    assert shards.take(range(5))["n"].to_pylist() == [float(v) for v in values]
    wish = tfstream.ConvertOptions(columns=["g", "n"], dtypes={"n": "decimal128(20, 1)"})
    shards = tfstream.convert(path, tmp_path / "kept", group_by=["g"], options=wish)
    assert shards.take(range(5))["n"].to_pylist() == [Decimal(v) for v in values]
    wish = tfstream.ConvertOptions(on_bad_rows="quarantine", partition_bytes=partition_bytes)
    shards = tfstream.convert(path, tmp_path / "left", group_by=["g"], options=wish)
    assert shards.take(range(4))["n"].to_pylist() == [0.5, 2.0, float(BEYOND - 1), 3.0]


@pytest.mark.parametrize("inside", ['{"s":{"n":VALUE}}', '{"l":[VALUE]}', '{"l":[{"n":[VALUE]}]}'])
@given(whole=st.integers(-(10**25), 10**25) | st.integers(2**53 - 5, 2**54))
def test_numbers_inside_lists_and_structs_of_json_are_held_too(inside: str, whole: int) -> None:
    """A whole number passes where float64 holds it, and not elsewhere."""
    value = json.loads(inside.replace("VALUE", str(whole)))
    types = {
        "s": pa.struct([("n", pa.float64())]),
        "l": pa.list_(pa.struct([("n", pa.list_(pa.float64()))]))
        if "{" in inside[1:]
        else pa.list_(pa.float64()),
    }
    ((name, held),) = value.items()
    if int(float(whole)) == whole:
        exact.check_json(name, held, types[name], may_round=False)
    else:
        with pytest.raises(pa.ArrowInvalid, match="is a whole number that double"):
            exact.check_json(name, held, types[name], may_round=False)
    exact.check_json(name, held, types[name], may_round=True)


def test_a_fraction_beyond_the_largest_float_of_csv_is_refused(tmp_path: Path) -> None:
    """And what says infinity is infinity."""
    path = tmp_path / "x.csv"
    path.write_text("g,n\n1,0.5\n1,inf\n")
    shards = tfstream.convert(path, tmp_path / "inf", group_by=["g"])
    assert shards.take([1])["n"].to_pylist() == [float("inf")]
    path.write_text("g,n\n1,0.5\n1,1e400\n")
    with pytest.raises(DataError, match="row 1 at byte 10 .*: column 'n': 1e400 is too large for"):
        tfstream.convert(path, tmp_path / "out", group_by=["g"])
