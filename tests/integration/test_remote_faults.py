"""A store that answers badly, over HTTP: nothing short, nothing wrong, or an error that says why."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import pytest

from tests import object_store
from tfstream import remote
from tfstream.errors import StorageError

DATA = bytes(range(256)) * 40
SLOW_DOWN = (
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)


class Store(ThreadingHTTPServer):
    """An S3 of one object, with faults to come, the last one first."""

    daemon_threads = True

    def __init__(self) -> None:
        """On a free port."""
        super().__init__(("127.0.0.1", 0), Answer)
        self.faults: list[str] = []
        self.requests = 0


class Answer(object_store.Answer):
    """Answers to GET and HEAD."""

    server: Store

    def reply(self) -> None:
        """The size, or the object or a range of it, unless a fault comes first."""
        if self.command == "HEAD":
            self.answer(200, b"", len(DATA))
            return
        self.server.requests += 1
        fault = self.server.faults.pop() if self.server.faults else ""
        status, data = self.wanted(DATA)
        if fault == "reset":
            self.close_connection = True
            return
        if fault == "throttle":
            self.answer(503, SLOW_DOWN, len(SLOW_DOWN))
        elif fault == "cut":
            self.answer(status, data[: len(data) // 2], len(data))
            self.close_connection = True
        elif fault == "short":
            # A whole answer as far as HTTP can tell.
            self.answer(status, data[:-1], len(data) - 1)
        else:
            self.answer(status, data, len(data))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store that s3:// reaches; no waits between tries."""
    server = Store()
    with object_store.reached(server, monkeypatch):
        yield server


@pytest.mark.parametrize("fault", ["throttle", "reset", "cut", "short"])
def test_a_range_comes_whole_or_not_at_all(store: Store, fault: str) -> None:
    """After six faults in a row it comes, after seven it is an error; a try is one request."""
    store.faults = [fault] * (remote.TRIES - 1)
    assert remote.read_range("s3://bucket/x", 1000, 5000) == DATA[1000:6000]
    assert store.requests == remote.TRIES
    store.faults, store.requests = [fault] * 100, 0
    with pytest.raises(StorageError, match=r"^cannot read s3://bucket/x: 7 tries, the last ended"):
        remote.read_range("s3://bucket/x", 1000, 5000)
    # aiohttp repeats by itself what it sent on a kept connection that was closed meanwhile.
    assert store.requests == remote.TRIES * (2 if fault == "reset" else 1)


@pytest.mark.parametrize("fault", ["throttle", "reset", "cut"])
def test_a_whole_object_too(store: Store, fault: str) -> None:
    """As far as HTTP tells its length."""
    store.faults = [fault] * (remote.TRIES - 1)
    assert remote.read("s3://bucket/x") == DATA


def test_the_store_s_reason_is_told(store: Store) -> None:
    """That it throttles."""
    store.faults = ["throttle"] * 100
    with pytest.raises(StorageError, match="Please reduce your request rate"):
        remote.read_range("s3://bucket/x", 0, 10)
