"""Shards behind URLs, read in place by TensorFlow through tensorflow-io.

TensorFlow knows nothing of fsspec: the endpoint and the credentials that fsspec has are handed over
in the variables of the environment that the plugins of tensorflow-io read.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import os
import platform
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import tensorflow as tf

from tfstream import remote
from tfstream.errors import StorageError, UsageError
from tfstream.format.subset import Subset
from tfstream.remote_path import RemotePath

_S3 = ("s3", "s3a")
_AZURE = ("az", "abfs", "abfss")
_SCHEMES = (*_S3, *_AZURE, "hdfs", "viewfs", "http", "https")
_ADVICE = 'use storage="cache", which any TensorFlow can'


def refusal(folder: RemotePath) -> str | None:
    """Why this process cannot read a data set in place; None if it can."""
    scheme = remote.scheme(folder.url)
    if scheme not in _SCHEMES:
        return f"tensorflow-io does not read {scheme}://"
    if remote.shown(folder.url) != folder.url:
        return "its URL has credentials, which TensorFlow's errors would show"
    if scheme in _S3 and platform.libc_ver()[0] != "glibc":
        # Where `on_exit` is missing, its plugin aborts the process at its end.
        return "tensorflow-io reads s3:// safely on Linux with glibc only"
    try:
        importlib.import_module("tensorflow_io")
    except ImportError:
        return "tensorflow-io is not installed; pip install 'tfstream[io]'"
    except (NotImplementedError, tf.errors.OpError, OSError):
        return f"tensorflow-io does not load under TensorFlow {tf.__version__}, it needs 2.17"
    return None


def places_of(subset: Subset, *, has_gate: bool) -> tuple[list[str], int]:
    """What TensorFlow calls the shards, and how many bytes it is to ask for at once.

    Args:
        subset: whose blocks are read.
        has_gate: whether they come through a gate, so that these are names in messages.

    Returns:
        A path a shard; and 0 unless a store is read in place.

    Raises:
        StorageError: if TensorFlow cannot read the first shard.
        UsageError: if this process cannot read a store in place, or reads another one so.
    """
    catalog, blocks = subset.catalog, subset.blocks
    paths = [catalog.folder / path for path in catalog.shards["path"].to_pylist()]
    if has_gate or not isinstance(catalog.folder, RemotePath):
        return [str(path) for path in paths], 0
    _begin(catalog.folder, paths[catalog.block_shard[blocks[0]]])
    return [place_of(path) for path in paths], int(catalog.block_size[blocks].max())


def _begin(folder: RemotePath, shard: RemotePath) -> None:
    """Let TensorFlow read what lies below a URL, by the settings that fsspec has."""
    if reason := refusal(folder):
        raise UsageError(f"{folder} cannot be read in place: {reason}; {_ADVICE}")
    _hand_over(remote.scheme(folder.url), _settings(folder))
    try:
        tf.io.gfile.stat(place_of(shard))
    except tf.errors.OpError as error:
        message = remote.shown(error.message.splitlines()[0])
        raise StorageError(
            f"TensorFlow cannot read {shard} in place: {message}; {_ADVICE}"
        ) from None
    if remote.scheme(folder.url) in _S3:
        _end_with_own_status()


def place_of(path: RemotePath) -> str:
    """What TensorFlow calls an object."""
    scheme, rest = remote.scheme(path.url), path.url.partition("://")[2]
    if scheme in _S3:
        return f"s3://{rest}"
    if scheme in _AZURE:
        container, _, name = rest.partition("/")
        container, _, host = container.partition("@")
        account = host.partition(".")[0] or _azure(path)["AccountName"]
        return f"az://{account}/{container}/{name}"
    return path.url


def _settings(folder: RemotePath) -> dict[str, str]:
    """The variables that tensorflow-io's plugin for a URL reads."""
    scheme, found = remote.scheme(folder.url), dict[str, Any]()
    if scheme in _AZURE:
        told = _azure(folder)
        endpoint = urlsplit(told.get("BlobEndpoint", ""))
        found = {
            "TF_AZURE_STORAGE_KEY": told.get("AccountKey"),
            "TF_AZURE_STORAGE_SAS": told.get("SharedAccessSignature"),
            "TF_AZURE_STORAGE_BLOB_ENDPOINT": endpoint.netloc,
            "TF_AZURE_STORAGE_USE_HTTP": endpoint.scheme == "http" and "1",
        }
    elif scheme in _S3:
        found = _s3(folder)
    return {name: str(value) for name, value in found.items() if value}


def _s3(folder: RemotePath) -> dict[str, Any]:
    fs = remote.file_system(folder.url)
    if fs.anon:
        raise UsageError(
            f"{folder} is read without credentials, tensorflow-io always signs; {_ADVICE}"
        )
    endpoint = fs.client_kwargs.get("endpoint_url") or fs.endpoint_url
    endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL"))
    if endpoint and not urlsplit(endpoint).scheme:
        endpoint = f"https://{endpoint}"
    return {
        "S3_ENDPOINT": endpoint,
        "AWS_REGION": fs.client_kwargs.get("region_name") or os.environ.get("AWS_DEFAULT_REGION"),
        "AWS_ACCESS_KEY_ID": fs.key,
        "AWS_SECRET_ACCESS_KEY": fs.secret,
        "AWS_SESSION_TOKEN": fs.token,
    }


def _azure(folder: RemotePath) -> dict[str, str]:
    """Account, key and signature, by the names of a connection string."""
    fs = remote.file_system(folder.url)
    pairs = (part.partition("=") for part in (fs.connection_string or "").split(";"))
    known = {"AccountName": fs.account_name, "AccountKey": fs.account_key}
    known |= {"SharedAccessSignature": fs.sas_token}
    found = {name: value for name, _, value in pairs} | {n: v for n, v in known.items() if v}
    if "AccountName" not in found:
        raise UsageError(f"{folder} has no account; set AZURE_STORAGE_ACCOUNT_NAME")
    return found


_HANDED: dict[str, dict[str, str]] = {}
"""What was set, by scheme: the plugins read it once."""


def _hand_over(scheme: str, settings: dict[str, str]) -> None:
    if _HANDED.setdefault(scheme, settings) != settings:
        raise UsageError(
            f"this process reads in place from {scheme}:// with another endpoint or other "
            f"credentials, and tensorflow-io knows one of each; {_ADVICE}"
        )
    os.environ.update(settings)


@cache
def _end_with_own_status() -> None:
    """End the process before the plugin is taken down, which aborts it (tensorflow/io#1912).

    What is registered last runs first, so the plugin must be in use by now. Python has ended by
    then: its own handlers ran, and its streams are flushed.
    """
    libc = ctypes.CDLL(None)
    atexit.register(libc.fflush, None)
    libc.on_exit(libc._exit, None)  # noqa: SLF001 - the C library's function
