"""The lock of an output folder: one conversion at a time writes there.

It is an flock, which the kernel ends with its process, so that a dead one's never blocks. The file
tells host and pid, for whom it keeps out. NFS and CIFS pass an flock on to their server, so that it
holds across hosts; where a file system has none, that is an error; where it is one host's alone
(NFS with `local_lock`, some in user space), conversions of two hosts are not kept apart.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tfstream import storage
from tfstream.errors import ResumeError, StorageError
from tfstream.format.manifest import UNFINISHED

_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
_log = logging.getLogger(__name__)


@contextmanager
def locked(out: Path) -> Iterator[bool]:
    """Keep other conversions out; folders that were made for it and are empty at the end go.

    Yields:
        Whether a conversion that has not come to its end was there before.

    Raises:
        ResumeError: if another conversion is at work there.
        StorageError: if the lock cannot be made.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    was_there = (out / UNFINISHED).exists()
    try:
        with _taken(out):
            yield was_there
    finally:
        with suppress(OSError):
            for folder in made:
                folder.rmdir()


@contextmanager
def _taken(out: Path) -> Iterator[None]:
    path = out / UNFINISHED / "lock"
    try:
        file = _lock(path)
        while os.fstat(file.fileno()).st_nlink == 0:
            # Whoever had it came to its end and removed it.
            file.close()
            file = _lock(path)
    except BlockingIOError:
        owner = _owner(path) or "which has just begun"
        raise ResumeError(
            f"another conversion writes into {out} ({owner}); wait for it or choose another folder"
        ) from None
    except OSError as error:
        with suppress(OSError):
            if not path.stat().st_size:
                path.unlink()
            path.parent.rmdir()
        advice = (
            "; its file system has no locks (flock): give an output on another one"
            if error.errno in _NO_LOCKS
            else ""
        )
        raise StorageError(f"cannot lock {path}: {error.strerror}{advice}") from error
    with file:
        host, last = f"host {socket.gethostname()},", _owner(path)
        if last and not last.startswith(host):
            _log.warning("taking over %s, which a conversion of %s left", out, last)
        file.truncate(0)
        file.write(f"{host} pid {os.getpid()}".encode())
        file.flush()
        try:
            yield
        finally:
            if not any(other.is_dir() for other in path.parent.iterdir()):
                path.unlink()
                path.parent.rmdir()


def _lock(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Open for writing, without which NFS gives no lock of its own.
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file


def _owner(path: Path) -> str:
    return storage.read(path).decode(errors="replace")
