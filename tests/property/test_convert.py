"""Any table comes back whole from a conversion, and the bytes do not depend on how it was done."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfstream.conversion.convert import convert
from tfstream.conversion.options import ConvertOptions
from tfstream.format import provenance, reader
from tfstream.format.manifest import Catalog, open_catalog

TYPES = {
    "i8": (pa.int8(), st.integers(-128, 127)),
    "i64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "i32": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "u64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "f32": (pa.float32(), st.floats(width=32, allow_nan=False)),
    "f64": (pa.float64(), st.floats(allow_nan=False)),
    "flag": (pa.bool_(), st.booleans()),
    "text": (pa.string(), st.text(max_size=4)),
    "blob": (pa.binary(), st.binary(max_size=4)),
    "ts": (pa.timestamp("us", "UTC"), st.integers(0, 2**50)),
    "day": (pa.date32(), st.integers(0, 20_000)),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """A few rows of some columns of every type, with nulls, and a group column."""
    rows = draw(st.integers(1, 40))
    names = draw(st.lists(st.sampled_from(sorted(TYPES)), unique=True))
    columns = {
        "g": pa.array(
            draw(st.lists(st.none() | st.integers(0, 3), min_size=rows, max_size=rows)), pa.int16()
        )
    }
    for name in names:
        type_, values = TYPES[name]
        several = st.lists(st.none() | values, min_size=rows, max_size=rows)
        columns[name] = pa.array(draw(several), type_)
    return pa.table(columns)


def written(table: pa.Table, folder: Path) -> Path:
    """The table as two Parquet files of small row groups."""
    source = folder / "source"
    source.mkdir()
    half = table.num_rows // 2
    pq.write_table(table.slice(0, half), source / "a.parquet", row_group_size=5)
    pq.write_table(table.slice(half), source / "b.parquet", row_group_size=7)
    return source


def rows_back(catalog: Catalog, table: pa.Table) -> None:
    """Each row of the source is one row of the data set, with its values, by its provenance."""
    ids = np.arange(catalog.rows)
    source, row = provenance.rows_of_sources(catalog, ids)
    place = row + source * (table.num_rows // 2)
    assert sorted(place) == list(range(table.num_rows))
    found = reader.take(catalog, ids)
    assert found.equals(table.take(pa.array(place)).combine_chunks())
    for ordinal, rows in enumerate(catalog.sources["rows"].to_pylist()):
        back = provenance.row_ids_of(catalog, ordinal, np.arange(rows))
        assert (source[back] == ordinal).all()
        assert (row[back] == np.arange(rows)).all()
    assert catalog.block_rows.sum() == table.num_rows
    assert (np.cumsum(catalog.block_rows) - catalog.block_rows == catalog.block_first).all()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(table=tables(), block_rows=st.integers(1, 20), shard_bytes=st.integers(1, 2000))
def test_every_row_is_in_exactly_one_block(
    table: pa.Table, block_rows: int, shard_bytes: int
) -> None:
    """With its values, nulls included, in the order (group, source, row)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = ConvertOptions(
            block_rows=block_rows, shard_bytes=shard_bytes, partition_bytes=100
        )
        convert(
            written(table, folder),
            folder / "out",
            group_by=["g"],
            options=options,
            scheduler="synchronous",
        )
        catalog = open_catalog(folder / "out")
        rows_back(catalog, table)
        groups = catalog.groups
        assert groups["g"].to_pylist() == sorted(
            set(table["g"].to_pylist()), key=lambda value: (value is None, value)
        )
        for group in groups.to_pylist():
            ids = np.arange(group["first_row"], group["first_row"] + group["rows"])
            source, row = provenance.rows_of_sources(catalog, ids)
            assert (np.diff(source * table.num_rows + row) > 0).all()
            assert set(reader.take(catalog, ids, ["g"])["g"].to_pylist()) == {group["g"]}
            first, stop = group["first_shard"], group["first_shard"] + group["shards"]
            shards = catalog.shards.slice(first, stop - first)
            assert shards["first_row"][0].as_py() <= ids[0]
            assert shards["first_row"][-1].as_py() + shards["rows"][-1].as_py() > ids[-1]


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all files below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(table=tables(), partition_bytes=st.integers(1, 3000))
def test_partitions_and_threads_leave_no_trace(table: pa.Table, partition_bytes: int) -> None:
    """Another partition size and another scheduler give equal bytes and an equal digest."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = written(table, folder)
        results = []
        for scheduler, size in (("synchronous", 1 << 26), ("threads", partition_bytes)):
            out = folder / scheduler
            options = ConvertOptions(block_rows=8, shard_bytes=500, partition_bytes=size)
            convert(source, out, group_by=["g"], options=options, scheduler=scheduler)
            catalog = open_catalog(out)
            # As text: the squares of an infinite column are NaN, which equals nothing.
            counted = [repr(t.to_pylist()) for t in (catalog.statistics, catalog.vocabulary_counts)]
            results.append((contents(out / "shards"), catalog.digest, *counted))
        assert results[0] == results[1]


@pytest.mark.parametrize("scheduler", ["processes", "client"])
def test_other_schedulers_give_equal_bytes(tmp_path: Path, scheduler: str) -> None:
    """Processes and a cluster write what threads write."""
    rng = np.random.default_rng(0)
    table = pa.table({"g": rng.integers(0, 9, 200), "s": [f"s{i % 50}" for i in range(200)]})
    source = written(table, tmp_path)
    convert(source, tmp_path / "threads", group_by=["g"])
    options = ConvertOptions(partition_bytes=500)
    if scheduler == "client":
        distributed = pytest.importorskip("distributed")
        with distributed.Client(
            processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None
        ) as client:
            convert(source, tmp_path / "other", group_by=["g"], options=options, scheduler=client)
    else:
        convert(source, tmp_path / "other", group_by=["g"], options=options, scheduler=scheduler)
    assert contents(tmp_path / "other" / "shards") == contents(tmp_path / "threads" / "shards")
    assert open_catalog(tmp_path / "other").digest == open_catalog(tmp_path / "threads").digest
