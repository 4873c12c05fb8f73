"""Streams over data sets behind URLs: the same batches, through blocks kept on this machine."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import tfstream
from tests import streams
from tfstream import remote, storage
from tfstream.errors import CorruptionError, StorageError
from tfstream.format import reader
from tfstream.format.block_cache import BlockCache, requests
from tfstream.format.manifest import Catalog

LIMIT = 1 << 30


def in_time(call: Callable[[], Any], seconds: float = 90) -> Any:
    """What a call returns or raises; if it does not end, the test does."""
    ended: Queue[Any] = Queue()

    def work() -> None:
        try:
            ended.put((call(), None))
        except BaseException as error:  # noqa: BLE001 - raised below
            ended.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    found, error = ended.get(timeout=seconds)
    if error is not None:
        raise error
    return found


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> tfstream.Shards:
    """A data set on this machine."""
    return streams.converted(tmp_path_factory.mktemp("local"), streams.table())


def published(shards: tfstream.Shards, url: str) -> str:
    """The URL, once a local data set is there."""
    folder = Path(str(shards.subset.catalog.folder))
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            remote.put_file(f"{url}/{path.relative_to(folder)}", path)
    return url


@pytest.fixture
def url(local: tfstream.Shards, bucket: str) -> str:
    """The same on an S3 server."""
    return published(local, f"{bucket}/x")


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


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that answers requests for ranges no more."""

    def answer(place: str, *_: int) -> bytes:
        raise StorageError(f"cannot read {place}: 7 tries, the last ended with OSError: reset")

    monkeypatch.setattr(remote, "read_range", answer)


@pytest.fixture
def memory(local: tfstream.Shards) -> str:
    """The data set of `local` in fsspec's memory."""
    return published(local, "memory://streams")


def stream_of(shards: tfstream.Shards, cache: Path, **options: Any) -> tfstream.Stream:
    """Small windows."""
    made = tfstream.StreamOptions(packed=True, window_rows=128, cache=cache, **options)
    return shards.stream(batch_size=32, features=["f", "d", "i"], label="y", seed=3, options=made)


REFUSED = (
    r"StorageError: cannot read memory://streams/shards/.*\.tfrecord: 7 tries, the last ended with "
    "OSError: reset"
)


@pytest.mark.usefixtures("refused")
def test_a_block_that_cannot_be_had_stops_the_pass(memory: str, tmp_path: Path) -> None:
    """With the object, the tries and the cause; in either order of what is given up."""
    stream = stream_of(tfstream.open(memory), tmp_path)

    def given_up(*, iterator_first: bool) -> None:
        held = [stream.dataset()]
        held.append(iter(held[0]))
        with pytest.raises(tf.errors.InvalidArgumentError, match=REFUSED):
            next(held[1])
        held.pop(iterator_first)
        gc.collect()

    for iterator_first in (True, False):
        in_time(lambda first=iterator_first: given_up(iterator_first=first))


@pytest.mark.usefixtures("refused")
def test_a_fit_ends_with_the_same_error(memory: str, tmp_path: Path) -> None:
    """In `model.fit`."""
    dataset = stream_of(tfstream.open(memory), tmp_path).dataset()
    model = tf.keras.Sequential([tf.keras.layers.Dense(1)])
    model.compile(loss="mse")
    with pytest.raises(tf.errors.InvalidArgumentError, match=REFUSED):
        in_time(lambda: model.fit(dataset, epochs=2, verbose=0))


@pytest.mark.slow
def test_many_passes_that_are_given_up(memory: str, tmp_path: Path) -> None:
    """Each next one is whole; when the dataset goes, so does all that it had handed out."""
    stream = stream_of(tfstream.open(memory), tmp_path, prefetch=1, parallelism=1)

    def passes() -> None:
        dataset = stream.dataset(epochs=range(2))
        whole = [batch[1].numpy().tobytes() for batch in dataset]
        for _ in range(10):
            assert next(iter(dataset))[1].numpy().tobytes() == whole[0]
        assert [batch[1].numpy().tobytes() for batch in dataset] == whole
        many = stream.dataset(epochs=range(4))
        open_ones = [iter(many) for _ in range(9)]
        for iterator in open_ones:
            next(iterator)
        with pytest.raises(tf.errors.InvalidArgumentError, match="more than 8 iterators"):
            list(open_ones[0])

    in_time(passes)
    gc.collect()
    until = time.monotonic() + 30
    while list((tmp_path / "in-use").iterdir()):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_checkpoint_of_an_iterator_goes_on(memory: str, tmp_path: Path) -> None:
    """In another dataset of the same stream."""
    stream = stream_of(tfstream.open(memory), tmp_path / "cache")

    def restored() -> None:
        dataset = stream.dataset(epochs=range(1))
        whole = [batch[1].numpy().tobytes() for batch in dataset]
        iterator = iter(dataset)
        for _ in range(9):
            next(iterator)
        path = tf.train.Checkpoint(it=iterator).write(str(tmp_path / "it"))
        other = iter(stream.dataset(epochs=range(1)))
        tf.train.Checkpoint(it=other).read(path).assert_consumed()
        assert [batch[1].numpy().tobytes() for batch in other] == whole[9:]

    in_time(restored)


def test_another_process_is_told_why_it_cannot_read(memory: str, tmp_path: Path) -> None:
    """As the workers of a tf.data service."""
    dataset = stream_of(tfstream.open(memory), tmp_path).dataset(epochs=range(1))
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer()
    address = dispatcher.target.split("://")[1]
    worker = service.WorkerServer(service.WorkerConfig(dispatcher_address=address))
    served = dataset.apply(service.distribute("parallel_epochs", dispatcher.target))
    with pytest.raises(tf.errors.NotFoundError, match="by the process that made it"):
        in_time(lambda: list(served))
    del worker


def test_the_log_says_how_a_data_set_is_read(
    local: tfstream.Shards, memory: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line, behind a URL."""
    with caplog.at_level(logging.INFO, "tfstream"):
        stream_of(local, tmp_path).dataset()
        assert caplog.messages == []
        stream_of(tfstream.open(memory), tmp_path).dataset()
    assert caplog.messages == [
        f"memory://streams is read through {tmp_path}, where its blocks are checked and kept"
    ]


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


@pytest.mark.parametrize("fits", [True, False])
def test_what_lies_between_comes_along_if_the_cache_has_room_for_all(
    local: tfstream.Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fits: bool
) -> None:
    """So there are fewer requests, and still each byte comes once."""
    catalog, read_range, sizes = local.subset.catalog, storage.read_range, list[int]()

    def counted(path: storage.Place, offset: int, size: int) -> bytes:
        sizes.append(size)
        return read_range(path, offset, size)

    monkeypatch.setattr(storage, "read_range", counted)
    whole, number = int(catalog.block_size.sum()), len(catalog.block_size)
    blocks = np.random.default_rng(3).permutation(number)
    windows, every = np.array_split(blocks, 3), np.arange(number)
    cache = BlockCache(catalog, tmp_path, whole - (not fits), every)
    for name, window in enumerate(windows):
        cache.hand_out(window, str(name))
        found = {int(path.name) for path in (cache.used / str(name)).iterdir()}
        assert found == set(window.tolist())
    cache.close()
    assert sum(sizes) == whole
    apart = sum(len(list(requests(catalog, sorted(w.tolist()), lambda _: False))) for w in windows)
    assert len(sizes) < apart if fits else len(sizes) == apart


def test_a_damaged_block_that_came_along_stops_only_those_who_want_it(
    local: tfstream.Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not kept; what was asked for is."""
    catalog, read_range = local.subset.catalog, storage.read_range
    shard = int(catalog.block_shard[1])
    first, victim, last = np.flatnonzero(catalog.block_shard == shard)[:3].tolist()

    def damaged(path: storage.Place, offset: int, size: int) -> bytes:
        data = bytearray(read_range(path, offset, size))
        place = int(catalog.block_offset[victim]) - offset + 30
        if path == catalog.shard_path(shard) and 0 <= place < len(data):
            data[place] ^= 1
        return bytes(data)

    monkeypatch.setattr(storage, "read_range", damaged)
    cache = BlockCache(catalog, tmp_path, LIMIT, np.arange(len(catalog.block_size)))
    cache.hand_out([first, last], "one")
    assert {path.name for path in (cache.used / "one").iterdir()} == {str(first), str(last)}
    with pytest.raises(CorruptionError, match=f"block {victim}, rows"):
        cache.hand_out([victim], "other")
    cache.close()


def test_a_block_is_checked_once_until_its_bytes_change(
    local: tfstream.Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a process; another one checks what it finds."""
    catalog, check, checked = local.subset.catalog, reader.check, list[int]()

    def counted(of: Catalog, block: int, framed: bytes) -> None:
        checked.append(block)
        check(of, block, framed)

    monkeypatch.setattr(reader, "check", counted)
    every = list(range(len(catalog.block_size)))
    cache, other = (BlockCache(catalog, tmp_path, LIMIT) for _ in range(2))
    for name, using in enumerate((cache, cache, other, other, cache)):
        using.hand_out(every, str(name))
    assert sorted(checked) == sorted(2 * every)
    victim = next((tmp_path / "blocks").glob("*/*"))
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    cache.hand_out(every, "last")
    assert len(checked) == 2 * len(every) + 2  # what is there, and what comes in its place
    cache.close()
    other.close()


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
    # Of one that died before its lock had the last name.
    (tmp_path / "in-use" / "dead.draft").touch()
    BlockCache(catalog, tmp_path, LIMIT).close()
    left = {path.name for path in (tmp_path / "in-use").iterdir()}
    assert left == {living.used.name, f"{living.used.name}.lock"}
    living.close()
    shutil.rmtree(tmp_path)
