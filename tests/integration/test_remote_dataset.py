"""Data sets and runs behind URLs: the same files, the same digest, the same answers."""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tfstream
from tfstream import remote, storage
from tfstream.cli import main
from tfstream.errors import CorruptionError, ResumeError, StorageError, UsageError
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


def test_rows_follow_on_forgotten_ones(local: Path, home: str, tmp_path: Path) -> None:
    """A data set that has forgotten and lies behind a URL is appended to there."""
    tfstream.convert(local / "in" / "a.parquet", tmp_path / "out", group_by=["month"])
    forgotten = tfstream.forget(tmp_path / "out", row_ids=[1, 2])
    upload(tmp_path / "out", home)
    grown = tfstream.append(local / "in" / "b.parquet", home)
    assert grown.rows == ROWS - 2 + 500
    assert tfstream.open(home, digest=forgotten.digest).rows == ROWS - 2
    assert list(check_dataset(grown.subset.catalog)) == []


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


def test_a_local_data_set_is_read_without_fsspec(local: Path) -> None:
    """What lies on this machine pays nothing for what lies elsewhere."""
    script = (
        "import sys; from pathlib import Path; from tfstream.format import check, manifest, reader;"
        "catalog = manifest.open_catalog(Path(sys.argv[1]));"
        "assert reader.take(catalog, [0]).num_rows == 1;"
        "assert list(check.check_dataset(catalog)) == [];"
        "assert 'fsspec' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, str(local / "out")], check=True)


def test_where_there_is_none_is_told_without_credentials() -> None:
    """And what to give."""
    with pytest.raises(UsageError, match="^there is no data set in memory://none/x: "):
        tfstream.open("memory://me:secret@none/x")


def same_files(folder: Path, url: str) -> None:
    """Byte for byte, and no other; manifests may differ in the folder of their sources."""
    assert sorted(storage.below(folder)) == sorted(remote.below(url))
    for name in storage.below(folder):
        if name.rpartition("/")[2] not in {"manifest.json", "parent.json"}:
            assert remote.read(remote.join(url, name)) == (folder / name).read_bytes(), name


def no_rest(temp: Path) -> bool:
    """Whether nothing is left of a delivery."""
    return not temp.exists() or not any(temp.iterdir())


def test_a_conversion_to_a_url_makes_the_same_files(local: Path, home: str, tmp_path: Path) -> None:
    """And an append to it does, and nothing stays here or there that is not part of it."""
    shutil.copytree(local / "in", tmp_path / "in")
    temp = tmp_path / "temp"
    options = tfstream.ConvertOptions(temp=str(temp))
    there = tfstream.convert(tmp_path / "in", home, group_by=["month"], options=options)
    assert there.digest == tfstream.open(local / "out").digest
    same_files(local / "out", home)
    assert no_rest(temp)
    with pytest.raises(ResumeError, match="already holds a data set"):
        tfstream.convert(tmp_path / "in", home, group_by=["month"], options=options)
    tfstream.convert(tmp_path / "in", tmp_path / "here", group_by=["month"])
    later = tmp_path / "in" / "c.parquet"
    pq.write_table(flights(70, 9000), later)
    remote.put(remote.join(home, "generations/1/shards/000/given-up.tfrecord"), b"")
    there = tfstream.append(later, home, options=options)
    assert there.digest == tfstream.append(later, tmp_path / "here").digest
    same_files(tmp_path / "here", home)
    with pytest.raises(UsageError, match="is a source of .* already"):
        tfstream.append(later, home, options=options)
    assert no_rest(temp)
    assert tfstream.open(home, digest=tfstream.open(local / "out").digest).rows == ROWS + 500
    assert list(check_dataset(open_catalog(storage.place(home)))) == []


class Stop(BaseException):
    """As if the process were killed."""


class Writes:
    """What is written to a store, which ends the process after some writes."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        """In place of `remote`'s functions."""
        self.left = 0
        self.files: list[str] = []
        for name in ("put", "put_file", "delete"):
            patch.setattr(remote, name, self._counted(name, getattr(remote, name)))

    def _counted(self, name: str, inner: Callable[..., None]) -> Callable[..., None]:
        def called(url: str, *args: object, **kwargs: object) -> None:
            self.left -= 1
            if self.left < 0:
                raise Stop
            inner(url, *args, **kwargs)
            if name == "put_file":
                self.files.append(url)

        return called


@pytest.mark.parametrize("appends", [False, True])
def test_a_conversion_that_is_stopped_anywhere_goes_on(
    appends: bool, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its manifest nobody sees it; the same call goes on; nothing is put a second time."""
    url, temp = f"memory://{uuid.uuid4().hex}/out", tmp_path / "temp"
    options = tfstream.ConvertOptions(temp=str(temp))
    first, second = ([local / "in" / name] for name in ("a.parquet", "b.parquet"))
    if appends:
        for out in (url, tmp_path / "here"):
            tfstream.convert(first, out, group_by=["month"], options=options)
        tfstream.append(second, tmp_path / "here")

    def call() -> None:
        if appends:
            tfstream.append(second, url, options=options)
        else:
            tfstream.convert(first + second, url, group_by=["month"], options=options)

    manifest = remote.join(url, "manifest.json")
    before = remote.read(manifest) if appends else None
    writes, stops, is_done = Writes(monkeypatch), 0, False
    while not is_done:
        writes.left = 1 + stops % 5
        try:
            call()
            is_done = True
        except Stop:
            stops += 1
        if remote.exists(manifest) and remote.read(manifest) != before:
            assert list(check_dataset(open_catalog(storage.place(url)))) == []
    assert stops > 2
    assert len(writes.files) == len(set(writes.files))
    same_files(tmp_path / "here" if appends else local / "out", url)
    assert no_rest(temp)


def test_a_second_conversion_is_kept_out(
    local: Path, home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One from another machine, while the first is at work or dead; then it may be removed."""
    inner, left = remote.put_file, [0]

    def failing(url: str, path: Path) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise StorageError(f"cannot write {url}: 503")
        inner(url, path)

    def call(name: str) -> tfstream.Shards:
        options = tfstream.ConvertOptions(temp=str(tmp_path / name))
        return tfstream.convert(local / "in", home, group_by=["month"], options=options)

    def fails_after(files: int) -> None:
        left[0] = files
        with monkeypatch.context() as patch:
            patch.setattr(remote, "put_file", failing)
            with pytest.raises(StorageError, match="503"):
                call("first")

    fails_after(0)
    with pytest.raises(UsageError, match="there is no data set"):
        tfstream.open(home)
    with pytest.raises(ResumeError, match=r"another conversion writes into .* \(host .*, pid "):
        call("second")
    assert no_rest(tmp_path / "second")
    fails_after(5)
    remote.delete(remote.join(home, ".tmp/writer.json"))
    with pytest.raises(ResumeError, match="holds something else"):
        call("second")
    assert call("first").digest == tfstream.open(local / "out").digest
    assert no_rest(tmp_path / "first")
    same_files(local / "out", home)


def test_a_writer_that_lost_its_claim_writes_no_manifest(
    local: Path, home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one took it while files were put, or was quicker with its manifest."""
    inner, put = remote.put_file, remote.put

    def taken(url: str, path: Path) -> None:
        inner(url, path)
        put(remote.join(home, ".tmp/writer.json"), b"{}")

    def quicker(url: str, data: bytes, *, if_absent: bool = False) -> None:
        if url.endswith("manifest.json"):
            put(url, b"another")
        put(url, data, if_absent=if_absent)

    options = tfstream.ConvertOptions(temp=str(tmp_path / "temp"))
    with monkeypatch.context() as patch:
        patch.setattr(remote, "put_file", taken)
        with pytest.raises(ResumeError, match="took over"):
            tfstream.convert(local / "in", home, group_by=["month"], options=options)
    assert not remote.exists(remote.join(home, "manifest.json"))
    remote.delete(remote.join(home, ".tmp/writer.json"))
    with monkeypatch.context() as patch:
        patch.setattr(remote, "put", quicker)
        with pytest.raises(ResumeError, match="holds"):
            tfstream.convert(local / "in", home, group_by=["month"], options=options)
    assert remote.read(remote.join(home, "manifest.json")) == b"another"


def test_something_else_is_not_written_over(local: Path, home: str, tmp_path: Path) -> None:
    """And the call leaves nothing."""
    remote.put(remote.join(home, "mine.txt"), b"mine")
    options = tfstream.ConvertOptions(temp=str(tmp_path / "temp"))
    with pytest.raises(ResumeError, match=r"holds something else \(mine.txt\)"):
        tfstream.convert(local / "in", home, group_by=["month"], options=options)
    assert remote.below(home) == {"mine.txt": 4}
    assert no_rest(tmp_path / "temp")


def test_an_error_in_the_call_leaves_nothing(local: Path, home: str, tmp_path: Path) -> None:
    """No claim that would keep the next one out."""
    options = tfstream.ConvertOptions(temp=str(tmp_path / "temp"))
    with pytest.raises(UsageError):
        tfstream.convert(local / "in", home, group_by=["nosuch"], options=options)
    assert remote.below(home) == {}
    assert no_rest(tmp_path / "temp")


_KILLED = """
import os, sys
import tfstream
from tfstream import remote

inner, left = remote.{function}, int(sys.argv[1])

def killed(*args, **kwargs):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)
    inner(*args, **kwargs)

remote.{function} = killed
options = tfstream.ConvertOptions(temp=sys.argv[4])
tfstream.convert(sys.argv[2], sys.argv[3], group_by=["month"], options=options)
"""


def test_a_killed_conversion_is_no_data_set_and_goes_on(
    local: Path, bucket: str, tmp_path: Path
) -> None:
    """Killed by the kernel: at its claim, among its files, before its manifest."""
    url, temp = f"{bucket}/out", tmp_path / "temp"
    for function, after in (("put", 0), ("put_file", 0), ("put_file", 5), ("put", 1)):
        script = _KILLED.format(function=function)
        arguments = [str(after), str(local / "in"), url, str(temp)]
        ended = subprocess.run([sys.executable, "-c", script, *arguments], check=False)
        assert ended.returncode == -9
        with pytest.raises(UsageError, match="there is no data set"):
            tfstream.open(url)
    options = tfstream.ConvertOptions(temp=str(temp))
    tfstream.convert(local / "in", url, group_by=["month"], options=options)
    same_files(local / "out", url)
    assert no_rest(temp)


def test_credentials_are_nowhere(local: Path, tmp_path: Path) -> None:
    """Neither in what is written nor in what lies here meanwhile."""
    home = uuid.uuid4().hex
    url = f"memory://me:secret@{home}"
    for name in ("a.parquet", "b.parquet"):
        remote.put_file(f"{url}/in/{name}", local / "in" / name)
    seen: list[bytes] = []

    def look(progress: tfstream.Progress) -> None:
        del progress
        seen.extend(p.read_bytes() for p in (tmp_path / "temp").rglob("*.json") if p.is_file())

    options = tfstream.ConvertOptions(temp=str(tmp_path / "temp"))
    made = tfstream.convert(
        f"{url}/in", f"{url}/out", group_by=["month"], options=options, progress=look
    )
    assert str(made.subset.catalog.folder) == f"memory://{home}/out"
    seen.extend(remote.read(f"{url}/out/{name}") for name in remote.below(f"{url}/out"))
    assert len(seen) > 10
    assert not any(b"secret" in data for data in seen)
