"""Sources that are no paths: datasets of pyarrow, and DataFrames of Dask."""

from __future__ import annotations

from pathlib import Path

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.faults.kill_loop import contents
from tfstream.conversion.convert import append, convert
from tfstream.conversion.frame_source import value_digest
from tfstream.conversion.options import ConvertOptions
from tfstream.conversion.progress import Progress
from tfstream.errors import UsageError
from tfstream.format import check, provenance, reader
from tfstream.format.manifest import Catalog, open_catalog

TABLE = pa.table(
    {
        "g": pa.array([i % 3 for i in range(50)], pa.int32()),
        "x": pa.array([None if i % 7 == 0 else i / 2 for i in range(50)]),
        "s": pa.array([f"s{i}" for i in range(50)]),
    }
)


def hive(folder: Path) -> Path:
    """The table in folders g=0, g=1, g=2."""
    by_g = ds.partitioning(pa.schema([("g", pa.int32())]), flavor="hive")
    ds.write_dataset(TABLE, folder, format="parquet", partitioning=by_g)
    return folder


def by_place(catalog: Catalog) -> dict[tuple[str, int], dict[str, object]]:
    """The rows of a data set by source and row there."""
    ids = np.arange(catalog.rows)
    source, row = provenance.rows_of_sources(catalog, ids)
    names = catalog.sources["path"].to_pylist()
    found = reader.take(catalog, ids).to_pylist()
    return {
        (names[ordinal], int(place)): values
        for ordinal, place, values in zip(source, row, found, strict=True)
    }


def test_the_columns_of_folders_are_columns(tmp_path: Path) -> None:
    """Of a dataset; and each row is the row of its file."""
    source = hive(tmp_path / "source")
    dataset = ds.dataset(source, partitioning="hive")
    for name, size in (("a", 1 << 26), ("b", 50)):
        options = ConvertOptions(partition_bytes=size)
        convert(dataset, tmp_path / name, group_by=["g"], options=options)
    catalog = open_catalog(tmp_path / "a")
    assert catalog.digest == open_catalog(tmp_path / "b").digest
    found = by_place(catalog)
    assert len(found) == 50
    for path in sorted(source.rglob("*.parquet")):
        name = path.relative_to(source).as_posix()
        told = int(path.parent.name.removeprefix("g="))
        for row, values in enumerate(pq.ParquetFile(path).read().to_pylist()):
            assert found[name, row] == values | {"g": told}
    assert list(check.check_sources(catalog)) == []


def test_a_folder_by_its_path_tells_no_columns(tmp_path: Path) -> None:
    """Its files are what they are."""
    convert(hive(tmp_path / "source"), tmp_path / "out", group_by=["s"])
    assert open_catalog(tmp_path / "out").schema.names == ("x", "s")


def test_a_null_folder_and_another_kind(tmp_path: Path) -> None:
    """A partition may be null, and files may be of any kind."""
    table = pa.table({"k": pa.array(["a", None, "a"]), "x": [1, 2, 3]})
    by_k = ds.partitioning(pa.schema([("k", pa.string())]), flavor="hive")
    ds.write_dataset(table, tmp_path / "source", format="csv", partitioning=by_k)
    dataset = ds.dataset(tmp_path / "source", format="csv", partitioning="hive")
    convert(dataset, tmp_path / "out", group_by=["k"])
    found = reader.take(open_catalog(tmp_path / "out"), [0, 1, 2]).to_pylist()
    assert found == [{"x": 1, "k": "a"}, {"x": 3, "k": "a"}, {"x": 2, "k": None}]


def test_datasets_that_are_refused(tmp_path: Path) -> None:
    """What a conversion would not see is said."""
    dataset = ds.dataset(hive(tmp_path / "source"), partitioning="hive")
    semicolons = ds.CsvFileFormat(parse_options=pa.csv.ParseOptions(delimiter=";"))
    (tmp_path / "x.csv").write_text("p;q\n1;2\n")
    for source, message in (
        (
            dataset.filter(ds.field("x") > 1),
            "the dataset is filtered; convert all of it, and use where() on what comes of it",
        ),
        (
            ds.dataset(TABLE),
            "the dataset is not made of local files alone; write it to files, and convert these",
        ),
        (
            ds.dataset(tmp_path / "x.csv", format=semicolons),
            (
                f"the dataset reads {tmp_path}/x.csv by options of its own, which a conversion "
                "does not know; leave them out, or write it to Parquet first"
            ),
        ),
    ):
        with pytest.raises(UsageError) as error:
            convert(source, tmp_path / "out", group_by=["g"])
        assert str(error.value) == message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("scheduler", ["threads", "processes", "client"])
def test_each_partition_of_a_frame_is_a_source(tmp_path: Path, scheduler: str) -> None:
    """Its rows are told by partition and row there; nothing that was computed for it is left."""
    frame = dd.from_pandas(TABLE.to_pandas(), npartitions=4)
    frame["y"] = frame["x"] * 2
    parts = [part.compute() for part in frame.to_delayed()]
    if scheduler == "client":
        distributed = pytest.importorskip("distributed")
        with distributed.Client(
            processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None
        ) as client:
            convert(frame.persist(), tmp_path / "out", group_by=["g"], scheduler=client)
    else:
        convert(frame, tmp_path / "out", group_by=["g"], scheduler=scheduler)
    catalog = open_catalog(tmp_path / "out")
    assert catalog.sources["path"].to_pylist() == [f"partition-0000{i}" for i in range(4)]
    assert catalog.sources["rows"].to_pylist() == [len(part) for part in parts]
    found = by_place(catalog)
    for ordinal, part in enumerate(parts):
        for row, values in enumerate(part.itertuples(index=False)):
            x = None if np.isnan(values.x) else values.x
            assert found[f"partition-0000{ordinal}", row] == {
                "g": values.g,
                "x": x,
                "s": values.s,
                "y": None if x is None else 2 * x,
            }
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert catalog.manifest.root == ""
    assert list(check.check_dataset(catalog, sources=True)) == []


def test_partitions_of_a_frame_are_promoted(tmp_path: Path) -> None:
    """Where a column of objects has no value, another partition tells its type."""
    pandas = pd.DataFrame({"g": [1, 1], "day": [None, pd.Timestamp("2024-02-29").date()]})
    # Dask would make strings of objects.
    with dask.config.set({"dataframe.convert-string": False}):
        frame = dd.from_pandas(pandas, npartitions=2)
        convert(frame, tmp_path / "out", group_by=["g"])
    catalog = open_catalog(tmp_path / "out")
    assert catalog.schema["day"].type == "date32[day]"
    assert reader.take(catalog, [0, 1])["day"].to_pylist() == pandas["day"].to_list()


def test_a_frame_follows_a_frame(tmp_path: Path) -> None:
    """Its partitions are numbered on; files do not follow it, nor it files."""
    frame = dd.from_pandas(TABLE.to_pandas(), npartitions=2)
    convert(frame, tmp_path / "out", group_by=["g"])
    before = open_catalog(tmp_path / "out")
    for _ in range(2):
        append(frame, tmp_path / "out")
    catalog = open_catalog(tmp_path / "out")
    assert catalog.sources["path"].to_pylist() == [f"partition-0000{i}" for i in range(6)]
    assert catalog.rows == 3 * before.rows
    assert len(by_place(catalog)) == catalog.rows
    assert list(check.check_dataset(catalog)) == []
    pq.write_table(TABLE, tmp_path / "x.parquet")
    convert(tmp_path / "x.parquet", tmp_path / "files", group_by=["g"])
    for source, out, has, given in (
        (tmp_path / "x.parquet", "out", "partitions of a DataFrame", "files"),
        (frame, "files", "files", "partitions of a DataFrame"),
    ):
        with pytest.raises(UsageError) as error:
            append(source, tmp_path / out)
        assert str(error.value) == (
            f"the sources of {tmp_path / out} are {has}, and {given} cannot follow them; "
            f"give {has}, or convert into another folder"
        )
        assert not (tmp_path / out / ".tmp").exists()


@pytest.mark.parametrize("temp", [None, "temp"])
@pytest.mark.parametrize("stage", ["compute partitions", "write shards"])
def test_a_frame_that_was_stopped_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, temp: str | None
) -> None:
    """Its partitions are computed again; if they are the same, finished work counts."""
    monkeypatch.chdir(tmp_path)
    frame = dd.from_pandas(TABLE.to_pandas(), npartitions=4)
    options = ConvertOptions(temp=temp)
    convert(frame, tmp_path / "whole", group_by=["g"], options=options)

    def stop(now: Progress) -> None:
        if now.stage == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(frame, tmp_path / "out", group_by=["g"], options=options, progress=stop)
    # As a kill leaves it.
    left = (tmp_path / "out/.tmp/partitions") if temp is None else tmp_path / "left"
    left.mkdir(parents=True)
    (left / "partition-00009.arrow").write_bytes(b"x")
    done: dict[str, int] = {}
    convert(
        frame,
        tmp_path / "out",
        group_by=["g"],
        options=options,
        progress=lambda now: done.setdefault(now.stage, now.tasks_done) and None,
    )
    assert done["sort by group"] == (4 if stage == "write shards" else 0)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert temp is None or list((tmp_path / "temp").iterdir()) == []


def test_the_hash_of_a_partition_is_one_of_its_values() -> None:
    """However they lie in memory; any value, null, name or type makes another."""
    chunked = pa.concat_tables([TABLE.slice(0, 7), TABLE.slice(7)])
    assert value_digest(chunked) == value_digest(TABLE)
    sliced = pa.concat_tables([TABLE, TABLE]).combine_chunks().slice(50)
    assert value_digest(sliced) == value_digest(TABLE)
    others = [
        TABLE.slice(1),
        TABLE.rename_columns(["g", "x", "t"]),
        TABLE.set_column(0, "g", TABLE["g"].cast(pa.int64())),
        TABLE.set_column(1, "x", pa.compute.fill_null(TABLE["x"], 0.0)),
        TABLE.set_column(2, "s", pa.array(["s0", "s1x", *TABLE["s"].to_pylist()[2:]])),
    ]
    assert len({value_digest(table) for table in [TABLE, *others]}) == len(others) + 1
