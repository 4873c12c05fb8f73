"""Streams that TensorFlow reads in place, behind URLs, through tensorflow-io."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest

import tfstream
from tests.integration.test_remote_streams import batches, equal, local, published
from tests.object_store import CREDENTIALS
from tfstream import remote
from tfstream.errors import StorageError, UsageError
from tfstream.format.subset import Subset
from tfstream.pipeline import direct
from tfstream.remote_path import RemotePath

has_io = importlib.util.find_spec("tensorflow_io") is not None
needs_io = pytest.mark.skipif(not has_io, reason="tensorflow-io loads under TensorFlow 2.17 only")
__all__ = ["local"]

_READ = """
import sys
import fsspec.config
fsspec.config.conf["s3"] = {
    "endpoint_url": sys.argv[1], "key": "testing", "secret": "testing-secret",
    "client_kwargs": {"region_name": "us-east-1"},
}
import tfstream
from tests.integration.test_remote_streams import batches, equal
expected = batches(tfstream.open(sys.argv[3]), range(1))
stream = batches(tfstream.open(sys.argv[2]), range(1), storage="direct")
print("equal" if equal(expected, stream) else "different")
sys.exit(int(sys.argv[4]))
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process in which the plugins have not been loaded, without credentials of its own."""
    bare = {name: value for name, value in os.environ.items() if name not in CREDENTIALS}
    return subprocess.run(
        [sys.executable, "-c", _READ, *arguments],
        env={**bare, "AWS_EC2_METADATA_DISABLED": "true", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_io
def test_batches_are_those_of_local_reading(
    local: tfstream.Shards, bucket: str, s3_server: str
) -> None:
    """By the credentials that fsspec alone has; and the process ends with its own exit status."""
    url = published(local, f"{bucket}/x")
    found = run(s3_server, url, str(local.subset.catalog.folder), "3")
    assert (found.stdout.strip(), found.returncode) == ("equal", 3), found.stderr[-2_000:]
    assert "testing-secret" not in found.stdout + found.stderr


@pytest.mark.parametrize("storage", ["cache", pytest.param("direct", marks=needs_io)])
def test_http_needs_no_credentials(
    local: tfstream.Shards, bucket: str, s3_server: str, tmp_path: Path, storage: str
) -> None:
    """Objects that everybody may read, both ways."""
    url = published(local, f"{bucket}/x")
    fs, path = fsspec.core.url_to_fs(url)
    for name in fs.find(path):
        fs.chmod(name, acl="public-read")
    shards = tfstream.open(url.replace("s3://", f"{s3_server}/"))
    found = batches(shards, range(1), storage=storage, cache=tmp_path)
    assert equal(batches(local, range(1)), found)


@needs_io
def test_damage_is_told_with_its_block(local: tfstream.Shards, bucket: str, s3_server: str) -> None:
    """As if the shard were here."""
    url = published(local, f"{bucket}/x")
    name = local.subset.catalog.shards["path"][0].as_py()
    data = bytearray(remote.read(f"{url}/{name}"))
    data[len(data) // 2] ^= 1
    remote.put(f"{url}/{name}", bytes(data))
    found = run(s3_server, url, str(local.subset.catalog.folder), "0")
    assert found.returncode == 1
    assert f"{name}: block " in found.stderr
    assert "wrong CRC" in found.stderr


@needs_io
def test_a_store_that_tensorflow_cannot_read(local: tfstream.Shards, bucket: str) -> None:
    """Is told before training, by name, and what to do."""
    shards = tfstream.open(published(local, f"{bucket}/x"))
    catalog = replace(shards.subset.catalog, folder=RemotePath(f"{bucket}/nosuch"))
    with pytest.raises(StorageError, match=r"TensorFlow cannot read .*nosuch.*storage=\"cache\""):
        direct.places_of(Subset.whole(catalog), has_gate=False)


@pytest.mark.skipif(has_io, reason="tensorflow-io is here")
def test_without_tensorflow_io_it_is_refused(local: tfstream.Shards, bucket: str) -> None:
    """With what to install, and what goes without."""
    shards = tfstream.open(published(local, f"{bucket}/x"))
    stream = shards.stream(batch_size=8, options=tfstream.StreamOptions(storage="direct"))
    with pytest.raises(UsageError, match=r"cannot be read in place: tensorflow-io .* storage="):
        stream.dataset()


def test_a_scheme_that_tensorflow_does_not_know_is_refused() -> None:
    """By name."""
    assert direct.refusal(RemotePath("memory://x")) == "tensorflow-io does not read memory://"


def test_auto_says_which_way_it_took(
    local: tfstream.Shards, bucket: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Through the folder; in place where there can be none; else the folder's own error."""
    shards = tfstream.open(published(local, f"{bucket}/x"))
    (tmp_path / "file").write_bytes(b"")
    expected = batches(local, range(1))
    with caplog.at_level(logging.INFO, logger="tfstream"):
        assert equal(expected, batches(shards, range(1), cache=tmp_path / "folder"))
    said = f"{shards.subset.catalog.folder} is read through {tmp_path / 'folder'}, where its blocks"
    assert said in caplog.text
    caplog.clear()
    if has_io:
        assert equal(expected, batches(shards, range(1), cache=tmp_path / "file"))
        assert "is read in place by TensorFlow, since cannot keep blocks" in caplog.text
    else:
        with pytest.raises(StorageError, match="cannot keep blocks"):
            batches(shards, range(1), cache=tmp_path / "file")
    with pytest.raises(StorageError, match="cannot keep blocks"):
        batches(shards, range(1), cache=tmp_path / "file", storage="cache")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://bucket/x/0", "s3://bucket/x/0"),
        ("s3a://bucket/x/0", "s3://bucket/x/0"),
        ("az://box@me.blob.core.windows.net/x/0", "az://me/box/x/0"),
        ("https://example.org/x/0", "https://example.org/x/0"),
        ("hdfs://node:8020/x/0", "hdfs://node:8020/x/0"),
    ],
)
def test_tensorflow_has_its_own_names(url: str, place: str) -> None:
    """Of the same objects."""
    assert direct.place_of(RemotePath(url)) == place


def test_azure_has_account_key_and_endpoint_from_what_the_driver_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a connection string, or one by one; without an account it says what to set."""
    known = dict.fromkeys(("connection_string", "account_name", "account_key", "sas_token"))
    driver = SimpleNamespace(**known)
    monkeypatch.setattr(remote, "file_system", lambda _: driver)
    folder = RemotePath("az://box/x")
    with pytest.raises(UsageError, match=r"az://box/x has no account; set AZURE_STORAGE"):
        direct.place_of(folder)
    driver.connection_string = (
        "DefaultEndpointsProtocol=http;AccountName=me;AccountKey=a2V5==;"
        "BlobEndpoint=http://127.0.0.1:10000/me;"
    )
    assert direct.place_of(folder) == "az://me/box/x"
    assert direct._settings(folder) == {
        "TF_AZURE_STORAGE_KEY": "a2V5==",
        "TF_AZURE_STORAGE_BLOB_ENDPOINT": "127.0.0.1:10000",
        "TF_AZURE_STORAGE_USE_HTTP": "1",
    }
    driver.connection_string, driver.account_name, driver.sas_token = None, "you", "sv=1&sig=2"
    assert direct.place_of(folder) == "az://you/box/x"
    assert direct._settings(folder) == {"TF_AZURE_STORAGE_SAS": "sv=1&sig=2"}


def test_a_url_with_credentials_is_refused() -> None:
    """TensorFlow would show them in its errors."""
    refused = direct.refusal(RemotePath("https://me:secret@example.org/x"))
    assert refused == "its URL has credentials, which TensorFlow's errors would show"


def test_a_second_store_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer settings, too: the plugin has read those of the first."""
    monkeypatch.setattr(direct, "_HANDED", {})
    monkeypatch.setattr(os, "environ", {})
    first = {"S3_ENDPOINT": "http://a", "AWS_ACCESS_KEY_ID": "key"}
    for _ in range(2):
        direct._hand_over("s3", first)
    assert os.environ == first
    for other in (first | {"S3_ENDPOINT": "http://b"}, {"AWS_ACCESS_KEY_ID": "key"}):
        with pytest.raises(UsageError, match="with another endpoint or other credentials"):
            direct._hand_over("s3", other)
