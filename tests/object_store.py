"""What s3:// means in a test: a server's address, or a store of our own that answers as told."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import fsspec.config
import pytest

from benchmarks.object_store import CREDENTIALS
from tfstream import remote


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
