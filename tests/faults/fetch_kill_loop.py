"""Kill processes that fetch blocks of a remote data set, and see what they leave in the cache.

`python -m tests.faults.fetch_kill_loop --minutes 10` goes on for that long; a seed makes it
repeatable, as far as threads are. A reader is a fork of this process, and reads all blocks of a data
set behind s3://, from a server that is slow by chance, through one folder. It dies by SIGKILL: at a
random time, or just before the n-th change to a file's name; sometimes others read beside it. The
law: who is not killed reads every block as it is in the shard, and when the last one has ended, what
is kept are whole blocks under their names within the limit, and nothing is left of anybody.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import object_store
from tests.faults.kill_loop import at_changes, attempt, begun, ended
from tfstream import storage
from tfstream.conversion.convert import convert
from tfstream.conversion.options import ConvertOptions
from tfstream.format.block_cache import BlockCache
from tfstream.format.manifest import Catalog, open_catalog

URL = "s3://bucket/x"
ROWS = 2_000
_LINKS = ("os.link", "os.utime")
_AT_ONCE = 8
"""Blocks that are handed out together."""
_MOST_DELAY_S = 0.01


class Server(ThreadingHTTPServer):
    """The files of a folder, as objects of one bucket."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        """On a free port."""
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder = folder

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: who asked is dead."""


class Answer(object_store.Answer):
    """An object, late by chance."""

    server: Server

    def reply(self) -> None:
        """A file, or a range of it."""
        name = unquote(self.path).split("?")[0].removeprefix("/bucket/x").lstrip("/")
        path = self.server.folder / name
        if not path.is_file():
            self.answer(404, b"", 0)
            return
        status, data = self.wanted(path.read_bytes())
        time.sleep(random.random() * _MOST_DELAY_S)
        self.answer(status, data, len(data))


@dataclass(frozen=True)
class Reader:
    """Who reads the whole data set through a folder."""

    shards: Path
    cache: Path
    limit_bytes: int
    seed: int
    """Of the order of blocks."""

    def run(self) -> None:
        """Read all of it; an error if a block is another than in its shard."""
        catalog = open_catalog(storage.place(URL))
        order = np.random.default_rng(self.seed).permutation(len(catalog.block_shard)).tolist()
        cache = BlockCache(catalog, self.cache, self.limit_bytes)
        for i in range(0, len(order), _AT_ONCE):
            wanted = order[i : i + _AT_ONCE]
            cache.hand_out(wanted, str(i))
            for block in wanted:
                data = (cache.used / str(i) / str(block)).read_bytes()
                assert data == block_of(catalog, self.shards, block), f"block {block} is another"
            cache.take_back(str(i))
        cache.close()

    def run_killed(self, change: int) -> None:
        """The same, killed before the n-th change of a name, if there are so many."""
        at_changes(lambda n: os.kill(os.getpid(), signal.SIGKILL) if n == change else None, _LINKS)
        self.run()


def block_of(catalog: Catalog, shards: Path, block: int) -> bytes:
    """The bytes of a block in its shard."""
    path = shards / catalog.shards["path"][int(catalog.block_shard[block])].as_py()
    return storage.read_range(
        path, int(catalog.block_offset[block]), int(catalog.block_size[block])
    )


def leftovers(shards: Path, cache: Path, limit_bytes: int) -> list[str]:
    """What should not be in a cache that nobody uses, and blocks that are not what they should."""
    catalog = open_catalog(shards)
    expected = {}
    for block in range(len(catalog.block_shard)):
        sha256 = catalog.shards["sha256"][int(catalog.block_shard[block])].as_py()
        text = f"{sha256}:{catalog.block_offset[block]}"
        expected[hashlib.sha256(text.encode()).hexdigest()] = block
    found, size = [], 0
    for path in sorted(cache.rglob("*")):
        name = path.relative_to(cache).as_posix()
        block = expected.get(path.name)
        if path.is_dir() and (path.parent in {cache, cache / "blocks"}):
            continue
        if block is None or name != f"blocks/{path.name[:2]}/{path.name}":
            found.append(f"{name} is left")
        elif path.read_bytes() != block_of(catalog, shards, block):
            found.append(f"{name} is not block {block}")
        elif path.stat().st_nlink != 1:
            found.append(f"{name} is in use")
        size += path.stat().st_size
    # Each process looks when a sixteenth of the limit has come.
    if size > limit_bytes * 17 // 16:
        found.append(f"{size} bytes are kept, the limit is {limit_bytes}")
    return found


def write_data_set(folder: Path) -> Path:
    """Several shards of blocks of half a kilobyte."""
    rng = np.random.default_rng(0)
    table = pa.table({"g": rng.integers(0, 9, ROWS), "x": rng.normal(size=ROWS)})
    pq.write_table(table, folder / "a.parquet")
    made = partial(
        convert,
        folder / "a.parquet",
        folder / "shards",
        group_by=["g"],
        options=ConvertOptions(block_rows=25, shard_bytes=6_000),
        scheduler="synchronous",
    )
    # In a fork: this process must not have a thread when it forks.
    assert attempt(lambda: made() and None) == 0
    return folder / "shards"


def serve(folder: Path) -> tuple[str, int]:
    """The address of a server in a fork, and its process."""
    server = Server(folder)
    pid = begun(server.serve_forever)
    server.server_close()
    return f"http://127.0.0.1:{server.server_port}", pid


def loop(folder: Path, seed: int, seconds: float, rounds: int | None) -> int:
    """Rounds until one goes wrong or the time is over; the exit code."""
    rng = random.Random(seed)
    shards = write_data_set(folder)
    endpoint, server = serve(shards)
    try:
        with pytest.MonkeyPatch.context() as patch:
            object_store.use(endpoint, patch)
            return _loop(folder, shards, rng, seconds, rounds)
    finally:
        os.kill(server, signal.SIGKILL)
        ended(server)


def _loop(
    folder: Path, shards: Path, rng: random.Random, seconds: float, rounds: int | None
) -> int:
    size = sum(path.stat().st_size for path in (shards / "shards").rglob("*.tfrecord"))
    start = time.perf_counter()
    assert attempt(Reader(shards, folder / "first", size, 0).run) == 0
    took_s = time.perf_counter() - start
    print(f"{size} bytes, read in {took_s:.2f} s", flush=True)
    start, kills = time.perf_counter(), Counter[str]()
    for n in itertools.count():
        if time.perf_counter() - start > seconds or n == rounds:
            told = ", ".join(f"{count} {how}" for how, count in sorted(kills.items()))
            print(f"{n} rounds, killed {told or 'never'}, no difference", flush=True)
            return 0
        limit = rng.choice([size * 2, size // 3, size // 10])

        def reader(cache: Path = folder / f"cache-{n}", limit: int = limit) -> Reader:
            return Reader(shards, cache, limit, rng.randrange(1 << 30))

        complaint = _round(reader, rng, took_s, kills)
        complaint = complaint or "; ".join(leftovers(shards, folder / f"cache-{n}", limit))
        if complaint:
            print(f"round {n}: {complaint}", flush=True)
            return 1
    raise AssertionError("an endless loop ended")


def _round(
    reader: Callable[[], Reader], rng: random.Random, took_s: float, kills: Counter[str]
) -> str | None:
    """Kill some readers, with others beside them perhaps, then read all; what went wrong."""
    for _ in range(rng.randint(1, 4)):
        beside = [begun(reader().run) for _ in range(rng.choice([0, 0, 1, 2]))]
        if rng.random() < 0.5:
            # Where a reader begins, and anywhere: it makes three changes a block or more.
            change = rng.choice([rng.randrange(8), rng.randrange(500)])
            code = attempt(partial(reader().run_killed, change))
            how = "at a change"
        else:
            code, how = attempt(reader().run, wait_s=rng.uniform(0, 1.1) * took_s), "at a time"
        if code not in {0, -signal.SIGKILL}:
            return f"exit code {code} of a reader that was to be killed {how}"
        kills[f"{how}, {len(beside)} beside"] += code != 0
        codes = [ended(pid) for pid in beside]
        if any(codes):
            return f"exit codes {codes} beside one that was killed {how}"
    code = ended(begun(reader().run))
    return f"exit code {code} after kills" if code else None


def main() -> int:
    """Run the loop; exit code 1 at the first difference."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fetch_kill_loop")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, help="end after so many rounds")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fetch-kill-loop-") as name:
        return loop(Path(name), arguments.seed, arguments.minutes * 60, arguments.rounds)


if __name__ == "__main__":
    sys.exit(main())
