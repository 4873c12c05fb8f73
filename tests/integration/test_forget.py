"""Forgotten rows: their values are in no file, all other rows are as they were."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import tfstream
from tfstream import cli, remote, storage
from tfstream.conversion import forget as forgetting
from tfstream.errors import CorruptionError, ResumeError, StorageError, UsageError
from tfstream.format import block_cache, index_files
from tfstream.format.block_cache import BlockCache
from tfstream.format.check import check_dataset
from tfstream.format.manifest import open_catalog
from tfstream.lineage.witnesses import witnesses

ROWS = 60
SECRET = 37
"""The row of the sources whose values are looked for."""


def table() -> pa.Table:
    """Every kind of value, each row's own; some rows share a word."""
    ids = range(ROWS)
    words = [f"word-{i % 7}" if i != SECRET else "secret-word" for i in ids]
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "day": pa.array([i // 12 for i in ids], pa.int32()),
            "x": pa.array([None if i % 5 == 0 else i + 0.12345 for i in ids], pa.float64()),
            "big": pa.array([2**55 + 1_000_003 * i for i in ids], pa.int64()),
            "word": words,
            "raw": pa.array([f"bytes-of-row-{i:03}".encode() for i in ids], pa.binary()),
            "names": [[f"item-{i}-{j}" for j in range(i % 4)] for i in ids],
            "counts": pa.array(
                [None if i % 9 == 0 else [None, i * 1_000_003] for i in ids], pa.list_(pa.int64())
            ),
            "place": pa.array([[i * 0.5, None] for i in ids], pa.list_(pa.float32(), 2)),
            "price": pa.array([i * 100_003 for i in ids], pa.decimal128(10)),
        }
    )


def needles(row: int) -> list[bytes]:
    """The bytes of the values of a row, as they are stored or shown."""
    whole = table()
    values = [
        np.int64(whole["big"][row].as_py()).tobytes(),
        np.float64(whole["x"][row].as_py()).tobytes(),
        np.int64(row * 1_000_003).tobytes(),
        np.int64(row * 100_003).tobytes(),
        f"bytes-of-row-{row:03}".encode(),
        *(f"item-{row}-{j}".encode() for j in range(row % 4)),
    ]
    return values + ([b"secret-word"] if row == SECRET else [])


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two generations in groups; days 0 to 3 lie in the first."""
    home = tmp_path_factory.mktemp("forget")
    whole = table()
    pq.write_table(whole.slice(0, 48), home / "0.parquet")
    pq.write_table(whole.slice(48), home / "1.parquet")
    options = tfstream.ConvertOptions(block_rows=5)
    tfstream.convert(home / "0.parquet", home / "out", group_by=["day"], options=options)
    tfstream.append(home / "1.parquet", home / "out")
    return home / "out"


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy."""
    return Path(shutil.copytree(original, tmp_path / "out"))


def holding(folder: Path, values: list[bytes]) -> list[str]:
    """The files that have one of these values, with Parquet's pages unpacked."""
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        if path.suffix == ".parquet":
            # As text and as bytes, whatever encoding or compression the pages have.
            columns = pq.read_table(path)
            for column in columns.columns:
                for value in column.to_pylist():
                    data += value if isinstance(value, bytes) else str(value).encode()
        found += [f"{path.relative_to(folder)}: {value!r}" for value in values if value in data]
    return found


def rows_by_id(shards: tfstream.Shards) -> dict[int, dict[str, object]]:
    """All rows of a data set by their number in the sources."""
    ids = np.concatenate([shards.subset.row_ids_in(b) for b in shards.subset.blocks.tolist()])
    return {row["id"]: row for row in shards.take(ids).to_pylist()}


def test_the_values_are_there_before(folder: Path) -> None:
    """The search below finds what there is to find."""
    found = holding(folder, needles(SECRET))
    assert len({line.split(": ")[1] for line in found}) == len(needles(SECRET))


def test_no_file_has_the_values_of_a_forgotten_row(folder: Path) -> None:
    """And everything else is as it was, with a new digest that names the old one."""
    before = tfstream.open(folder)
    expected = rows_by_id(before)
    del expected[SECRET]
    after = tfstream.forget(folder, where=f"id = {SECRET}")
    assert holding(folder, needles(SECRET)) == []
    assert rows_by_id(after) == expected
    assert after.rows == ROWS - 1
    assert list(check_dataset(after.subset.catalog, sources=True)) == []
    assert list(folder.rglob(index_files.PARENT)) == []  # what was before an append has it, too
    forgotten = after.subset.catalog.manifest.forgotten
    assert [one.digest for one in forgotten] == [before.digest]
    assert after.digest != before.digest
    (row,) = [i for i in range(ROWS) if after.subset.place_of(np.array([i]))[0][0] < 0]
    with pytest.raises(UsageError, match=f"row {row} was forgotten on {forgotten[0].date}"):
        after.take([row])
    with pytest.raises(UsageError, match="were forgotten on"):
        tfstream.open(folder, digest=before.digest)
    assert after.where("word = 'secret-word'").rows == 0
    assert after.where("word = 'word-3'").rows == before_count(expected, "word-3")


def before_count(rows: dict[int, dict[str, object]], word: str) -> int:
    """Rows with a word."""
    return sum(row["word"] == word for row in rows.values())


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=30, unique=True),
        min_size=1,
        max_size=2,
    )
)
def test_any_rows_can_be_forgotten(
    original: Path, tmp_path_factory: pytest.TempPathFactory, asked: list[list[int]]
) -> None:
    """Once or twice: statistics, conditions and streams are those of the rows that are left."""
    folder = Path(shutil.copytree(original, tmp_path_factory.mktemp("any") / "out"))
    before = tfstream.open(folder)
    expected = rows_by_id(before)
    of_row = before.take(range(ROWS), ["id"])["id"].to_pylist()
    for ids in asked:
        after = tfstream.forget(folder, row_ids=ids)
    gone = {row for ids in asked for row in ids}
    source = {of_row[row] for row in gone}
    left = {i: row for i, row in expected.items() if i not in source}
    assert rows_by_id(after) == left
    assert list(check_dataset(after.subset.catalog)) == []
    if not left:
        return
    described = after.statistics
    assert described["id"].count == len(left)
    assert (described["id"].min, described["id"].max) == (min(left), max(left))
    assert described["big"].mean == pytest.approx(np.mean([2**55 + 1_000_003 * i for i in left]))
    assert described["x"].nulls == sum(i % 5 == 0 for i in left)
    for i in list(left)[:3]:
        assert after.where(f"id = {i}").rows == 1
    stream = after.stream(batch_size=7, features=["big"], seed=3)
    seen = [int(v) for batch in stream.dataset(epochs=range(1)) for v in batch["big"].numpy()]
    assert sorted(seen) == [2**55 + 1_000_003 * i for i in sorted(left)]


def test_a_forgotten_group_has_no_name(folder: Path) -> None:
    """Its key is null, and no file is called after it."""
    after = tfstream.forget(folder, where="day = 2")
    assert after.subset.catalog.groups["day"].to_pylist() == [0, 1, None, 3, 4]
    names = [path.name for path in folder.rglob("*.tfrecord")]
    assert not [name for name in names if "day=2" in name]
    assert [name for name in names if "day=1" in name]


def test_all_rows_can_be_forgotten(folder: Path) -> None:
    """What is left answers questions, and takes new rows."""
    after = tfstream.forget(folder, where="id >= 0")
    assert (after.rows, after.where("id > 3 and word = 'word-1'").rows) == (0, 0)
    assert list(check_dataset(after.subset.catalog)) == []
    source = Path(open_catalog(folder).manifest.root) / "2.parquet"
    pq.write_table(table().slice(0, 3), source)
    again = tfstream.append(source, folder)
    source.unlink()
    assert sorted(rows_by_id(again)) == [0, 1, 2]


def test_an_append_follows(folder: Path) -> None:
    """New rows come behind; what was forgotten stays so."""
    middle = tfstream.forget(folder, where=f"id = {SECRET}")
    more = table().slice(0, 3).set_column(0, "id", pa.array([100, 101, 102]))
    pq.write_table(more, folder.parent / "2.parquet")
    manifest = folder / "manifest.json"
    root = open_catalog(folder).manifest.root
    shutil.copy(folder.parent / "2.parquet", Path(root) / "2.parquet")
    after = tfstream.append(Path(root) / "2.parquet", folder)
    (Path(root) / "2.parquet").unlink()
    assert manifest.exists()
    assert set(rows_by_id(after)) == (set(range(ROWS)) - {SECRET}) | {100, 101, 102}
    assert list(check_dataset(after.subset.catalog)) == []
    assert tfstream.open(folder, digest=middle.digest).rows == ROWS - 1
    again = tfstream.forget(folder, where="id = 100")
    assert set(rows_by_id(again)) == (set(range(ROWS)) - {SECRET}) | {101, 102}
    assert list(check_dataset(again.subset.catalog)) == []


def test_what_is_forgotten_already_changes_nothing(folder: Path) -> None:
    """The digest stays, and so do the files."""
    first = tfstream.forget(folder, row_ids=[3, 4])
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    again = tfstream.forget(folder, row_ids=[4])
    assert again.digest == first.digest
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == files


@pytest.mark.parametrize("stop", range(8))
def test_killed_at_any_write_it_is_before_or_after(
    folder: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the same call again comes to the end."""

    class Killed(BaseException):
        pass

    before, calls = tfstream.open(folder).digest, 0
    publishing, remove = storage.publishing, forgetting._remove_unnamed

    def counted(*args: object, **more: object) -> object:
        nonlocal calls
        calls += 1
        if calls > stop:
            raise Killed
        return publishing(*args, **more)

    def removing(path: Path) -> None:
        if stop == 7 and open_catalog(path).digest != before:
            raise Killed
        remove(path)

    monkeypatch.setattr(storage, "publishing", counted if stop < 7 else publishing)
    monkeypatch.setattr(forgetting, "_remove_unnamed", removing)
    with pytest.raises(Killed):
        tfstream.forget(folder, where=f"id = {SECRET}")
    monkeypatch.undo()
    found = tfstream.open(folder)
    assert (found.digest == before) is (stop < 7)
    assert found.rows == ROWS - (stop == 7)
    tfstream.forget(folder, where=f"id = {SECRET}")
    assert holding(folder, needles(SECRET)) == []
    assert list(check_dataset(open_catalog(folder))) == []


def test_a_damaged_shard_is_not_made_worse(folder: Path) -> None:
    """The block is named, and nothing is changed."""
    catalog = open_catalog(folder)
    path = catalog.shard_path(0)
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptionError, match=path.name):
        tfstream.forget(folder, row_ids=[0])
    assert open_catalog(folder).digest == catalog.digest


def test_runs_say_that_rows_were_forgotten(folder: Path, tmp_path: Path) -> None:
    """The command names runs and models beforehand; `verify` says when, not that it is damaged."""
    shards = tfstream.open(folder)
    stream = shards.stream(
        batch_size=8, features=["big"], label="day", options=tfstream.StreamOptions(packed=True)
    )
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    run = tmp_path / "runs" / "one"
    callback = tfstream.LineageCallback(run, stream)
    model.fit(stream.dataset(), epochs=2, verbose=0, callbacks=[callback])
    model.save(run / "last.keras")
    asked = ["forget", str(folder), "--where", f"id = {SECRET}", "--runs", str(tmp_path / "runs")]
    told = CliRunner().invoke(cli.app, [*asked, "--dry-run"])
    assert told.exit_code == 0, told.output
    text = " ".join(told.output.split())
    assert "1 rows in 1 shards" in text
    assert "2 steps" in text
    assert "last.keras" in text
    assert "0.parquet" in text
    assert tfstream.open(folder).digest == shards.digest
    refused = CliRunner().invoke(cli.app, asked, input="n\n")
    assert refused.exit_code == 1
    assert tfstream.open(folder).digest == shards.digest
    done = CliRunner().invoke(cli.app, [*asked, "--yes"])
    assert done.exit_code == 0, done.output
    shown = CliRunner().invoke(cli.app, ["inspect", str(folder)])
    assert "1 of them were forgotten on" in shown.output
    (finding,) = tfstream.open_run(run).verify()
    assert "were forgotten on" in finding.what


def test_what_a_stopped_conversion_left_is_cleared_up_first(folder: Path) -> None:
    """Its run files hold rows, too: nothing is forgotten while they lie there."""
    left = folder / ".tmp" / "purpose" / "runs" / "000.arrow"
    left.parent.mkdir(parents=True)
    left.write_bytes(needles(SECRET)[0])
    digest = open_catalog(folder).digest
    with pytest.raises(ResumeError, match="has not come to its end"):
        tfstream.forget(folder, where=f"id = {SECRET}")
    assert open_catalog(folder).digest == digest
    shutil.rmtree(folder / ".tmp")
    tfstream.forget(folder, where=f"id = {SECRET}")
    assert holding(folder, needles(SECRET)) == []


def test_a_run_from_before_an_earlier_forgetting_is_named(folder: Path, tmp_path: Path) -> None:
    """It cannot be asked any more, but may have seen the rows; a checkpoint of ours is named."""
    stream = tfstream.open(folder).stream(batch_size=8, features=["big"], label="day")
    for name in ("one", "two"):
        if name == "two":
            stream = tfstream.forget(folder, row_ids=[0]).stream(
                batch_size=8, features=["big"], label="day"
            )
        run = tmp_path / "runs" / name
        callback = tfstream.LineageCallback(run, stream)
        callback.begin()
        for _ in stream.dataset():
            callback.step()
        callback.close()
        (run / "checkpoint").write_bytes(b"")
    catalog = open_catalog(folder)
    found = [str(one) for one in witnesses([tmp_path / "runs"], catalog, np.array([5]))]
    assert ["were forgotten on" in text for text in found] == [True, False]
    assert f"look at {tmp_path / 'runs' / 'two' / 'checkpoint'}" in found[1]


def test_sources_at_a_url_are_named_as_such(folder: Path) -> None:
    """With both slashes."""
    found = forgetting.planned(folder, where=None, row_ids=[1])
    manifest = replace(found.catalog.manifest, root="s3://bucket/in")
    there = replace(found, catalog=replace(found.catalog, manifest=manifest))
    assert there.sources == ["s3://bucket/in/0.parquet", "s3://bucket/in/1.parquet"]


@pytest.mark.parametrize("scheme", ["memory", "s3"])
def test_no_block_in_the_cache_has_the_values(
    scheme: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Of whatever copy it was, and of a dead process; blocks of other shards stay."""
    url = f"memory://{tmp_path.name}"
    if scheme == "s3":
        url = f"{request.getfixturevalue('bucket')}/x"
    for name in storage.below(folder):
        remote.put_file(f"{url}/{name}", folder / name)
    cache = tmp_path / "cache"
    monkeypatch.setenv("TFSTREAM_CACHE", str(cache))
    catalog = open_catalog(storage.place(url))
    reading = BlockCache(catalog, cache, 1 << 30)
    blocks = range(len(catalog.block_shard))
    reading.hand_out(blocks, "all")
    # As a process that was killed leaves its folder: without anybody who holds the lock.
    dead = reading.used.with_name("dead")
    shutil.copytree(reading.used, dead)
    dead.with_suffix(".lock").touch()
    found = {line.split(": ")[0].split("/")[0] for line in holding(cache, needles(SECRET))}
    assert found == {"blocks", "in-use"}
    planned = forgetting.planned(folder, where=f"id = {SECRET}", row_ids=None)
    lost = int(np.isin(catalog.block_shard, planned.shards).sum())
    assert forgetting.forget(planned) == (lost, 1)
    assert [p.name for p in (cache / "in-use").glob("*.lock")] == [f"{reading.used.name}.lock"]
    reading.close()
    assert holding(cache, needles(SECRET)) == []
    assert len(list((cache / "blocks").glob("*/*"))) == len(blocks) - lost > 0


def test_a_block_that_cannot_be_removed_is_an_error(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is changed."""
    catalog = open_catalog(folder)
    monkeypatch.setenv("TFSTREAM_CACHE", str(tmp_path))
    sha256 = catalog.shards["sha256"][0].as_py()
    (block_cache._place(tmp_path, sha256, 0) / "in the way").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"cannot remove blocks in .*; remove the folder"):
        tfstream.forget(folder, row_ids=[0])
    assert open_catalog(folder).digest == catalog.digest


def test_the_command_tells_of_caches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it removed from which folder, and that there may be others."""
    monkeypatch.setenv("TFSTREAM_CACHE", str(folder.parent / "cache"))
    asked = ["forget", str(folder), "--row-id", "3", "--yes"]
    text = " ".join(CliRunner().invoke(cli.app, asked).output.split())
    assert f"0 blocks removed from the cache {folder.parent / 'cache'}" in text
    assert "such folders of others, or of other machines" in text
    assert not (folder.parent / "cache").exists()


def test_what_cannot_be_forgotten_is_refused(folder: Path) -> None:
    """With what to do."""
    for arguments, message in (
        ({}, "give either a condition or row ids"),
        ({"row_ids": [ROWS]}, "row ids go from 0 to 59, there is no 60"),
        ({"where": "nothing = 1"}, "there is no column 'nothing'"),
    ):
        with pytest.raises(UsageError, match=message):
            tfstream.forget(folder, **arguments)
    tfstream.forget(folder, row_ids=[0])
    (index_files.path_of(folder, 1, "statistics", 1)).write_bytes(b"damaged")
    with pytest.raises(UsageError, match="were forgotten on"):
        tfstream.repair(folder)
