"""Objects behind URLs: on an S3 server over HTTP, and in memory."""

from __future__ import annotations

import hashlib
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests import object_store
from tfstream import remote, storage
from tfstream.errors import StorageError, UsageError


@pytest.fixture(params=["s3", "memory"])
def home(request: pytest.FixtureRequest) -> str:
    """A URL below which there is nothing."""
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/home"
    return f"memory://{uuid.uuid4().hex}/home"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waits between tries."""
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0)


def test_what_is_put_is_read(home: str) -> None:
    """Whole, in ranges, by hash and size; a second put takes its place; what is deleted is gone."""
    url, data = remote.join(home, "a/b"), bytes(range(256)) * 5
    assert not remote.exists(url)
    assert remote.state(url) is None
    remote.put(url, data)
    assert remote.exists(url)
    assert not remote.exists(home)
    assert remote.read(url) == data
    assert remote.read_range(url, 7, 500) == data[7:507]
    assert remote.read_range(url, 0, 0) == b""
    assert remote.size(url) == len(data)
    assert remote.sha256(url) == hashlib.sha256(data).hexdigest()
    before = remote.state(url)
    assert before == remote.state(url)
    remote.put(url, data[::-1])
    assert remote.state(url) != before
    assert remote.read(url) == data[::-1]
    remote.delete(url)
    remote.delete(url)
    assert not remote.exists(url)


def test_a_local_file_is_put(home: str, tmp_path: Path) -> None:
    """Byte for byte."""
    (tmp_path / "x").write_bytes(b"0123456789" * 1000)
    remote.put_file(remote.join(home, "x"), tmp_path / "x")
    assert remote.read(remote.join(home, "x")) == (tmp_path / "x").read_bytes()


def test_listings_are_sorted_and_relative(home: str) -> None:
    """Folders are no objects, and what is beside is not below."""
    for name in ("b/c", "a", "b/d.x"):
        remote.put(remote.join(home, name), name.encode())
    remote.put(f"{home}-2/x", b"")
    assert remote.below(home) == {"a": 1, "b/c": 3, "b/d.x": 5}
    assert remote.below(remote.join(home, "none")) == {}
    assert remote.matching(remote.join(home, "*/?.x")) == [remote.join(home, "b/d.x")]
    assert remote.matching(remote.join(home, "b/*")) == [
        remote.join(home, "b/c"),
        remote.join(home, "b/d.x"),
    ]


def test_sizes_of_many_objects_are_listed(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are alone are asked for, and so are all where no list can be had."""
    names = [f"many/{i}.x" for i in range(9, -1, -1)] + ["few/a", "few/b/c"]
    for i, name in enumerate(names):
        remote.put(remote.join(home, name), b"x" * i)
    asked, size = list[str](), remote.size

    def counted(url: str) -> int:
        asked.append(url)
        return size(url)

    monkeypatch.setattr(remote, "size", counted)
    folder = storage.place(home)
    assert storage.sizes(folder, names) == list(range(12))
    assert sorted(asked) == [remote.join(home, name) for name in ("few/a", "few/b/c")]
    remote.delete(remote.join(home, "many/3.x"))
    with pytest.raises(StorageError, match=r"many/3\.x: there is no such object"):
        storage.sizes(folder, names)

    def refused(url: str) -> dict[str, int]:
        raise StorageError(f"cannot list {url}: 1 try, the last ended with PermissionError")

    monkeypatch.setattr(remote, "below", refused)
    names.remove("many/3.x")
    assert storage.sizes(folder, names) == [*range(6), *range(7, 12)]


def test_one_of_several_writers_wins(home: str) -> None:
    """Who writes the same once more, since the answer was lost, has won."""
    url = remote.join(home, "lock")
    remote.put(url, b"first", if_absent=True)
    remote.put(url, b"first", if_absent=True)
    with pytest.raises(FileExistsError, match="is there already"):
        remote.put(url, b"second", if_absent=True)
    assert remote.read(url) == b"first"


def test_an_object_that_is_not_there_is_one_try(home: str) -> None:
    """The message names it."""
    url = remote.join(home, "none")
    for call in (remote.read, remote.size, remote.sha256, lambda u: remote.read_range(u, 1, 2)):
        with pytest.raises(StorageError, match=f"^cannot read {url}: there is no such object"):
            call(url)


def _failing(times: int, error: Callable[[], BaseException], inner: Any) -> Any:
    """A function that fails so many times before it does what it does."""
    left = [times]

    def called(*args: Any, **kwargs: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise error()
        return inner(*args, **kwargs)

    return called


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("error", [ConnectionResetError, TimeoutError, OSError, RuntimeError])
def test_what_passes_is_tried_again(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the last try."""
    url = f"memory://{uuid.uuid4().hex}/x"
    remote.put(url, b"abc")
    memory = type(fsspec.filesystem("memory"))
    for times in (1, remote.TRIES - 1):
        with monkeypatch.context() as patch:
            patch.setattr(memory, "cat_file", _failing(times, error, memory.cat_file))
            assert remote.read(url) == b"abc"


@pytest.mark.usefixtures("at_once")
def test_the_last_error_tells_object_tries_and_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no credentials, not in the traceback either."""
    url = "memory://user:secret@home/x?token=secret"
    memory = type(fsspec.filesystem("memory"))

    def error() -> OSError:
        return OSError(f"503 SlowDown at https://user:secret@host/x?sig=secret of {url}")

    monkeypatch.setattr(memory, "cat_file", _failing(remote.TRIES, error, memory.cat_file))
    with pytest.raises(StorageError) as caught:
        remote.read(url)
    assert str(caught.value) == (
        "cannot read memory://home/x: 7 tries, the last ended with OSError: 503 SlowDown at "
        "https://host/x of memory://home/x"
    )
    assert "secret@" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.usefixtures("at_once")
def test_a_short_answer_is_tried_again_and_never_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A range that ends early is an error at last."""
    url = f"memory://{uuid.uuid4().hex}/x"
    remote.put(url, b"0123456789")
    with pytest.raises(StorageError, match="3 bytes at 7 came, 4 were asked for"):
        remote.read_range(url, 7, 4)
    memory = type(fsspec.filesystem("memory"))
    whole, answers = memory.cat_file, [b"", b"7", b"78"]

    def short(self: Any, *args: Any, **kwargs: Any) -> bytes:
        answer: bytes = answers.pop() if answers else whole(self, *args, **kwargs)
        return answer

    monkeypatch.setattr(memory, "cat_file", short)
    assert remote.read_range(url, 7, 3) == b"789"


@pytest.mark.usefixtures("at_once")
def test_a_refused_object_is_one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying again would not help."""
    memory = type(fsspec.filesystem("memory"))
    monkeypatch.setattr(memory, "cat_file", _failing(1, PermissionError, memory.cat_file))
    with pytest.raises(StorageError, match="1 try, the last ended with PermissionError"):
        remote.read("memory://x/y")


@pytest.mark.parametrize(
    ("url", "driver", "extra"), [("gs://b/x", "gcsfs", "gs"), ("az://b/x", "adlfs", "az")]
)
def test_a_missing_driver_is_named(url: str, driver: str, extra: str) -> None:
    """With the command that installs it."""
    with pytest.raises(UsageError) as caught:
        remote.check(url)
    assert str(caught.value) == (
        f"{url[:2]}:// cannot be opened, it needs {driver}: pip install 'tfstream[{extra}]'"
    )


def test_an_unknown_scheme_is_refused() -> None:
    """Without what may be a password in it."""
    with pytest.raises(UsageError, match="^nosuch://host/x is no URL that fsspec knows"):
        remote.read("nosuch://me:secret@host/x")


@pytest.mark.usefixtures("at_once")
def test_a_server_that_is_not_there_is_so_many_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drivers do not multiply the tries by their own."""
    object_store.use("http://127.0.0.1:1", monkeypatch)
    with pytest.raises(StorageError, match="7 tries, the last ended with EndpointConnectionError"):
        remote.read("s3://bucket/x")
