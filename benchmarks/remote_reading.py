"""Job remote: shuffled epochs of a data set behind s3://, and what plain requests reach there."""

from __future__ import annotations

import http.client
import importlib
import itertools
import multiprocessing
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import fsspec

import tfstream
from benchmarks import data, object_store, tfstream_cases
from benchmarks.delivery import Ledger
from benchmarks.runner import announce_measured
from benchmarks.workload import SEED
from tfstream.format import framing, reader
from tfstream.format.block_cache import READERS, requests
from tfstream.format.places import Places
from tfstream.share import WHOLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.workload import Task
    from tfstream.format.manifest import Catalog

_MEGA = 1e6
_SIGNED_S = 3_600
_BUFFER_BYTES = 8 << 20


def run(task: Task) -> dict[str, Any]:
    """Measure a case; its first pass is checked and not timed."""
    folder = _kept_shards(task)
    case = task.contender
    if case == "local":
        return _of_stream(task, str(folder), None, lambda: None)
    with object_store.published(folder) as url:
        if case.startswith("ceiling"):
            return _of_requests(task, url)
        if case == "tensorflow-io":
            return _of_records(task, url)
        with TemporaryDirectory(dir=task.folder) as scratch:
            cache = Path(scratch)
            if case == "remote-warm-process":
                # Spawned, as TensorFlow does not live on in a fork.
                filling = multiprocessing.get_context("spawn").Process(
                    target=_read_once, args=(task, url, cache)
                )
                filling.start()
                filling.join()
            before = (lambda: _empty(cache)) if case == "remote-cold" else (lambda: None)
            return _of_stream(task, url, cache, before)


def _kept_shards(task: Task) -> Path:
    """By months alone: objects of a store are better few and large."""
    source = data.keep(task.source, lambda p: data.write_source(p, task.workload.rows))
    convert = tfstream_cases.converter(["month"])
    return tfstream_cases.keep(task.folder / "shards-by-month", lambda p: convert(source, p))


def _of_stream(
    task: Task, place: str, cache: Path | None, before: Callable[[], None]
) -> dict[str, Any]:
    """Whole epochs of a stream, with something done before each that does not count."""
    stream = _stream(task, place, cache)
    dataset, ledger, passes = stream.dataset(), Ledger(task.workload.rows), _Passes(task)
    start = time.perf_counter()
    for features, label in dataset:
        ledger.record(features, label)
    first_s, starts_s, found = time.perf_counter() - start, list[float](), set[int]()
    while passes.go_on():
        before()
        with passes.timed():
            start, rows = time.perf_counter(), 0
            for _, label in dataset:
                if not rows:
                    starts_s.append(time.perf_counter() - start)
                rows += len(label)
        found.add(rows)
    announce_measured()
    later = found - {task.workload.rows}
    return {
        "figures": passes.rates(stream.subset.catalog)
        | {"first batch s": min(starts_s), "epoch 0 s": first_s},
        "findings": ledger.findings(whole=True)
        + [f"{rows} rows came in a later epoch" for rows in later],
    }


class _Passes:
    """What passes over all blocks took."""

    def __init__(self, task: Task) -> None:
        self._rows, self._floor_s = task.workload.rows, task.workload.floor_s
        self._number, self._seconds, self._cpu_s = 0, 0.0, 0.0

    def go_on(self) -> bool:
        """Whether they have not taken long enough."""
        return not self._number or self._seconds < self._floor_s

    @contextmanager
    def timed(self) -> Iterator[None]:
        """One of them."""
        start, cpu = time.perf_counter(), time.process_time()
        yield
        self._seconds += time.perf_counter() - start
        self._cpu_s += time.process_time() - cpu
        self._number += 1

    def rates(self, catalog: Catalog) -> dict[str, float]:
        """Of all of them; the seconds are those of this process alone."""
        rows, size_bytes = self._number * self._rows, int(catalog.block_size.sum())
        return {
            "M rows/s": rows / self._seconds / _MEGA,
            "MB/s": self._number * size_bytes / self._seconds / _MEGA,
            "CPU s / M rows": self._cpu_s / rows * _MEGA,
        }


def _stream(task: Task, place: str, cache: Path | None) -> tfstream.Stream:
    return tfstream.open(place).stream(
        batch_size=task.workload.batch,
        features=list(data.FEATURES),
        label="label",
        seed=SEED,
        options=tfstream.StreamOptions(packed=True, cache=cache),
    )


def _read_once(task: Task, url: str, cache: Path) -> None:
    """Fill the cache."""
    for _ in _stream(task, url, cache).dataset():
        pass


def _empty(cache: Path) -> None:
    for path in (cache / "blocks").glob("*/*"):
        path.unlink()


def _of_requests(task: Task, url: str) -> dict[str, Any]:
    """The requests of an epoch, as many at a time as the cache makes, and nothing else."""
    stream = _stream(task, url, None)
    catalog, whole = stream.subset.catalog, task.contender == "ceiling-whole"
    fs, _ = fsspec.core.url_to_fs(url)
    signed = [
        urlsplit(fs.sign(catalog.shard_path(shard).url, expiration=_SIGNED_S))
        for shard in range(catalog.shards.num_rows)
    ]
    wanted = []
    for run in _whole_shards(catalog) if whole else _ranges(stream):
        address = signed[int(catalog.block_shard[run[0]])]
        offset, size_bytes = int(catalog.block_offset[run[0]]), int(catalog.block_size[run].sum())
        header = {} if whole else {"Range": f"bytes={offset}-{offset + size_bytes - 1}"}
        wanted.append((run, f"{address.path}?{address.query}", header))
    own, kind = threading.local(), http.client
    connect = kind.HTTPSConnection if signed[0].scheme == "https" else kind.HTTPConnection

    def fetch(request: tuple[list[int], str, dict[str, str]]) -> bytes:
        if not hasattr(own, "connection"):
            own.connection = connect(signed[0].netloc)
        own.connection.request("GET", request[1], headers=request[2])
        with own.connection.getresponse() as response:
            return bytes(response.read())

    passes = _Passes(task)
    with ThreadPoolExecutor(READERS) as pool:
        rows = sum(pool.map(lambda one: _rows(catalog, one[0], fetch(one)), wanted))
        while passes.go_on():
            with passes.timed():
                came = sum(len(found) for found in pool.map(fetch, wanted))
    announce_measured()
    expected = task.workload.rows, int(catalog.block_size.sum())
    return {
        "figures": passes.rates(catalog)
        | {"requests": len(wanted), "kB a request": came / len(wanted) / 1e3},
        "findings": [] if (rows, came) == expected else [f"{rows} rows, {came} bytes came"],
    }


def _whole_shards(catalog: Catalog) -> list[list[int]]:
    """The blocks of each shard."""
    every = range(len(catalog.block_rows))
    return [list(run) for _, run in itertools.groupby(every, lambda b: int(catalog.block_shard[b]))]


def _ranges(stream: tfstream.Stream) -> list[list[int]]:
    """Blocks as an empty cache fetches them for the windows of an epoch, each once."""
    places, seen, runs = Places(stream.subset, stream.spec, WHOLE), set[int](), list[list[int]]()
    for window in range(stream.spec.windows_per_epoch):
        missing = sorted(set(places.reads(0, window).tolist()) - seen)
        asked = list(requests(stream.subset.catalog, missing, lambda block: block not in seen))
        seen.update(itertools.chain(*asked))
        runs += asked
    return runs


def _rows(catalog: Catalog, run: list[int], found: bytes) -> int:
    """How many rows came, once each block of a request is as it was written."""
    start = 0
    for block in run:
        stop = start + int(catalog.block_size[block])
        reader.check(catalog, block, found[start:stop])
        start = stop
    return int(catalog.block_rows[run].sum())


def _of_records(task: Task, url: str) -> dict[str, Any]:
    """The records of the shards, one after the other, by tensorflow-io."""
    importlib.import_module("tensorflow_io")
    tf = importlib.import_module("tensorflow")
    fs, _ = fsspec.core.url_to_fs(url)
    if endpoint := getattr(fs, "endpoint_url", None):
        os.environ["S3_ENDPOINT"] = endpoint
    catalog = _stream(task, url, None).subset.catalog
    names = [catalog.shard_path(shard).url for shard in range(catalog.shards.num_rows)]

    def records() -> Iterator[Any]:
        dataset = tf.data.TFRecordDataset(names, buffer_size=_BUFFER_BYTES)
        return iter(dataset.prefetch(tf.data.AUTOTUNE))

    rows = 0
    for block, record in enumerate(records()):
        framed = framing.frame(record.numpy())
        reader.check(catalog, block, framed)
        rows += int(catalog.block_rows[block])
    passes = _Passes(task)
    while passes.go_on():
        with passes.timed():
            came = sum(1 for _ in records())
    announce_measured()
    expected = task.workload.rows, len(catalog.block_rows)
    return {
        "figures": passes.rates(catalog),
        "findings": [] if (rows, came) == expected else [f"{rows} rows, {came} blocks came"],
    }
