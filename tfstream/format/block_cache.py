"""Blocks of remote shards in a local folder, for any number of processes of the machine.

A block is a file of its own, the frame as it stands in the shard, under a name that is a hash of
the shard's own hash and the offset. It is checked before it gets that name, by a link, and again
whenever it is handed out. What is handed out is one more link to the same file, in a folder of the
process that asked: others may evict the name meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfstream import storage
from tfstream.errors import CorruptionError, StorageError
from tfstream.format import reader
from tfstream.format.manifest import Catalog

_KEPT, _USERS = "blocks", "in-use"
"""What is in the folder."""
READERS = 16
"""Requests at the same time."""
_REQUEST_BYTES = 8 << 20
"""Blocks that follow each other in a shard come in one request, up to so many bytes."""
_GAP_BYTES = 256 << 10
"""So many bytes between two blocks cost less than another request, if they are wanted soon."""
_TRIES = 3
"""How often a block is fetched that arrives damaged."""


def default_folder() -> Path:
    """`TFSTREAM_CACHE`, or else `tfstream` in the user's folder for caches."""
    if found := os.environ.get("TFSTREAM_CACHE"):
        return Path(found)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tfstream"


class Removed(NamedTuple):
    """What `remove` found in a folder."""

    blocks: int
    """Blocks that were there and are gone."""
    readers: int
    """Processes that read through the folder now, and keep what they were handed out."""


def remove(catalog: Catalog, shards: Iterable[int], folder: Path) -> Removed:
    """Remove the blocks of some shards, whatever copy of the data set they came from.

    What dead processes had in use goes, too.

    Args:
        catalog: the data set.
        shards: ordinals.
        folder: the cache; it need not exist.

    Raises:
        StorageError: if a block cannot be removed.
    """
    users, gone = folder / _USERS, 0
    with _told(folder, "remove"):
        _clear(users)
        for shard in shards:
            sha256 = catalog.shards["sha256"][shard].as_py()
            for offset in catalog.block_offset[catalog.block_shard == shard].tolist():
                with contextlib.suppress(FileNotFoundError):
                    _place(folder, sha256, offset).unlink()
                    gone += 1
        return Removed(blocks=gone, readers=len(list(users.glob("*.lock"))))


class BlockCache:
    """The blocks of one data set, fetched when they are not there."""

    def __init__(
        self,
        catalog: Catalog,
        folder: Path,
        limit_bytes: int,
        soon: NDArray[np.int64] | None = None,
    ) -> None:
        """Make the folder, and clear up after processes that are dead.

        Args:
            catalog: the data set.
            folder: where blocks are kept, on a file system with hard links and flock.
            limit_bytes: of all data sets' blocks in the folder. Those in use come on top.
            soon: (n,) ordinals of blocks that will all be asked for. If they fit into the limit,
                those that lie between two that are fetched come in the same request.

        Raises:
            StorageError: if the folder cannot be written.
        """
        self._catalog, self._limit = catalog, limit_bytes
        self._folder, self._kept, users = folder, folder / _KEPT, folder / _USERS
        self._sha256 = catalog.shards["sha256"].to_pylist()
        self._soon = np.zeros(len(catalog.block_size), bool)
        if soon is not None and int(catalog.block_size[soon].sum()) <= limit_bytes:
            self._soon[soon] = True
        self._checked = np.zeros((len(catalog.block_size), 2), np.uint64)
        """(blocks, 2): `_content` of the file of each block that this process has checked."""
        self._unseen = limit_bytes
        """Bytes that came since the folder was last looked through."""
        self._mutex = threading.Lock()
        with _told(folder):
            self._kept.mkdir(parents=True, exist_ok=True)
            users.mkdir(exist_ok=True)
            _clear(users)
            self._lock, self.used = _own_folder(users)
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="tfstream-fetch")

    def close(self) -> None:
        """Give back all that was handed out."""
        self._pool.shutdown(cancel_futures=True)
        shutil.rmtree(self.used, ignore_errors=True)
        self.used.with_suffix(".lock").unlink(missing_ok=True)
        os.close(self._lock)

    def hand_out(self, blocks: Iterable[int], name: str) -> None:
        """Lay blocks, by their ordinals, in the folder `used / name`, each a file so called.

        Raises:
            CorruptionError: if a block is not what was written, however often it is fetched.
            StorageError: if one cannot be fetched or kept.
        """
        out = self.used / name
        with _told(out):
            out.mkdir()
        wanted = sorted({int(block) for block in blocks})
        # A link takes microseconds; threads that wait for Python's lock would take milliseconds.
        linked = {block: self._is_linked(block, out) for block in wanted}
        absent = [block for block, is_here in linked.items() if not is_here]
        unsure = [b for b, is_here in linked.items() if is_here and not self._is_checked(b, out)]
        damaged = zip(unsure, self._pool.map(lambda b: self._is_whole(b, out), unsure), strict=True)
        missing = sorted([*absent, *(block for block, is_whole in damaged if not is_whole)])
        runs = requests(self._catalog, missing, self._is_welcome)
        now = set(missing)
        for _ in self._pool.map(lambda run: self._fetch(run, out, now), runs):
            pass
        self._evict()

    def take_back(self, name: str) -> None:
        """Forget what was handed out under a name."""
        shutil.rmtree(self.used / name, ignore_errors=True)

    def _place(self, block: int) -> Path:
        catalog = self._catalog
        shard = self._sha256[int(catalog.block_shard[block])]
        return _place(self._folder, shard, int(catalog.block_offset[block]))

    def _is_linked(self, block: int, out: Path) -> bool:
        """Whether a block was there, and lies in a folder now."""
        place, link = self._place(block), out / str(block)
        with _told(place):
            try:
                os.link(place, link)
            except FileNotFoundError:
                return False
            os.utime(link, ns=(time.time_ns(), link.stat().st_mtime_ns))
        return True

    def _is_checked(self, block: int, out: Path) -> bool:
        """Whether this process has compared the bytes of a block that is linked."""
        with _told(out):
            return tuple(self._checked[block]) == _content((out / str(block)).stat())

    def _is_whole(self, block: int, out: Path) -> bool:
        """Whether they are what was written; else it is neither linked nor kept any more."""
        link = out / str(block)
        with _told(link):
            state, data = link.stat(), link.read_bytes()
            try:
                reader.check(self._catalog, block, data)
            except CorruptionError:
                link.unlink()
                self._place(block).unlink(missing_ok=True)
                return False
        self._checked[block] = _content(state)
        return True

    def _is_welcome(self, block: int) -> bool:
        """Whether a block that nobody waits for yet may come along."""
        return bool(self._soon[block]) and not self._place(block).exists()

    def _fetch(self, run: list[int], out: Path, wanted: set[int]) -> None:
        catalog = self._catalog
        path = catalog.shard_path(int(catalog.block_shard[run[0]]))
        size_bytes = int(catalog.block_size[run].sum())
        for number in range(1, _TRIES + 1):
            data = storage.read_range(path, int(catalog.block_offset[run[0]]), size_bytes)
            try:
                sound = self._sound(run, data, wanted)
            except CorruptionError:
                if number == _TRIES:
                    raise
            else:
                break
        for block, part in sound.items():
            self._keep(block, part, out)
            if block not in wanted:
                (out / str(block)).unlink()
        with self._mutex:
            self._unseen += sum(map(len, sound.values()))

    def _sound(self, run: list[int], data: bytes, wanted: set[int]) -> dict[int, bytes]:
        """The bytes of each block that is what was written; all that are wanted must be."""
        found, start = dict[int, bytes](), 0
        for block in run:
            part = data[start : (start := start + int(self._catalog.block_size[block]))]
            try:
                reader.check(self._catalog, block, part)
            except CorruptionError:
                if block in wanted:
                    raise
            else:
                found[block] = part
        return found

    def _keep(self, block: int, framed: bytes, out: Path) -> None:
        link, place = out / str(block), self._place(block)
        with _told(place):
            link.write_bytes(framed)
            with contextlib.suppress(FileExistsError):
                try:
                    os.link(link, place)
                except FileNotFoundError:
                    place.parent.mkdir(exist_ok=True)
                    os.link(link, place)
                self._checked[block] = _content(link.stat())

    def _evict(self) -> None:
        """Remove what was used least recently, once a sixteenth of the limit has come."""
        with self._mutex:
            if self._unseen < self._limit // 16:
                return
            self._unseen = 0
            found = []
            for path in self._kept.glob("*/*"):
                with contextlib.suppress(FileNotFoundError):
                    state = path.stat()
                    found.append((state.st_atime_ns, state.st_size, path))
            total = sum(size for _, size, _ in found)
            if total <= self._limit:
                return
            for _, size, path in sorted(found):
                if total <= self._limit * 3 // 4:
                    return
                path.unlink(missing_ok=True)
                total -= size


def _content(state: os.stat_result) -> tuple[int, int]:
    """What is another one once the bytes of a file are."""
    return state.st_ino, state.st_mtime_ns


def _place(folder: Path, sha256: str, offset: int) -> Path:
    """Where the block is kept that begins at an offset of the shard with this hash."""
    name = hashlib.sha256(f"{sha256}:{offset}".encode()).hexdigest()
    return folder / _KEPT / name[:2] / name


def requests(
    catalog: Catalog, blocks: Iterable[int], is_welcome: Callable[[int], bool]
) -> Iterator[list[int]]:
    """Blocks in runs that come in one request each: those of a shard that follow each other.

    Args:
        catalog: the data set.
        blocks: those that are wanted now, ascending.
        is_welcome: whether another block, between two of these, may come along.
    """
    run, size = list[int](), 0
    for block in blocks:
        length = int(catalog.block_size[block])
        if run:
            between = range(run[-1] + 1, block)
            gap = int(catalog.block_size[between.start : block].sum())
            joins = (
                catalog.block_shard[run[-1]] == catalog.block_shard[block]
                and catalog.block_offset[run[0]] + size + gap == catalog.block_offset[block]
                and gap <= _GAP_BYTES
                and size + gap + length <= _REQUEST_BYTES
                and all(map(is_welcome, between))
            )
            if joins:
                run.extend(between)
                size += gap
            else:
                yield run
                run, size = [], 0
        run.append(block)
        size += length
    if run:
        yield run


def _own_folder(users: Path) -> tuple[int, Path]:
    """A folder of this process, and the lock that says that it lives."""
    while True:
        name = uuid.uuid4().hex
        draft = users / f"{name}.draft"
        lock = os.open(draft, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            # Under its last name it is locked from the first moment on.
            draft.rename(users / f"{name}.lock")
        except FileNotFoundError:
            # Another process locked it first, and cleared it up.
            os.close(lock)
            continue
        (users / name).mkdir()
        return lock, users / name


def _clear(users: Path) -> None:
    """Remove the folders of processes that are dead."""
    for path in (*users.glob("*.draft"), *users.glob("*.lock")):
        try:
            lock = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink(missing_ok=True)
        finally:
            os.close(lock)


@contextlib.contextmanager
def _told(path: Path, verb: str = "keep") -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        advice = "make room or name another folder by StreamOptions(cache=) or TFSTREAM_CACHE"
        if verb == "remove":
            advice = "remove the folder yourself"
        raise StorageError(
            f"cannot {verb} blocks in {path}: {error.strerror or error}; {advice}"
        ) from error
