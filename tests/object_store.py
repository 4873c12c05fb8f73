"""A real S3 endpoint over HTTP: moto's server, in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import fsspec.config
import pytest

from tfstream import remote

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


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


def use(endpoint: str, patch: pytest.MonkeyPatch) -> None:
    """Let s3:// mean this endpoint, here and in child processes, until the patch is undone."""
    for name, value in CREDENTIALS.items():
        patch.setenv(name, value)
    patch.setenv("FSSPEC_S3_ENDPOINT_URL", endpoint)
    # fsspec reads the variable once, when it is imported.
    patch.setitem(fsspec.config.conf, "s3", {"endpoint_url": endpoint})


class Answer(BaseHTTPRequestHandler):
    """What answers of a store of our own have in common."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Nothing."""

    def do_GET(self) -> None:
        """As `reply` says."""
        self.reply()

    def do_HEAD(self) -> None:
        """As `reply` says."""
        self.reply()

    @abstractmethod
    def reply(self) -> None:
        """Answer to what `command` and `path` ask for."""

    def wanted(self, data: bytes) -> tuple[int, bytes]:
        """The status and the range that the request asks for; without one, all."""
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        return (206, data[int(first) : int(last) + 1]) if last else (200, data)

    def answer(self, status: int, data: bytes, length: int) -> None:
        """Bytes, of a length that may be a lie."""
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("ETag", '"x"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


@contextmanager
def reached(server: ThreadingHTTPServer, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let s3:// mean a server of our own that ends with the block; no waits between tries."""
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    use(f"http://127.0.0.1:{server.server_port}", patch)
    patch.setattr(remote, "FIRST_WAIT_S", 0)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def new_bucket(endpoint: str) -> str:
    """The URL of a bucket of its own."""
    name = f"tfstream-{uuid.uuid4().hex}"
    urllib.request.urlopen(  # noqa: S310 - an address of this machine
        urllib.request.Request(f"{endpoint}/{name}", method="PUT")  # noqa: S310
    ).close()
    return f"s3://{name}"


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
