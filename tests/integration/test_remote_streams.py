"""Streams over data sets behind URLs: the same batches, through blocks kept on this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfstream
from tests import streams
from tfstream import remote
from tfstream.errors import CorruptionError, StorageError
from tfstream.format.block_cache import BlockCache

LIMIT = 1 << 30


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> tfstream.Shards:
    """A data set on this machine."""
    return streams.converted(tmp_path_factory.mktemp("local"), streams.table())


@pytest.fixture
def url(local: tfstream.Shards, bucket: str) -> str:
    """The same on an S3 server."""
    folder = Path(str(local.subset.catalog.folder))
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            remote.put_file(f"{bucket}/x/{path.relative_to(folder)}", path)
    return f"{bucket}/x"


def batches(shards: tfstream.Shards, epochs: range, **options: Any) -> list[np.ndarray]:
    """All batches of some epochs, from small windows."""
    stream = shards.stream(
        batch_size=32,
        features=["f", "d", "i"],
        label="y",
        seed=3,
        options=tfstream.StreamOptions(packed=True, window_rows=128, **options),
    )
    found = [
        np.concatenate([np.ravel(part) for part in batch])
        for _ in epochs
        for batch in stream.dataset(epochs=epochs)
    ]
    dataset = stream.dataset()
    return found + [
        np.concatenate([np.ravel(p) for p in batch]) for _ in epochs for batch in dataset
    ]


def equal(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    """Byte for byte."""
    return [a.tobytes() for a in one] == [b.tobytes() for b in other]


def test_batches_are_those_of_local_reading(
    local: tfstream.Shards, url: str, tmp_path: Path
) -> None:
    """Byte for byte, with and without state, and where steps are left out."""
    shards = tfstream.open(url)
    for options in ({}, {"skip_steps": [2, range(4, 14)]}):
        expected = batches(local, range(2), **options)
        assert equal(expected, batches(shards, range(2), cache=tmp_path, **options))
    assert len(list((tmp_path / "blocks").glob("*/*"))) == len(local.subset.blocks)


def test_a_second_pass_reads_from_disk(
    local: tfstream.Shards, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for a block that was damaged there, which is fetched again."""
    shards = tfstream.open(url)
    expected = batches(shards, range(1), cache=tmp_path)
    victim = min((tmp_path / "blocks").glob("*/*"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    asked, read_range = [], remote.read_range

    def counted(*place: Any) -> bytes:
        asked.append(place)
        return read_range(*place)

    monkeypatch.setattr(remote, "read_range", counted)
    assert equal(expected, batches(shards, range(1), cache=tmp_path))
    assert len(asked) == 1
    assert victim.read_bytes() != bytes(data)


def test_a_block_that_cannot_be_had_stops_the_pass(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the store's answer."""
    shards = tfstream.open(url)

    def refused(place: str, *_: int) -> bytes:
        raise StorageError(f"cannot read {place}: 7 tries")

    monkeypatch.setattr(remote, "read_range", refused)
    with pytest.raises(Exception, match=r"StorageError: cannot read s3://.*: 7 tries"):
        batches(shards, range(1), cache=tmp_path)


def test_a_block_that_arrives_damaged_is_fetched_again(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three times, then it is an error; nothing damaged is kept."""
    catalog = tfstream.open(url).subset.catalog
    cache, read_range, calls = BlockCache(catalog, tmp_path, LIMIT), remote.read_range, [0]

    def damaged(place: str, offset: int, size: int) -> bytes:
        calls[0] += 1
        data = bytearray(read_range(place, offset, size))
        data[size // 2] ^= calls[0] <= limit
        return bytes(data)

    monkeypatch.setattr(remote, "read_range", damaged)
    limit = 3
    with pytest.raises(CorruptionError, match="block 5"):
        cache.hand_out([5], "a")
    assert list((tmp_path / "blocks").glob("*/*")) == []
    calls[0], limit = 0, 2
    cache.hand_out([5], "b")
    assert (cache.used / "b" / "5").stat().st_size == catalog.block_size[5]
    cache.close()


def test_the_least_recently_used_go_and_what_is_in_use_stays(
    local: tfstream.Shards, tmp_path: Path
) -> None:
    """Within the limit, though another process has them."""
    catalog = local.subset.catalog
    limit = int(catalog.block_size[:10].sum())
    one, other = (BlockCache(catalog, tmp_path, limit) for _ in range(2))
    one.hand_out(range(5), "first")
    for block in range(5, 30):
        other.hand_out([block], str(block))
        kept = list((tmp_path / "blocks").glob("*/*"))
        assert sum(path.stat().st_size for path in kept) <= limit
    for block in range(5):
        assert (one.used / "first" / str(block)).stat().st_size == catalog.block_size[block]
    one.close()
    other.close()
    assert list((tmp_path / "in-use").iterdir()) == []


def test_the_folder_of_a_dead_process_is_cleared_up(local: tfstream.Shards, tmp_path: Path) -> None:
    """And that of one that lives is not; half a file never has a block's name."""
    catalog = local.subset.catalog
    living = BlockCache(catalog, tmp_path, LIMIT)
    pid = os.fork()
    if pid == 0:
        BlockCache(catalog, tmp_path, LIMIT)
        os._exit(0)
    os.waitpid(pid, 0)
    assert len(list((tmp_path / "in-use").glob("*.lock"))) == 2
    BlockCache(catalog, tmp_path, LIMIT).close()
    assert list((tmp_path / "in-use").glob("*.lock")) == [living.used.with_suffix(".lock")]
    living.close()
    shutil.rmtree(tmp_path)
