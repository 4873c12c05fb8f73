"""A real S3 endpoint over HTTP: moto's server, in a process of its own, or one that is named."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import fsspec.config

from tfstream import remote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

URL = "TFSTREAM_BENCHMARK_URL"
"""The variable that names a place to put data sets below, reached as fsspec is set up."""

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}
"""What moto takes; it takes any."""

_PUTS = 8


@contextmanager
def served() -> Iterator[str]:
    """The address of a server that ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env=os.environ | CREDENTIALS,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    endpoint = f"http://127.0.0.1:{port}"
    try:
        _wait(endpoint, process)
        yield endpoint
    finally:
        process.terminate()
        process.wait()


def new_bucket(endpoint: str) -> str:
    """The URL of a bucket of its own."""
    name = f"tfstream-{uuid.uuid4().hex}"
    urllib.request.urlopen(  # noqa: S310 - an address of this machine
        urllib.request.Request(f"{endpoint}/{name}", method="PUT")  # noqa: S310
    ).close()
    return f"s3://{name}"


@contextmanager
def published(folder: Path) -> Iterator[str]:
    """The URL of a data set of this machine, once it is there.

    Below `TFSTREAM_BENCHMARK_URL` if that is set, where it stays; else on a server that ends with
    the block, which `s3://` means until then, here and in child processes.
    """
    with ExitStack() as stack:
        if place := os.environ.get(URL):
            url = remote.join(place, folder.parent.name)
        else:
            endpoint = stack.enter_context(served())
            stack.enter_context(_meant(endpoint))
            url = new_bucket(endpoint)
        manifest = folder / "manifest.json"
        last = remote.join(url, manifest.name)
        if not remote.exists(last) or remote.read(last) != manifest.read_bytes():
            paths = [path for path in folder.rglob("*") if path.is_file() and path != manifest]
            with ThreadPoolExecutor(_PUTS) as pool:
                for _ in pool.map(lambda path: _put(url, folder, path), paths):
                    pass
            _put(url, folder, manifest)
        yield url


def _put(url: str, folder: Path, path: Path) -> None:
    remote.put_file(remote.join(url, path.relative_to(folder).as_posix()), path)


@contextmanager
def _meant(endpoint: str) -> Iterator[None]:
    """Let s3:// mean an endpoint."""
    variables = CREDENTIALS | {"FSSPEC_S3_ENDPOINT_URL": endpoint}
    before = {name: os.environ.get(name) for name in variables}
    # fsspec reads the variable once, when it is imported.
    conf: dict[str, Any] = fsspec.config.conf
    kept = dict(conf)
    os.environ |= variables
    conf["s3"] = {"endpoint_url": endpoint}
    try:
        yield
    finally:
        conf.clear()
        conf.update(kept)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _wait(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    """Until it answers; an error if it ended instead."""
    while not _answers(endpoint):
        if process.poll() is not None:
            raise RuntimeError(f"moto's server ended with {process.returncode}")
        time.sleep(0.05)


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(f"{endpoint}/moto-api/").close()  # noqa: S310 - as above
    except (urllib.error.URLError, ConnectionError):
        return False
    return True
