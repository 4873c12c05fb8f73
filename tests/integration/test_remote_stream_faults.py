"""Streams from an S3 store with faults, over HTTP: the same batches, or a clean stop."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
import tensorflow as tf

import tfstream
from tests import object_store, streams
from tests.faults.fetch_kill_loop import block_of
from tests.integration.test_remote_streams import in_time, stream_of

KINDS = ("503", "drop", "delay", "truncate", "corrupt")
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Slow down.</Message></Error>"


class Store(ThreadingHTTPServer):
    """The files of a folder, as objects of one bucket."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        """On a free port, without faults."""
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder, self.faults, self.always = folder, list[str](), ""

    def fault(self) -> str:
        """The next request's, or nothing."""
        try:
            return self.always or self.faults.pop()
        except IndexError:
            return ""


class Answer(object_store.Answer):
    """Answers to GET and HEAD."""

    server: Store

    def reply(self) -> None:
        """The size of an object, or it or a range of it, with a fault perhaps."""
        path = self.server.folder / unquote(self.path).split("?")[0].removeprefix(
            "/bucket/x"
        ).lstrip("/")
        if not path.is_file():
            self.answer(404, b"", 0)
            return
        status, data = self.wanted(path.read_bytes())
        length, is_range = len(data), status == HTTPStatus.PARTIAL_CONTENT
        fault = self.server.fault() if "/shards/" in self.path and is_range else ""
        if fault == "503":
            status, data, length = 503, SLOW_DOWN, len(SLOW_DOWN)
        elif fault == "drop":
            self.close_connection = True
            return
        elif fault == "delay":
            time.sleep(0.05)
        elif fault == "truncate":
            data, self.close_connection = data[: length // 2], True
        elif fault == "corrupt":
            data = data[: length // 2] + bytes([data[length // 2] ^ 1]) + data[length // 2 + 1 :]
        self.answer(status, data, length)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A data set in a store that s3://bucket/x reaches; no waits between tries."""
    (tmp_path / "source").mkdir()
    shards = streams.converted(tmp_path / "source", streams.table())
    server = Store(Path(str(shards.subset.catalog.folder)))
    with object_store.reached(server, monkeypatch):
        yield server


def labels(shards: tfstream.Shards, cache: Path) -> list[bytes]:
    """Of two epochs, batch by batch."""
    dataset = stream_of(shards, cache).dataset(epochs=range(2))
    return in_time(lambda: [label.numpy().tobytes() for _, label in dataset])


@pytest.mark.parametrize("seed", [1, 2])
def test_faults_change_no_row(store: Store, tmp_path: Path, seed: int) -> None:
    """Nor their order: none lasts longer than the tries. What came is read with the store down."""
    expected = labels(tfstream.open(store.folder), tmp_path)
    shards = tfstream.open("s3://bucket/x")
    store.faults = random.Random(seed).sample(KINDS * 2, len(KINDS) * 2)
    assert labels(shards, tmp_path / "cache") == expected
    assert store.faults == []
    store.always = "503"
    assert labels(shards, tmp_path / "cache") == expected


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("503", r"StorageError: cannot read s3://bucket/x/shards/.*: 7 tries, .*Slow down"),
        ("drop", r"StorageError: cannot read s3://bucket/x/shards/.*: 7 tries, "),
        ("truncate", r"StorageError: cannot read s3://bucket/x/shards/.*: 7 tries, "),
        ("corrupt", r"CorruptionError: .*s3://bucket/x/shards/.*block \d+"),
    ],
)
def test_a_fault_that_lasts_is_a_clean_stop(
    store: Store, tmp_path: Path, kind: str, message: str
) -> None:
    """And only what is whole is kept; once it is over, the stream is what it always was."""
    shards = tfstream.open("s3://bucket/x")
    store.always = kind
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        labels(shards, tmp_path / "cache")
    catalog = tfstream.open(store.folder).subset.catalog
    whole = [block_of(catalog, store.folder, block) for block in range(len(catalog.block_size))]
    kept = [path.read_bytes() for path in (tmp_path / "cache" / "blocks").glob("*/*")]
    assert all(data in whole for data in kept)
    assert not kept or kind == "corrupt"
    store.always = ""
    assert labels(shards, tmp_path / "cache") == labels(tfstream.open(store.folder), tmp_path)
