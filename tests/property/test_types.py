"""Every kept type comes back exactly: from source to shards to tables, and to batches."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tfstream
from tests.types import KINDS, array, may_be_null, tables
from tfstream.conversion.types import kept_schema, kept_table
from tfstream.format.schema import DECIMAL_DIGITS, FIRST_CODE, Column, arrow_type

BLOCKS = (1, 7, 8, 9, 512)
EVERY = pa.schema([(name, type_) for name, (type_, _) in KINDS.items()])


def same(found: pa.Table, wanted: pa.Table) -> None:
    """Equal types, nulls and values; NaN equals NaN, and -0.0 only -0.0."""
    assert found.schema == wanted.schema
    found.validate(full=True)
    for name in wanted.column_names:
        if pa.types.is_floating(Column(name=name, type=str(wanted[name].type)).item):
            assert repr(found[name].to_pylist()) == repr(wanted[name].to_pylist()), name
        else:
            assert found[name].equals(wanted[name]), name


def converted(table: pa.Table, folder: Path, block_rows: int) -> tuple[tfstream.Shards, pa.Table]:
    """The data set of a table, and the table's rows as kept, in the order of their `id`."""
    pq.write_table(table, folder / "x.parquet", row_group_size=11)
    options = tfstream.ConvertOptions(block_rows=block_rows, partition_bytes=500)
    shards = tfstream.convert(
        folder / "x.parquet",
        folder / "out",
        group_by=["g"],
        options=options,
        scheduler="synchronous",
    )
    read = pq.read_table(folder / "x.parquet")
    return shards, kept_table(read, kept_schema(read.schema, "x")).combine_chunks()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(table=tables(), block_rows=st.sampled_from(BLOCKS))
def test_take_gives_back_the_table(table: pa.Table, block_rows: int) -> None:
    """Types included, whatever the columns and the length of a block."""
    with tempfile.TemporaryDirectory() as name:
        shards, kept = converted(table, Path(name), block_rows)
        ids = np.arange(table.num_rows)
        same(shards.take(ids), kept.take(shards.take(ids, ["id"])["id"]).combine_chunks())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(table=tables(), partition_bytes=st.integers(1, 3000), group_rows=st.integers(1, 30))
def test_how_the_source_is_cut_leaves_no_trace(
    table: pa.Table, partition_bytes: int, group_rows: int
) -> None:
    """Nulls inside lists in one partition and none in another give the same bytes."""
    with tempfile.TemporaryDirectory() as name:
        written = []
        for size in (partition_bytes, 1 << 26):
            out = Path(name) / str(size)
            pq.write_table(table, Path(name) / "x.parquet", row_group_size=group_rows)
            options = tfstream.ConvertOptions(block_rows=8, partition_bytes=size)
            source = Path(name) / "x.parquet"
            tfstream.convert(source, out, group_by=["g"], options=options, scheduler="synchronous")
            written.append({p.name: p.read_bytes() for p in out.glob("shards/*/*")})
        assert written[0] == written[1]


def plain(values: pa.ChunkedArray, column: Column, vocabulary: pa.Array | None) -> list:
    """Values as the model gets them, None where one is missing."""
    if vocabulary is not None:
        codes = {value: FIRST_CODE + i for i, value in enumerate(vocabulary.to_pylist())}
        return [codes.get(value, 0) for value in values.to_pylist()]
    item = column.item
    if pa.types.is_decimal(item):
        made = float if item.precision <= DECIMAL_DIGITS else lambda value: str(value).encode()
        return _mapped(values.to_pylist(), made)
    if pa.types.is_temporal(item):
        values = values.cast(
            _with_item(values.type, pa.int32() if item.bit_width == 32 else pa.int64())
        )
    made = str.encode if pa.types.is_string(item) else lambda value: value
    return _mapped(values.to_pylist(), made)


def _with_item(type_: pa.DataType, item: pa.DataType) -> pa.DataType:
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(_with_item(type_.value_type, item), type_.list_size)
    return pa.list_(item) if pa.types.is_list(type_) else item


def _mapped(values: Any, made: Any) -> Any:
    if isinstance(values, list):
        return [_mapped(value, made) for value in values]
    return None if values is None else made(values)


def delivered(batch: dict[str, Any], name: str) -> list:
    """A feature of a batch as lists, None where the masks or NaN say that a value is missing."""
    values = _lists(batch[name])
    for mask in (f"{name}_item_missing", f"{name}_missing"):
        if mask in batch:
            values = _masked(values, _lists(batch[mask]))
    return values


def _lists(tensor: Any) -> list:
    return tensor.to_list() if isinstance(tensor, tf.RaggedTensor) else tensor.numpy().tolist()


def _masked(values: Any, missing: Any) -> Any:
    if isinstance(missing, list):
        return [_masked(v, m) for v, m in zip(values, missing, strict=True)]
    assert not missing or values in (0, b"", [])
    return None if missing else values


def _nan_for_none(value: Any, shape: tuple[int, ...]) -> Any:
    """A float value as it is delivered: NaN for a missing one, however deep it lies."""
    if value is None and shape:
        return [_nan_for_none(None, shape[1:])] * shape[0]
    if isinstance(value, list):
        return [_nan_for_none(item, shape[1:]) for item in value]
    return float("nan") if value is None else value


def check_feature(batch: dict[str, Any], column: Column, wanted: list) -> None:
    """A feature against the values of its rows."""
    found = delivered(batch, column.name)
    is_float = isinstance(_first(found), float)
    if is_float and not column.is_list:
        wanted = [_nan_for_none(value, column.shape) for value in wanted]
    elif is_float:
        wanted = [value and [_nan_for_none(item, ()) for item in value] for value in wanted]
    elif column.shape and f"{column.name}_missing" in batch:
        wanted = [_nones(column.shape) if value is None else value for value in wanted]
    elif column.is_text and not column.coded:
        wanted = [b"" if value is None else value for value in wanted]
    assert repr(found) == repr(wanted), column.name


def _nones(shape: tuple[int, ...]) -> Any:
    return [_nones(shape[1:])] * shape[0] if shape else None


def _first(values: Any) -> Any:
    """Some value that is neither None nor a list; None if there is none."""
    if not isinstance(values, list):
        return values
    return next((v for v in map(_first, values) if v is not None), None)


def check_stream(table: pa.Table, block_rows: int, batch_size: int) -> None:
    """An epoch of shuffled batches against the table, row by row."""
    with tempfile.TemporaryDirectory() as name:
        shards, _ = converted(table, Path(name), block_rows)
        catalog = shards.subset.catalog
        stream = shards.stream(
            batch_size=batch_size,
            seed=3,
            options=tfstream.StreamOptions(window_rows=2 * batch_size, parallelism=1),
        )
        assert set(stream.features) == {c.name for c in shards.schema.columns if not c.is_null}
        seen = []
        for step, batch in enumerate(stream.dataset()):
            ids = stream.row_ids(0, step)
            rows = shards.take(ids)
            for feature in stream.features:
                column = shards.schema[feature]
                vocabulary = catalog.vocabularies.get(feature)
                check_feature(batch, column, plain(rows[feature], column, vocabulary))
            seen += ids.tolist()
        assert sorted(seen) == list(range(table.num_rows))


@pytest.mark.parametrize("block_rows", BLOCKS)
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_batches_have_the_values_of_the_rows(block_rows: int, data: st.DataObject) -> None:
    """In the dict form, shuffled over several windows."""
    table = data.draw(tables())
    check_stream(table, block_rows, data.draw(st.sampled_from([1, 4, 16])))


@settings(max_examples=1, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_batches_have_the_values_of_every_type_at_once(data: st.DataObject) -> None:
    """A data set that has a column of each kind."""
    rows = 21
    columns = {}
    for name, (type_, values) in KINDS.items():
        some = st.none() | values if may_be_null(type_) else values
        columns[name] = array(type_, data.draw(st.lists(some, min_size=rows, max_size=rows)))
    table = pa.table({"g": [i % 2 for i in range(rows)], "id": range(rows)} | columns)
    check_stream(table, 8, 4)


def test_the_text_of_a_kept_type_is_parsed_back() -> None:
    """As the manifest keeps it, for every unit."""
    others = [
        *(pa.time32("s"), pa.time64("ns"), pa.timestamp("s", "+05:30"), pa.decimal128(3, -1)),
        pa.list_(pa.list_(pa.list_(pa.timestamp("s", "UTC"), 1), 2), 3),
    ]
    for type_ in [*kept_schema(EVERY, "x").types, *others]:
        assert arrow_type(str(type_)) == type_
