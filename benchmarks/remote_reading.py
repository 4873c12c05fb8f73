"""Job remote: shuffled epochs of a data set behind s3://, and what plain requests reach there."""

from __future__ import annotations

import http.client
import importlib
import itertools
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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

_MEGA = 1e6
_SIGNED_S = 3_600
_BUFFER_BYTES = 8 << 20


def run(task: Task) -> dict[str, Any]:
    """Measure a case; its first pass is checked and not timed."""
    folder = tfstream_cases.kept_shards(task)
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


def _of_stream(
    task: Task, place: str, cache: Path | None, before: Callable[[], None]
) -> dict[str, Any]:
    """Whole epochs of a stream, with something done before each that does not count."""
    stream = _stream(task, place, cache)
    dataset, ledger = stream.dataset(), Ledger(task.workload.rows)
    start = time.perf_counter()
    for features, label in dataset:
        ledger.record(features, label)
    first_s, starts_s, passes_s = time.perf_counter() - start, list[float](), list[float]()
    while not passes_s or sum(passes_s) < task.workload.floor_s:
        before()
        start, rows = time.perf_counter(), 0
        for _, label in dataset:
            if not rows:
                starts_s.append(time.perf_counter() - start)
            rows += len(label)
        passes_s.append(time.perf_counter() - start)
        if rows != task.workload.rows:
            return {"figures": {}, "findings": [f"{rows} rows came in a later epoch"]}
    announce_measured()
    figures = _rates(task, _bytes(stream), passes_s)
    return {
        "figures": figures | {"first batch s": min(starts_s), "epoch 0 s": first_s},
        "findings": ledger.findings(whole=True),
    }


def _stream(task: Task, place: str, cache: Path | None) -> tfstream.Stream:
    return tfstream.open(place).stream(
        batch_size=task.workload.batch,
        features=list(data.FEATURES),
        label="label",
        seed=SEED,
        options=tfstream.StreamOptions(packed=True, cache=cache),
    )


def _bytes(stream: tfstream.Stream) -> int:
    return int(stream.subset.catalog.block_size.sum())


def _rates(task: Task, size_bytes: int, passes_s: list[float]) -> dict[str, float]:
    passes, seconds = len(passes_s), sum(passes_s)
    return {
        "M rows/s": task.workload.rows * passes / seconds / _MEGA,
        "MB/s": size_bytes * passes / seconds / _MEGA,
    }


def _read_once(task: Task, url: str, cache: Path) -> None:
    """Fill the cache."""
    for _ in _stream(task, url, cache).dataset():
        pass


def _empty(cache: Path) -> None:
    for path in (cache / "blocks").glob("*/*"):
        path.unlink()


@dataclass(frozen=True, slots=True)
class _Request:
    """Blocks that one request asks for."""

    blocks: list[int]
    path: str
    """Its address on the server, signed."""
    range: str | None
    size_bytes: int


def _of_requests(task: Task, url: str) -> dict[str, Any]:
    """The requests of an epoch, as many at a time as the cache makes, and nothing else."""
    stream = _stream(task, url, None)
    catalog, spec = stream.subset.catalog, stream.spec
    if task.contender == "ceiling-whole":
        every = range(len(catalog.block_rows))
        runs = [list(g) for _, g in itertools.groupby(every, lambda b: int(catalog.block_shard[b]))]
    else:
        places = Places(stream.subset, spec, WHOLE)
        seen: set[int] = set()
        runs = []
        for window in range(spec.windows_per_epoch):
            missing = sorted(set(places.reads(0, window).tolist()) - seen)
            asked = list(requests(catalog, missing, lambda block: block not in seen))
            seen.update(itertools.chain(*asked))
            runs += asked
    fs, _ = fsspec.core.url_to_fs(url)
    signed = [
        urlsplit(fs.sign(catalog.shard_path(shard).url, expiration=_SIGNED_S))
        for shard in range(catalog.shards.num_rows)
    ]
    wanted = []
    for run in runs:
        address = signed[int(catalog.block_shard[run[0]])]
        offset = int(catalog.block_offset[run[0]])
        size_bytes = sum(int(catalog.block_size[block]) for block in run)
        whole = task.contender == "ceiling-whole"
        wanted.append(
            _Request(
                run,
                f"{address.path}?{address.query}",
                None if whole else f"bytes={offset}-{offset + size_bytes - 1}",
                size_bytes,
            )
        )
    own, kind = threading.local(), http.client
    connect = kind.HTTPSConnection if signed[0].scheme == "https" else kind.HTTPConnection

    def fetch(request: _Request) -> bytes:
        if not hasattr(own, "connection"):
            own.connection = connect(signed[0].netloc)
        headers = {} if request.range is None else {"Range": request.range}
        own.connection.request("GET", request.path, headers=headers)
        with own.connection.getresponse() as response:
            return bytes(response.read())

    passes_s: list[float] = []
    with ThreadPoolExecutor(READERS) as pool:
        rows = sum(pool.map(lambda one: _rows(catalog, one, fetch(one)), wanted))
        while not passes_s or sum(passes_s) < task.workload.floor_s:
            start = time.perf_counter()
            came = sum(len(found) for found in pool.map(fetch, wanted))
            passes_s.append(time.perf_counter() - start)
    announce_measured()
    expected = task.workload.rows, _bytes(stream)
    return {
        "figures": _rates(task, expected[1], passes_s)
        | {"requests": len(wanted), "kB a request": came / len(wanted) / 1e3},
        "findings": [] if (rows, came) == expected else [f"{rows} rows, {came} bytes came"],
    }


def _rows(catalog: Any, request: _Request, found: bytes) -> int:
    """How many rows came, once each block of them is as it was written."""
    start = 0
    for block in request.blocks:
        stop = start + int(catalog.block_size[block])
        reader.decoded(catalog, block, found[start:stop])
        start = stop
    return sum(int(catalog.block_rows[block]) for block in request.blocks)


def _of_records(task: Task, url: str) -> dict[str, Any]:
    """The records of the shards, one after the other, by tensorflow-io."""
    importlib.import_module("tensorflow_io")
    tf = importlib.import_module("tensorflow")
    catalog = _stream(task, url, None).subset.catalog
    names = [catalog.shard_path(shard).url for shard in range(catalog.shards.num_rows)]

    def records() -> Iterator[Any]:
        dataset = tf.data.TFRecordDataset(names, buffer_size=_BUFFER_BYTES)
        return iter(dataset.prefetch(tf.data.AUTOTUNE))

    rows = 0
    for block, record in enumerate(records()):
        framed = framing.frame(record.numpy())
        reader.decoded(catalog, block, framed)
        rows += int(catalog.block_rows[block])
    passes_s: list[float] = []
    while not passes_s or sum(passes_s) < task.workload.floor_s:
        start = time.perf_counter()
        came = sum(1 for _ in records())
        passes_s.append(time.perf_counter() - start)
    announce_measured()
    expected = task.workload.rows, len(catalog.block_rows)
    return {
        "figures": _rates(task, int(catalog.block_size.sum()), passes_s),
        "findings": [] if (rows, came) == expected else [f"{rows} rows, {came} blocks came"],
    }
