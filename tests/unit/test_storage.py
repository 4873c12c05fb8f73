"""Files, published all or nothing."""

import os
from pathlib import Path

import pytest

from tfstream import storage
from tfstream.errors import StorageError, UsageError
from tfstream.remote_path import RemotePath


def test_a_failed_publish_leaves_what_was_there(tmp_path: Path) -> None:
    """An error inside the block leaves the old file and no draft."""
    path = tmp_path / "a"
    storage.publish(path, b"old")
    with pytest.raises(KeyError), storage.publishing(path) as file:
        file.write(b"new")
        raise KeyError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_publish_makes_the_folders(tmp_path: Path) -> None:
    """What is published can be read whole and hashed."""
    path = tmp_path / "a" / "b"
    storage.publish(path, b"abc")
    assert storage.read(path) == b"abc"
    assert (
        storage.sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_a_file_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    """The message names the file."""
    path = tmp_path / "none"
    for read in (storage.read, storage.sha256):
        with pytest.raises(StorageError) as caught:
            read(path)
        assert str(caught.value) == f"cannot read {path}: No such file or directory"


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    """A file where a folder is wanted is named."""
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(StorageError, match="^cannot write .*: "):
        storage.publish(tmp_path / "a" / "b", b"")


def test_a_url_is_no_local_path() -> None:
    """The message says what to give instead, and not the whole URL, which may hold a password."""
    with pytest.raises(UsageError) as caught:
        storage.local_path("memory://user:secret@bucket/x")
    assert str(caught.value) == "memory://bucket/x must lie on this machine; give a local path"


def test_a_url_is_a_place() -> None:
    """Paths stay paths, and so do those that are given as file://."""
    assert storage.place("a/b") == Path("a/b")
    assert storage.place("file:///a/b") == Path("/a/b")
    assert storage.place("memory://a/b/") == RemotePath("memory://a/b")


def test_a_remote_path_has_the_names_of_a_path() -> None:
    """Up and down, and without credentials as a text."""
    path = RemotePath("https://me:secret@host/a") / "b/c.log"
    assert path.url == "https://me:secret@host/a/b/c.log"
    assert str(path) == "https://host/a/b/c.log"
    assert "secret" not in repr(path)
    assert (path.name, path.suffix, path.parent.name) == ("c.log", ".log", "b")
    assert path.with_suffix(".parquet") == path.parent / "c.parquet"
    assert path / "../../d" == RemotePath("https://me:secret@host/a/d")
    assert storage.relative(path, path.parent.parent) == "b/c.log"
    assert RemotePath("https://host/a/b.csv?sig=secret").name == "b.csv"
    assert RemotePath("s3://b/a?x=1.csv").suffix == ".csv"
    assert RemotePath("s3://b").parent == RemotePath("s3://b")


def test_a_flush_reaches_every_file_and_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are on the disk when their folder is."""
    storage.publish(tmp_path / "a" / "b" / "c", b"c")
    storage.publish(tmp_path / "d", b"d")
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda place: flushed.append(os.fstat(place).st_ino))
    storage.flush(tmp_path)
    everything = [tmp_path, *tmp_path.rglob("*")]
    assert sorted(flushed) == sorted(path.stat().st_ino for path in everything)


def test_a_flush_that_fails_is_named(tmp_path: Path) -> None:
    """A folder that is not there cannot be flushed."""
    with pytest.raises(StorageError) as caught:
        storage.flush(tmp_path / "gone")
    assert str(caught.value) == f"cannot write {tmp_path / 'gone'}: No such file or directory"
