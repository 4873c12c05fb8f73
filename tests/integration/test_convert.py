"""Conversions from end to end: CSV, derived keys, strings, and whatever is refused."""

from __future__ import annotations

import datetime as dt
import re
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfstream.conversion.convert import convert
from tfstream.conversion.options import ConvertOptions
from tfstream.errors import DataError, ResumeError, StorageError, TfstreamError, UsageError
from tfstream.format import provenance, reader
from tfstream.format.manifest import Catalog, open_catalog
from tfstream.format.schema import VOCABULARY_SIZE

TABLE = pa.table(
    {
        "id": pa.array(range(100), pa.int32()),
        "ts": pa.array(
            [1_700_000_000_000 + 25_200_000 * i for i in range(100)], pa.timestamp("ms")
        ),
        "s": pa.array([None if i % 5 == 0 else "ab"[i % 2] * (i % 3) for i in range(100)]),
    }
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A Parquet file."""
    path = tmp_path / "x.parquet"
    pq.write_table(TABLE, path, row_group_size=30)
    return path


def converted(source: Path | list[Path], out: Path, group_by: list[str], **options: int) -> Catalog:
    """A data set."""
    convert(source, out, group_by=group_by, options=ConvertOptions(**options))
    return open_catalog(out)


def whole(catalog: Catalog) -> pa.Table:
    """All rows, in the order of the sources."""
    table = reader.take(catalog, np.arange(catalog.rows))
    source, row = provenance.rows_of_sources(catalog, np.arange(catalog.rows))
    return table.take(pa.array(np.lexsort((row, source)))).combine_chunks()


def test_keys_of_a_timestamp_in_a_zone(source: Path, tmp_path: Path) -> None:
    """The groups are the local days, and are no columns of the data set."""
    catalog = converted(source, tmp_path / "out", ["date(ts, 'Asia/Tokyo')", "s"])
    tokyo = dt.timedelta(hours=9)
    days = {(value + tokyo).date() for value in TABLE["ts"].to_pylist()}
    assert set(catalog.groups["date"].to_pylist()) == days
    assert catalog.manifest.keys == ("date", "s")
    assert catalog.schema.names == ("id", "ts", "s")
    assert whole(catalog).equals(TABLE.combine_chunks())


def test_strings_are_codes_up_to_a_limit(tmp_path: Path) -> None:
    """A vocabulary is sorted and complete; with one value more the column is text."""
    rows = VOCABULARY_SIZE + 2
    names = [f"v{i:05d}" for i in range(rows)]
    table = pa.table(
        {
            "g": np.arange(rows) % 3,
            "few": pa.array([None, *names[1:-1], names[1]]),
            "many": pa.array(names),
            "bytes": pa.array(["x"] * rows).cast(pa.binary()),
        }
    )
    path = tmp_path / "x.parquet"
    pq.write_table(table, path, row_group_size=20_000)
    catalog = converted(path, tmp_path / "out", ["g"], partition_bytes=1 << 18, block_rows=4096)
    assert {column.name: column.coded for column in catalog.schema.columns} == {
        "g": False,
        "few": True,
        "many": False,
        "bytes": False,
    }
    assert catalog.vocabularies["few"].to_pylist() == names[1:-1]
    assert whole(catalog).equals(table)


def test_csv_types_hold_for_all_partitions(tmp_path: Path) -> None:
    """Types are found over all files; quoted line ends, nulls and empty strings survive."""
    folder = tmp_path / "csv"
    folder.mkdir()
    (folder / "a.csv").write_bytes(b'g,n,s,w\r\n1,1,"x\r\ny",\r\n2,,"",\r\n1,3,,\r\n')
    (folder / "b.csv").write_bytes(b"g,n,s,w\n1,2.5,z,true\n")
    for size in (1, 1 << 20):
        catalog = converted(folder, tmp_path / f"out-{size}", ["g"], partition_bytes=size)
        assert whole(catalog).to_pylist() == [
            {"g": 1, "n": 1.0, "s": "x\r\ny", "w": None},
            {"g": 2, "n": None, "s": "", "w": None},
            {"g": 1, "n": 3.0, "s": None, "w": None},
            {"g": 1, "n": 2.5, "s": "z", "w": True},
        ]
        assert catalog.sources["rows"].to_pylist() == [3, 1]
        assert catalog.sources["path"].to_pylist() == ["a.csv", "b.csv"]


def test_dictionaries_and_large_strings_are_kept_as_strings(tmp_path: Path) -> None:
    """What the source calls them does not matter."""
    plain = pa.array(["b", None, "a", "b"])
    table = pa.table(
        {"g": [1, 1, 2, 2], "d": plain.dictionary_encode(), "l": plain.cast(pa.large_string())}
    )
    path = tmp_path / "x.parquet"
    pq.write_table(table, path)
    catalog = converted(path, tmp_path / "out", ["g"])
    assert whole(catalog).to_pylist() == table.to_pylist()


@pytest.mark.parametrize("names", [["s"], ["s", "t"]])
def test_rows_of_codes_alone_convert(tmp_path: Path, names: list[str]) -> None:
    """Where a file has no column but short texts, which are read as codes."""
    table = pa.table({name: ["b", "a", None] * 50 for name in names})
    pq.write_table(table, tmp_path / "x.parquet")
    catalog = converted(tmp_path / "x.parquet", tmp_path / "out", ["s"])
    assert sorted(map(str, whole(catalog).to_pylist())) == sorted(map(str, table.to_pylist()))


def test_codes_of_a_parquet_file_stay_codes(tmp_path: Path) -> None:
    """A vocabulary has the values of the rows, whatever else a file's dictionaries have."""
    texts = ["b", "a", None, "c", "b", "a"] * 200
    plain, coded = tmp_path / "plain" / "x.parquet", tmp_path / "coded" / "x.parquet"
    found = []
    for path, values in [
        (plain, pa.chunked_array([pa.array(texts)])),
        (
            coded,
            pa.chunked_array(
                pa.DictionaryArray.from_arrays(
                    [None if t is None else words.index(t) for t in texts[start:stop]], words
                )
                for start, stop, words in [(0, 300, list("zabcy")), (300, 1_200, list("ycba"))]
            ),
        ),
    ]:
        path.parent.mkdir()
        table = pa.table({"s": values, "t": values, "n": range(1_200)})
        pq.write_table(table, path, row_group_size=500, store_schema=False)
        for size in (100, 1 << 20):
            out = tmp_path / f"{path.parent.name}-{size}"
            options = ConvertOptions(partition_bytes=size, dtypes={"t": "string"})
            convert(path, out, group_by=["s"], options=options)
            catalog = open_catalog(out)
            vocabularies = {n: v.to_pylist() for n, v in catalog.vocabularies.items()}
            found.append((vocabularies, whole(catalog), catalog.shards["rows"].to_pylist()))
    assert found[0][0] == {"s": ["a", "b", "c"], "t": ["a", "b", "c"]}
    assert found[0][1]["s"].to_pylist() == texts
    assert found == [found[0]] * 4


def test_nothing_unfinished_is_left(source: Path, tmp_path: Path) -> None:
    """Neither in the output nor in another folder for the run files."""
    temp = tmp_path / "temp"
    convert(source, tmp_path / "out", group_by=["id"], options=ConvertOptions(temp=str(temp)))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "index",
        "manifest.json",
        "provenance",
        "shards",
    ]
    assert list(temp.iterdir()) == []


def test_an_unfinished_conversion_is_begun_anew(source: Path, tmp_path: Path) -> None:
    """What a killed conversion left is no data set and in nobody's way."""
    out = tmp_path / "out"
    (out / ".tmp" / "runs").mkdir(parents=True)
    (out / "shards").mkdir()
    (out / "shards" / "old").touch()
    catalog = converted(source, out, ["s"])
    assert whole(catalog).equals(TABLE.combine_chunks())
    assert not (out / "shards" / "old").exists()
    assert not (out / ".tmp").exists()


def refused(source: Path | list[Path], out: Path, group_by: list[str]) -> TfstreamError:
    """The error of a conversion that leaves no output."""
    with pytest.raises(TfstreamError) as error:
        convert(source, out, group_by=group_by)
    return error.value


@pytest.mark.parametrize(
    ("group_by", "message"),
    [
        ([], "group_by is empty; name at least one of the columns id, ts, s"),
        (["nope"], "there is no column 'nope'; there are id, ts, s"),
        (["month(id)"], "month(id) needs a timestamp, but 'id' is int32"),
        (
            ["month(ts) AS id"],
            (
                "group_by 'month(ts) AS id' makes a key 'id', but the sources have a column of "
                "that name; group by that column, or write 'month(ts) AS id' AS another name"
            ),
        ),
        (["s", "s"], "group_by makes the key 's' twice; write one of them AS another name"),
        (
            ["s AS rows"],
            (
                "group_by 's AS rows' makes a key 'rows', a name that the index uses itself; "
                "write it AS another name"
            ),
        ),
    ],
)
def test_bad_keys(source: Path, tmp_path: Path, group_by: list[str], message: str) -> None:
    """Refused before anything is written."""
    error = refused(source, tmp_path / "out", group_by)
    assert isinstance(error, UsageError)
    assert str(error) == message
    assert not (tmp_path / "out").exists()


def test_unsupported_types(tmp_path: Path) -> None:
    """The file, the column and its type are named."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"l": [[[1]], [[2]]]}), path)
    error = refused(path, tmp_path / "out", ["l"])
    assert isinstance(error, DataError)
    assert str(error) == (
        f"{path}: column 'l' has the type {pq.read_schema(path).field('l').type}, which cannot be "
        "kept; leave it out of the source, or make a list of numbers or strings out of it"
    )
    assert not (tmp_path / "out").exists()


def test_sources_that_differ(source: Path, tmp_path: Path) -> None:
    """Both files and the column are named, where no type holds the values of both."""
    other = tmp_path / "y.parquet"
    pq.write_table(TABLE.set_column(0, "id", TABLE["id"].cast(pa.string())), other)
    error = refused([source, other], tmp_path / "out", ["s"])
    assert isinstance(error, DataError)
    assert str(error) == (
        f"the sources differ in column 'id': {source} has int32, but {other} has string, "
        "and no type holds the values of both; choose one by dtypes="
    )
    assert not (tmp_path / "out").exists()


def test_sources_without_rows(tmp_path: Path) -> None:
    """No data set without a row."""
    path = tmp_path / "x.parquet"
    pq.write_table(TABLE.slice(0, 0), path)
    assert str(refused(path, tmp_path / "out", ["s"])) == (
        f"the sources have no rows: {path}; give one that has"
    )
    empty = tmp_path / "x.csv"
    empty.touch()
    assert str(refused(empty, tmp_path / "out", ["s"])) == (
        f"{empty} is empty; a CSV file needs a first line with the names of its columns"
    )


def test_a_damaged_parquet_file(source: Path, tmp_path: Path) -> None:
    """Found at the footer or in the middle: the file is named and nothing is left."""
    data = source.read_bytes()
    source.write_bytes(data[: len(data) // 2])
    error = refused(source, tmp_path / "out", ["s"])
    assert isinstance(error, DataError)
    assert str(error).startswith(f"{source} is not a readable Parquet file: ")
    source.write_bytes(data[:4] + b"\xff" * (len(data) // 3) + data[4 + len(data) // 3 :])
    error = refused(source, tmp_path / "out", ["s"])
    assert isinstance(error, DataError)
    assert re.fullmatch(
        rf"{source}: rows 0 to \d+ at byte 4 cannot be read: .*; mend the source, or leave such "
        "rows out by on_bad_rows='quarantine'",
        str(error),
        re.DOTALL,
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "kind"), [("x.parquet", "Parquet"), ("x.arrow", "Arrow IPC"), ("x.orc", "ORC")]
)
def test_a_file_of_another_kind(tmp_path: Path, name: str, kind: str) -> None:
    """Its suffix lies, and the file is named, whatever shall become of bad rows."""
    path = tmp_path / name
    path.write_text("p,q\n1,2\n")
    error = refused(path, tmp_path / "out", ["p"])
    assert isinstance(error, DataError)
    assert str(error).startswith(f"{path} is not a readable {kind} file: ")
    options = ConvertOptions(on_bad_rows="quarantine")
    with pytest.raises(DataError, match=f"is not a readable {kind} file: "):
        convert(path, tmp_path / "out", group_by=["p"], options=options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_record_longer_than_pyarrow_s_blocks(tmp_path: Path, suffix: str) -> None:
    """Is read like any other, among bad ones too."""
    long, path = "x" * (3 << 20), tmp_path / f"x{suffix}"
    if suffix == ".csv":
        path.write_text(f'p,q\n1,"{long}\n"\n2\n3,y\n')
    else:
        path.write_text(f'{{"p":1,"q":"{long}\\n"}}\n2\n{{"p":3,"q":"y"}}\n')
    options = ConvertOptions(on_bad_rows="quarantine")
    convert(path, tmp_path / "out", group_by=["p"], options=options)
    catalog = open_catalog(tmp_path / "out")
    assert reader.take(catalog, [0, 1])["q"].to_pylist() == [f"{long}\n", "y"]
    assert catalog.sources["quarantined"].to_pylist() == [1]


def test_a_ragged_csv_file(tmp_path: Path) -> None:
    """The file and the place are named and nothing is left."""
    path = tmp_path / "x.csv"
    path.write_text("p,q\n1,2\n3\n")
    error = refused(path, tmp_path / "out", ["p"])
    assert isinstance(error, DataError)
    assert str(error) == (
        f"{path}: row 1 at byte 8 cannot be read: CSV parse error: Expected 2 columns, got 1: 3; "
        "mend the source, or leave such rows out by on_bad_rows='quarantine'"
    )
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else(source: Path, tmp_path: Path) -> None:
    """Nothing that was there is touched."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.doc").write_text("years of work")
    error = refused(source, out, ["s"])
    assert isinstance(error, ResumeError)
    assert str(error) == (
        f"{out} holds something else (thesis.doc); choose a folder that does not exist or is empty"
    )
    assert (out / "thesis.doc").read_text() == "years of work"


def test_a_data_set_is_never_overwritten(source: Path, tmp_path: Path) -> None:
    """A second conversion into the folder is refused."""
    out = tmp_path / "out"
    digest = converted(source, out, ["s"]).digest
    error = refused(source, out, ["s"])
    assert isinstance(error, ResumeError)
    assert (
        str(error) == f"{out} already holds a data set; choose another folder, or remove it first"
    )
    assert open_catalog(out).digest == digest


def test_a_full_disk_is_seen_first(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place, what it has and what is needed are named."""
    usage = namedtuple("usage", "total used free")(1, 1, 1)  # noqa: PYI024 - what shutil returns
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    error = refused(source, tmp_path / "out", ["s"])
    assert isinstance(error, StorageError)
    assert str(error) == (
        f"the disk of {tmp_path / 'out'} has 0.0 GB free, but the conversion needs about 0.0 GB there; "
        "make room, or give another output or temp="
    )
    assert not (tmp_path / "out").exists()


def test_an_unknown_scheduler(source: Path, tmp_path: Path) -> None:
    """What there is instead is named."""
    with pytest.raises(UsageError) as error:
        convert(source, tmp_path / "out", group_by=["s"], scheduler="slurm")
    assert str(error.value) == (
        "unknown scheduler 'slurm'; give threads, processes, synchronous, the address of a Dask "
        "cluster, or a distributed.Client"
    )


@pytest.mark.parametrize("name", ["block_rows", "shard_bytes", "partition_bytes"])
def test_options_are_at_least_one(name: str) -> None:
    """And say so."""
    with pytest.raises(UsageError, match=f"^{name} must be at least 1, found 0$"):
        ConvertOptions(**{name: 0})
