"""Data sets and runs behind URLs: the same files, the same digest, the same answers."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tfstream
from tfstream import remote, storage
from tfstream.cli import main
from tfstream.errors import CorruptionError, StorageError, UsageError
from tfstream.format.check import check_dataset
from tfstream.format.manifest import open_catalog
from tfstream.format.provenance import row_ids_of, rows_of_sources

ROWS = 3000


def flights(rows: int = ROWS, first: int = 0) -> pa.Table:
    """Rows with a key, a number with nulls, a coded text and a list."""
    number = np.arange(first, first + rows)
    return pa.table(
        {
            "month": number * 7 % 12 + 1,
            "delay": pa.array(number / 3, mask=number % 11 == 0),
            "carrier": pa.array([f"c{i % 5}" for i in number]),
            "list": [[i, i + 1][: i % 3] for i in number.tolist()],
        }
    )


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two sources on this machine."""
    home = tmp_path_factory.mktemp("remote")
    (home / "in").mkdir()
    pq.write_table(flights(), home / "in" / "a.parquet")
    pq.write_table(flights(500, ROWS), home / "in" / "b.parquet")
    tfstream.convert(home / "in", home / "out", group_by=["month"])
    return home


@pytest.fixture(params=["s3", "memory"])
def home(request: pytest.FixtureRequest) -> str:
    """A URL below which there is nothing."""
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/home"
    return f"memory://{uuid.uuid4().hex}/home"


def upload(folder: Path, url: str) -> None:
    """Put all files of a folder."""
    for name in storage.below(folder):
        remote.put_file(remote.join(url, name), folder / name)


def test_a_data_set_by_url_answers_as_the_local_one(local: Path, home: str) -> None:
    """Rows, statistics, conditions and provenance, and nothing to be found by `verify`."""
    upload(local / "out", home)
    here, there = tfstream.open(local / "out"), tfstream.open(home)
    assert there.digest == here.digest
    assert there.take([0, 3400, 17]).equals(here.take([0, 3400, 17]))
    assert there.statistics == here.statistics
    condition = "delay > 900 and carrier = 'c2'"
    assert there.where(condition).subset.digest == here.where(condition).subset.digest
    catalogs = [open_catalog(storage.place(place)) for place in (local / "out", home)]
    ids = np.array([0, 17, 3400])
    for answers in zip(*(rows_of_sources(c, ids) for c in catalogs), strict=True):
        np.testing.assert_array_equal(*answers)
    np.testing.assert_array_equal(*(row_ids_of(c, 1, np.array([3, 400])) for c in catalogs))
    assert list(check_dataset(catalogs[1])) == []


def test_damage_behind_a_url_is_told(local: Path, home: str) -> None:
    """A flipped byte with its rows, a missing file by name."""
    upload(local / "out", home)
    catalog = open_catalog(storage.place(home))
    name = catalog.shards["path"][0].as_py()
    data = bytearray(remote.read(remote.join(home, name)))
    data[200] ^= 1
    remote.put(remote.join(home, name), bytes(data))
    (finding,) = check_dataset(catalog)
    assert (finding.where, finding.shard, finding.first_row) == (name, 0, 0)
    with pytest.raises(CorruptionError, match="is not what was written"):
        tfstream.open(home).take([0])
    remote.delete(remote.join(home, name))
    (finding,) = check_dataset(catalog)
    assert "there is no such object" in finding.what
    with pytest.raises(StorageError, match="there is no such object"):
        tfstream.open(home).take([0])
    remote.put(remote.join(home, "shards/more.tfrecord"), b"")
    assert [f.where for f in check_dataset(catalog)][1:] == ["shards/more.tfrecord"]


def test_the_command_line_takes_urls(
    local: Path, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`inspect` and `verify`."""
    upload(local / "out", f"{bucket}/out")
    assert main(["inspect", f"{bucket}/out"]) == 0
    assert capsys.readouterr().out.startswith(f"data set  {bucket}/out\n")
    assert main(["verify", f"{bucket}/out"]) == 0
    assert capsys.readouterr().out == f"no finding in {bucket}/out\n"


def test_where_there_is_none_is_told_without_credentials() -> None:
    """And what to give."""
    with pytest.raises(UsageError, match="^there is no data set in memory://none/x: "):
        tfstream.open("memory://me:secret@none/x")
