"""Objects behind URLs, through fsspec, with retries.

Endpoint and credentials are those that fsspec and the driver of a scheme find by themselves:
fsspec's configuration (`FSSPEC_S3_ENDPOINT_URL`, `~/.config/fsspec/`), `AWS_*` variables and more.
A URL is shown without user, password and query.

What may pass (throttling, resets, time-outs, short reads) is tried again, `TRIES` times in all,
with waits that double, each shortened by chance so that many readers do not come back at once. An
object that is not there, or may not be read, is no such case.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from tfstream.errors import StorageError, UsageError

TRIES = 7
"""How often a request is made before it is an error."""

FIRST_WAIT_S = 0.2
"""Longest wait before the second try, in seconds; it doubles from try to try."""

_PART_BYTES = 8 << 20
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SECRETS = re.compile(r"(?<=://)[^/\s@]*@|\?[^\s'\"?]*=[^\s'\"]*")
_DRIVERS = {
    **dict.fromkeys(("s3", "s3a"), ("s3fs", "s3")),
    **dict.fromkeys(("gs", "gcs"), ("gcsfs", "gs")),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), ("adlfs", "az")),
}
"""The driver of a scheme, and the extra of tfstream that installs it."""

_FINAL = (
    *(FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError),
    *(ImportError, NotImplementedError, TypeError, ValueError),
)
"""What another try would meet again."""

_FINAL_NAMES = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"}
"""The same, of drivers that may not be installed."""

T = TypeVar("T")


def is_url(place: str | os.PathLike[str]) -> bool:
    """Whether a place has a scheme, such as `s3://`."""
    return _URL.fullmatch(os.fspath(place)) is not None


def scheme(url: str) -> str:
    """What stands before `://`, in small letters."""
    found = _URL.fullmatch(url)
    return found[1].lower() if found else ""


def shown(text: str) -> str:
    """A URL, or a text with URLs in it, without user, password and query."""
    return _SECRETS.sub("", text)


def join(url: str, name: str) -> str:
    """The URL of what lies below another."""
    return f"{url.rstrip('/')}/{name}"


def check(url: str) -> None:
    """Nothing, if there is a driver for the URL; no request is made.

    Raises:
        UsageError: if its scheme is unknown, or the driver is not installed.
    """
    _system(url)


def file_system(url: str) -> Any:  # noqa: ANN401 - drivers have no common class
    """What fsspec reads a URL with, for what it knows of endpoint and credentials.

    Raises:
        UsageError: as `check`.
    """
    return _system(url)[0]


def read(url: str) -> bytes:
    """A whole object.

    Raises:
        StorageError: if it cannot be read.
        UsageError: as `check`.
    """
    fs, path = _system(url)
    data: bytes = _tried("read", url, lambda: fs.cat_file(path))
    return data


def read_range(url: str, offset: int, size_bytes: int) -> bytes:
    """A stretch of an object, in one request; never less than was asked for.

    Raises:
        StorageError: if it cannot be read, or the object ends before.
        UsageError: as `check`.
    """
    if not size_bytes:
        return b""
    fs, path = _system(url)

    def stretch() -> bytes:
        data: bytes = fs.cat_file(path, start=offset, end=offset + size_bytes)
        if len(data) != size_bytes:
            raise OSError(f"{len(data)} bytes at {offset} came, {size_bytes} were asked for")
        return data

    return _tried("read", url, stretch)


def size(url: str) -> int:
    """Number of bytes of an object.

    Raises:
        StorageError: if it cannot be asked for, or is not there.
        UsageError: as `check`.
    """
    found = _info(url)
    if found is None:
        raise StorageError(f"cannot read {shown(url)}: there is no such object")
    return int(found["size"])


def exists(url: str) -> bool:
    """Whether there is an object of this name; a folder is none.

    Raises:
        StorageError: if that cannot be asked for.
        UsageError: as `check`.
    """
    return _info(url) is not None


def state(url: str) -> tuple[int, int] | None:
    """Number of bytes, and a number that another content has not; None if there is no object.

    The number is 60 bits of a hash of the store's own entity tag, or else of the time of change.

    Raises:
        StorageError: if that cannot be asked for.
        UsageError: as `check`.
    """
    found = _info(url)
    if found is None:
        return None
    names = ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "mtime", "created")
    tag = next((str(found[name]) for name in names if found.get(name)), "")
    return int(found["size"]), int(hashlib.sha256(tag.encode()).hexdigest()[:15], 16)


def below(url: str) -> dict[str, int]:
    """The objects below a URL, sorted: their names relative to it, and their numbers of bytes.

    Raises:
        StorageError: if they cannot be listed.
        UsageError: as `check`.
    """
    fs, path = _system(url)

    def listed() -> dict[str, Any]:
        fs.invalidate_cache()
        try:
            found: dict[str, Any] = fs.find(path, detail=True)
        except FileNotFoundError:
            return {}
        return found

    home = PurePosixPath(path)
    return {
        PurePosixPath(name).relative_to(home).as_posix(): int(info["size"])
        for name, info in sorted(_tried("list", url, listed).items())
        if name.rstrip("/") != path.rstrip("/") and not name.endswith("/")
    }


def matching(pattern: str) -> list[str]:
    """The URLs of all objects that a glob matches, sorted.

    Raises:
        StorageError: if they cannot be listed.
        UsageError: as `check`.
    """
    fs, path = _system(pattern)

    def globbed() -> dict[str, Any]:
        fs.invalidate_cache()
        found: dict[str, Any] = fs.glob(path, detail=True)
        return found

    found = _tried("list", pattern, globbed)
    begin = scheme(pattern)
    return sorted(
        name if is_url(name) else f"{begin}://{name.lstrip('/')}"
        for name, info in found.items()
        if info["type"] == "file"
    )


def put(url: str, data: bytes, *, if_absent: bool = False) -> None:
    """Write a whole object, or leave what was there.

    Args:
        url: its place.
        data: its content.
        if_absent: let only one of several writers win, where the store has conditional writes (S3
            has).

    Raises:
        FileExistsError: if it was to be absent and another content is there.
        StorageError: if it cannot be written.
        UsageError: as `check`.
    """
    fs, path = _system(url)
    mode = {"mode": "create"} if if_absent else {}

    def written() -> None:
        try:
            fs.pipe_file(path, data, **mode)
        except FileExistsError:
            # An answer that was lost: the try before had been the one that wrote it.
            if fs.cat_file(path) != data:
                raise

    _tried("write", url, written)


def put_file(url: str, path: Path) -> None:
    """Write an object that has the bytes of a local file, whatever their number.

    Raises:
        StorageError: if it cannot be written, or has another size then.
        UsageError: as `check`.
    """
    fs, place = _system(url)
    expected = path.stat().st_size

    def written() -> None:
        fs.put_file(str(path), place)
        found = fs.info(place)["size"]
        if found != expected:
            raise OSError(f"{found} bytes arrived of {expected}")

    _tried("write", url, written)


def delete(url: str) -> None:
    """Remove an object, if it is there.

    Raises:
        StorageError: if it cannot be removed.
        UsageError: as `check`.
    """
    fs, path = _system(url)

    def removed() -> None:
        try:
            fs.rm_file(path)
        except FileNotFoundError:
            return

    _tried("remove", url, removed)


def parts(url: str) -> Iterator[bytes]:
    """The bytes of an object in pieces of up to 8 MiB, read as they are asked for.

    Raises:
        StorageError: if it cannot be read.
        UsageError: as `check`.
    """
    end = size(url)
    for offset in range(0, end, _PART_BYTES):
        yield read_range(url, offset, min(_PART_BYTES, end - offset))


def sha256(url: str) -> str:
    """SHA-256 of an object's bytes, in hex.

    Raises:
        StorageError: if it cannot be read.
        UsageError: as `check`.
    """
    digest = hashlib.sha256()
    for part in parts(url):
        digest.update(part)
    return digest.hexdigest()


def _info(url: str) -> dict[str, Any] | None:
    fs, path = _system(url)

    def asked() -> dict[str, Any] | None:
        try:
            info: dict[str, Any] = fs.info(path)
        except FileNotFoundError:
            return None
        return info if info["type"] == "file" else None

    return _tried("look for", url, asked)


def _system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path there."""
    fsspec = importlib.import_module("fsspec")
    protocol = scheme(url)
    # A listing that was kept would hide what came since.
    options: dict[str, Any] = {"use_listings_cache": False}
    if protocol in {"s3", "s3a"}:
        # Tries are counted here; botocore's and s3fs' own would multiply with them.
        config = importlib.import_module("fsspec.config").conf.get("s3", {})
        options["config_kwargs"] = {
            **config.get("config_kwargs", {}),
            "retries": {"total_max_attempts": 1},
        }
    try:
        fs, path = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        driver, extra = _DRIVERS.get(protocol, ("", ""))
        advice = (
            f"it needs {driver}: pip install 'tfstream[{extra}]'"
            if driver
            else f"its driver is not installed: {shown(str(error))}"
        )
        raise UsageError(f"{protocol}:// cannot be opened, {advice}") from None
    except ValueError as error:
        raise UsageError(
            f"{shown(url)} is no URL that fsspec knows: {shown(str(error))}; give a local path, or "
            "one of s3://, gs://, az://"
        ) from None
    if protocol in {"s3", "s3a"}:
        fs.retries = 1
    return fs, path


def _tried(verb: str, url: str, call: Callable[[], T]) -> T:
    """What a call returns, tried again while it fails with what may pass."""
    number = 1
    while True:
        try:
            return call()
        except FileNotFoundError:
            what = "there is no such object, or no such bucket"
            raise StorageError(f"cannot {verb} {shown(url)}: {what}") from None
        except FileExistsError:
            raise FileExistsError(f"{shown(url)} is there already") from None
        except Exception as error:  # noqa: BLE001 - errors of drivers have no common base
            is_final = isinstance(error, _FINAL) or type(error).__name__ in _FINAL_NAMES
            if is_final or number == TRIES:
                tries = "try" if number == 1 else "tries"
                # The cause's own traceback may show a URL with its credentials.
                raise StorageError(
                    f"cannot {verb} {shown(url)}: {number} {tries}, the last ended with "
                    f"{type(error).__name__}: {shown(str(error)) or 'no message'}"
                ) from None
        time.sleep(FIRST_WAIT_S * 2 ** (number - 1) * random.uniform(0.5, 1))  # noqa: S311 - no secret
        number += 1
