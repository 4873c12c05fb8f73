"""Whatever kind of file a table is written to, its rows come back, and so does each row's place."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import orc

from tfstream.conversion.convert import convert
from tfstream.conversion.options import ConvertOptions
from tfstream.format import provenance, reader
from tfstream.format.manifest import Catalog, open_catalog

texts = st.text(st.sampled_from('ab",\n\r ü'), min_size=1, max_size=6)


def _write_ipc(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


def _write_compressed(table: pa.Table, path: Path) -> None:
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(path, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=4)


def _write_json(table: pa.Table, path: Path) -> None:
    lines = [json.dumps(row, ensure_ascii=False) for row in table.to_pylist()]
    # Empty lines are no rows.
    path.write_text("".join(f"{line}\n\n" for line in lines), encoding="utf-8")


def _write_csv(table: pa.Table, path: Path) -> None:
    pyarrow.csv.write_csv(table, path)


WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {
    ".parquet": lambda table, path: pq.write_table(table, path, row_group_size=3),
    ".csv": _write_csv,
    ".jsonl": _write_json,
    ".arrow": _write_ipc,
    ".feather": _write_compressed,
    ".orc": lambda table, path: orc.write_table(table, path, stripe_size=64, batch_size=2),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """A few rows that every kind of file can hold without loss, with nulls."""
    rows = draw(st.integers(1, 30))

    def column(values: st.SearchStrategy[object], type_: pa.DataType) -> pa.Array:
        several = st.lists(st.none() | values, min_size=rows - 1, max_size=rows - 1)
        # The first value says the type, for files that do not.
        return pa.array([draw(values), *draw(several)], type_)

    return pa.table(
        {
            "g": pa.array(draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows))),
            "i": column(st.integers(-(2**63), 2**63 - 1), pa.int64()),
            "f": column(st.floats(-1e6, 1e6).map(lambda x: x + 0.5**40), pa.float64()),
            "b": column(st.booleans(), pa.bool_()),
            "s": column(texts.map(lambda text: f"_{text}"), pa.string()),
        }
    )


def split(table: pa.Table, suffix: str, cuts: Sequence[int], folder: Path) -> Path:
    """The table as files that are cut there, each with a first row that tells the types."""
    folder.mkdir()
    places = [0, *sorted(min(cut, table.num_rows) for cut in cuts), table.num_rows]
    for i, (start, stop) in enumerate(itertools.pairwise(places)):
        WRITERS[suffix](table.slice(start, stop - start), folder / f"{i}{suffix}")
    return folder


def in_source_order(catalog: Catalog) -> tuple[pa.Table, np.ndarray]:
    """The rows of a data set in the order of the sources, and where each of them lies there."""
    source, row = provenance.rows_of_sources(catalog, np.arange(catalog.rows))
    before = np.cumsum([0, *catalog.sources["rows"].to_pylist()])
    place = before[source] + row
    order = np.argsort(place)
    for ordinal, rows in enumerate(catalog.sources["rows"].to_pylist()):
        here = np.flatnonzero(source == ordinal)
        assert rows >= len(here)
        assert np.array_equal(provenance.row_ids_of(catalog, ordinal, row[here]), here)
    return reader.take(catalog, order), place[order]


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all files below a folder, but for the manifest, which knows where it lies."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.parent != folder
    }


@pytest.mark.parametrize("suffix", WRITERS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    table=tables(),
    cuts=st.lists(st.integers(1, 29), max_size=2),
    partition_bytes=st.integers(1, 900),
)
def test_rows_and_their_places_come_back(
    suffix: str, table: pa.Table, cuts: list[int], partition_bytes: int
) -> None:
    """However the files and partitions are cut; and all bytes are the same for one partition."""
    with tempfile.TemporaryDirectory() as name:
        source = split(table, suffix, cuts, Path(name) / "source")
        results = []
        for scheduler, size in (("synchronous", 1 << 26), ("threads", partition_bytes)):
            out = Path(name) / scheduler
            # Text says no types: 8192.0 is written as 8192.
            dtypes = {"f": "double"} if suffix == ".csv" else None
            options = ConvertOptions(
                block_rows=4, shard_bytes=300, partition_bytes=size, dtypes=dtypes
            )
            convert(source, out, group_by=["g"], options=options, scheduler=scheduler)
            catalog = open_catalog(out)
            found, places = in_source_order(catalog)
            assert np.array_equal(places, np.arange(table.num_rows))
            assert found.equals(table.combine_chunks())
            results.append((contents(out), catalog.digest))
        assert results[0] == results[1]


@pytest.mark.parametrize("suffix", WRITERS)
def test_processes_give_equal_bytes(tmp_path: Path, suffix: str) -> None:
    """What one process knows of a file, another one can read."""
    table = pa.table({"g": [i % 3 for i in range(20)], "s": [f"s{i}\n" for i in range(20)]})
    source = split(table, suffix, [7], tmp_path / "source")
    convert(source, tmp_path / "threads", group_by=["g"])
    options = ConvertOptions(partition_bytes=30)
    convert(source, tmp_path / "other", group_by=["g"], options=options, scheduler="processes")
    assert contents(tmp_path / "threads") == contents(tmp_path / "other")
