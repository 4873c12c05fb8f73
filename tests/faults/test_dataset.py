"""A data set whose files are not what was written."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tfstream
from tfstream import storage
from tfstream.errors import CorruptionError, DataError, StorageError, TfstreamError, UsageError
from tfstream.format.check import check_dataset
from tfstream.format.document import FORMAT
from tfstream.format.manifest import MANIFEST, document_sha256, write_index

ROWS = 600


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of a few blocks in several shards, with nulls and strings."""
    folder: Path = tmp_path_factory.mktemp("faults")
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "g": rng.integers(0, 4, ROWS),
            "x": pa.array(rng.normal(size=ROWS), mask=rng.random(ROWS) < 0.1),
            "s": pa.array(rng.choice(["a", "b"], ROWS)),
            "raw": pa.array([rng.bytes(3) for _ in range(ROWS)]),
        }
    )
    pq.write_table(table, folder / "a.parquet")
    options = tfstream.ConvertOptions(block_rows=50)
    tfstream.convert(folder / "a.parquet", folder / "out", group_by=["g"], options=options)
    return folder / "out"


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(original, tmp_path / "out"))


def read_all(folder: Path) -> pa.Table:
    """Every value of a data set."""
    return tfstream.open(folder).take(np.arange(ROWS))


def sign(folder: Path, document: dict[str, object]) -> None:
    """Publish a manifest with the right hash of itself, as a stranger may."""
    document["manifest_sha256"] = document_sha256(document)
    (folder / MANIFEST).write_text(json.dumps(document))


def test_any_flipped_bit_of_a_shard_is_found(original: Path, copy: Path) -> None:
    """Wherever it is, reading all rows, and a check, name the shard."""
    expected = read_all(original)
    shards = sorted((copy / "shards").rglob("*.tfrecord"))
    rng = random.Random(0)
    for _ in range(100):
        path = rng.choice(shards)
        whole = path.read_bytes()
        damaged = bytearray(whole)
        bit = rng.randrange(len(whole) * 8)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(CorruptionError, match=path.name):
            read_all(copy)
        assert [f.where for f in check_dataset(tfstream.open(copy).subset.catalog)] == [
            str(path.relative_to(copy))
        ]
        path.write_bytes(whole)
    assert read_all(copy).equals(expected)


def test_swapped_shards_are_found(copy: Path) -> None:
    """A whole shard under the name of another has valid CRCs and another token."""
    one, other, *_ = sorted((copy / "shards").rglob("*.tfrecord"))
    one_bytes, other_bytes = one.read_bytes(), other.read_bytes()
    one.write_bytes(other_bytes)
    other.write_bytes(one_bytes)
    with pytest.raises(CorruptionError, match=one.name):
        read_all(copy)
    found = {f.where for f in check_dataset(tfstream.open(copy).subset.catalog)}
    assert found == {path.relative_to(copy).as_posix() for path in (one, other)}


def test_a_missing_shard_is_named(copy: Path) -> None:
    """Not there is another error than damaged."""
    path = next((copy / "shards").rglob("*.tfrecord"))
    path.unlink()
    with pytest.raises(StorageError, match=f"^cannot read {path}: No such file or directory$"):
        read_all(copy)


def test_a_truncated_shard_is_named(copy: Path) -> None:
    """The last block is missed as soon as one byte of it is."""
    path = next((copy / "shards").rglob("*.tfrecord"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptionError, match=path.name):
        read_all(copy)


@pytest.mark.parametrize("name", ["blocks", "groups", "shards", "sources", "vocabularies"])
def test_a_changed_index_is_not_opened(copy: Path, name: str) -> None:
    """A row more in any table of the index is another file, and another digest."""
    path = copy / "index" / f"{name}.parquet"
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), path)
    with pytest.raises(CorruptionError, match="its SHA-256 differs"):
        tfstream.open(copy)
    document = json.loads((copy / MANIFEST).read_text())
    document["index_sha256"][name] = storage.sha256(path)
    sign(copy, document)
    with pytest.raises(CorruptionError, match="its digest differs"):
        tfstream.open(copy)


def test_any_damage_to_the_index_ends_in_an_error_of_ours(original: Path, copy: Path) -> None:
    """Bytes at random in index or manifest: an error that says so, or no value has changed."""
    rng = random.Random(1)
    expected = tfstream.open(original)
    paths = [copy / "manifest.json", *sorted((copy / "index").iterdir())]
    for _ in range(300):
        path = rng.choice(paths)
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            opened = tfstream.open(copy)
        except TfstreamError:
            pass
        else:
            assert opened.digest == expected.digest
            assert opened.subset.catalog.blocks.equals(expected.subset.catalog.blocks)
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"schema": [{"name": "a"}]},
            (
                "expected a list of columns, each name once, found [{{'name': 'a'}}]. "
                "Where: {path}: schema"
            ),
        ),
        ({"digest": None}, "expected a SHA-256, found None. Where: {path}: digest"),
        ({"rows": -1}, "expected a number, found -1. Where: {path}: rows"),
        ({"more": 1}, f"format {FORMAT} has no field 'more'. Where: {{path}}"),
    ],
)
def test_a_manifest_with_a_wrong_field_is_refused(
    copy: Path, change: dict[str, object], message: str
) -> None:
    """The error carries the path of the field."""
    path = copy / "manifest.json"
    sign(copy, json.loads(path.read_text()) | change)
    with pytest.raises(DataError) as caught:
        tfstream.open(copy)
    assert str(caught.value) == message.format(path=path)


def test_a_type_that_no_data_set_has_is_refused(copy: Path) -> None:
    """The types of a manifest are a closed list."""
    path = copy / "manifest.json"
    document = json.loads(path.read_text())
    document["schema"][0]["type"] = "list<int64>"
    sign(copy, document)
    with pytest.raises(DataError, match="^'list<int64>' is not a column type of this format$"):
        tfstream.open(copy)


def test_a_manifest_that_is_not_json_is_refused(copy: Path) -> None:
    """Another file under that name is no manifest."""
    (copy / "manifest.json").write_bytes(b"\x00hello")
    with pytest.raises(DataError, match="^the manifest is not JSON: "):
        tfstream.open(copy)


def test_a_folder_without_a_manifest_is_no_data_set(tmp_path: Path) -> None:
    """The message says what to give."""
    with pytest.raises(UsageError) as caught:
        tfstream.open(tmp_path)
    assert str(caught.value) == (
        f"there is no data set in {tmp_path}: {tmp_path / 'manifest.json'} does not exist; "
        "give convert's output"
    )


def test_changed_provenance_is_found(copy: Path) -> None:
    """Another source row for a row is found by the check."""
    path = next((copy / "provenance" / "by-row").rglob("*.parquet"))
    table = pq.read_table(path)
    changed = table.set_column(1, "source_row", pa.compute.add(table["source_row"], 1))
    pq.write_table(changed, path)
    found = list(check_dataset(tfstream.open(copy).subset.catalog))
    assert len(found) == 1
    assert found[0].where.startswith("provenance of ")


@pytest.mark.parametrize("path", ["../x.tfrecord", "/x.tfrecord", "shards/../../x.tfrecord"])
def test_a_path_that_leads_out_of_the_folder_is_refused(copy: Path, path: str) -> None:
    """A whole index from a stranger, its digest right, still names files inside its folder only."""
    catalog = tfstream.open(copy).subset.catalog
    paths = [path, *catalog.shards["path"].to_pylist()[1:]]
    document = write_index(
        copy,
        catalog.manifest,
        shards=catalog.shards.set_column(0, "path", pa.array(paths)),
        blocks=catalog.blocks,
        groups=catalog.groups,
        sources=catalog.sources,
        vocabularies={name: v.to_pylist() for name, v in catalog.vocabularies.items()},
        statistics=catalog.statistics,
        vocabulary_counts=catalog.vocabulary_counts,
    )
    storage.publish(copy / MANIFEST, document)
    with pytest.raises(DataError) as caught:
        tfstream.open(copy)
    assert str(caught.value) == (
        f"{path!r} is not a path inside the data set. Where: {copy / 'index' / 'shards.parquet'}"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("size_bytes", 1 << 60), ("offset", 1 << 62), ("offset", -1), ("shard", 99), ("rows", 0)],
)
def test_an_index_whose_blocks_lie_outside_is_refused(copy: Path, name: str, value: int) -> None:
    """A stranger's index, its hashes right, does not make room for what no shard has."""
    catalog = tfstream.open(copy).subset.catalog
    place = catalog.blocks.schema.get_field_index(name)
    values = [value, *catalog.blocks[name].to_pylist()[1:]]
    changed = pa.array(values, catalog.blocks.schema.field(name).type)
    document = write_index(
        copy,
        catalog.manifest,
        shards=catalog.shards,
        blocks=catalog.blocks.set_column(place, name, changed),
        groups=catalog.groups,
        sources=catalog.sources,
        vocabularies={name: v.to_pylist() for name, v in catalog.vocabularies.items()},
        statistics=catalog.statistics,
        vocabulary_counts=catalog.vocabulary_counts,
    )
    storage.publish(copy / MANIFEST, document)
    with pytest.raises(DataError, match="^block [01] does not follow on the one before, or lies"):
        tfstream.open(copy)


def test_a_manifest_of_many_brackets_is_refused(copy: Path) -> None:
    """Nesting that Python's parser gives up on is no traceback."""
    (copy / MANIFEST).write_text("[" * 100_000)
    with pytest.raises(DataError, match="^the manifest is not JSON: "):
        tfstream.open(copy)


def test_a_link_out_of_the_folder_is_refused(copy: Path, tmp_path: Path) -> None:
    """A shard that is a link elsewhere is neither read nor streamed, and verify tells."""
    shards = tfstream.open(copy)
    path = shards.subset.catalog.shard_path(0)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="elsewhere, outside the data set"):
        shards.take([0])
    with pytest.raises(DataError, match="elsewhere, outside the data set"):
        shards.stream(batch_size=8, features=["x"]).dataset()
    (finding,) = check_dataset(shards.subset.catalog)
    assert "outside the data set" in finding.what
    assert finding.shard == 0
