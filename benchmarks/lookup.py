"""Job lookup: how fast a run answers, what its log takes, and whether its callback grows."""

from __future__ import annotations

import hashlib
import shutil
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pyarrow as pa
import tensorflow as tf

import tfstream
from benchmarks import data, tfstream_cases
from benchmarks.runner import announce_measured
from benchmarks.workload import SEED
from tfstream.format import expressions, manifest, provenance, pruning

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.workload import Task

_SHARDS, _SOURCES, _BLOCK_ROWS, _BATCH = 400, 100, 512, 1_000
_RANGES = 64
_NAME = "part-{:05d}.parquet"
_TIMES_ROWS = 25
"""Rows of the synthetic data set for each row of the source: 10^8 for 4 M."""
_STEPS = 1_000_000
_HIGH = 1 - 2.0**-13
"""Exact in float32; one row in 8,192 is above."""
_REPEATS = 7
_SAMPLES, _SETTLED = 20, 5
_MEGA = 1e6


def run(task: Task) -> dict[str, Any]:
    """Measure a case."""
    case = {"log": _log, "where-all": _where, "where-pruned": _where}
    return case.get(task.contender, _question)(task)


def _question(task: Task) -> dict[str, Any]:
    """A run of one epoch on a data set without shards, but with index and provenance."""
    cell = max(1, _TIMES_ROWS * task.workload.rows // (_SHARDS * _SOURCES))
    template = tfstream.open(str(tfstream_cases.kept_shards(task))).subset.catalog
    place = data.keep(task.folder / "lookup", lambda place: _write(place, template, cell))
    run, stream = _kept_run(task.folder / "lookup-run", tfstream.open(str(place)), _BATCH)
    random = np.random.default_rng(SEED)
    steps = random.integers(0, stream.steps_per_epoch, _REPEATS).tolist()
    rows = random.integers(0, stream.subset.rows, _REPEATS).tolist()
    if task.contender == "open":
        found, figures = _timed(
            lambda row: tfstream.open_run(run.folder).steps_of(row_ids=[row]), rows
        )
    elif task.contender == "step-ids":
        found, figures = _timed(lambda step: run.places.rows_of(0, step), steps)
    elif task.contender == "step-sources":
        found, figures = _timed(lambda step: run.rows(step=step), steps)
    elif task.contender == "row-id":
        found, figures = _timed(lambda row: run.steps_of(row_ids=[row]), rows)
    else:
        origins = [_origin(row, cell) for row in rows]
        found, figures = _timed(
            lambda origin: run.steps_of(source=_NAME.format(origin[0]), source_row=origin[1]),
            origins,
        )
    announce_measured()
    findings = []
    for step, row, answer in zip(steps, rows, found, strict=True):
        if task.contender == "step-ids":
            is_right = answer.tolist() == stream.row_ids(0, step).tolist()
        elif task.contender == "step-sources":
            told = (answer[name].to_pylist() for name in ("source", "source_row"))
            known = (_origin(int(i), cell) for i in stream.row_ids(0, step))
            is_right = [*zip(*told, strict=True)] == [(_NAME.format(s), r) for s, r in known]
        else:
            (one,) = answer.to_pylist()
            is_right = one["row_id"] == row and row in stream.row_ids(0, one["step"])
        if not is_right:
            findings.append(f"another answer than for step {step} or row {row}")
    return {"figures": figures, "findings": findings}


def _where(task: Task) -> dict[str, Any]:
    """Conditions on columns of shards whose groups are ranges of `id`."""
    source = data.keep(task.source, lambda place: data.write_source(place, task.workload.rows))
    convert = tfstream_cases.converter([f"bucket(id, {-(-task.workload.rows // _RANGES)})"])
    shards = tfstream.open(
        str(data.keep(task.folder / "lookup-ranges", lambda place: convert(source, place)))
    )
    run, _ = _kept_run(task.folder / "lookup-ranges-run", shards, task.workload.batch)
    ids = np.arange(shards.rows)
    wanted, text = ids[data.last_of(ids) > _HIGH], f"f31 > {_HIGH}"
    if task.contender == "where-pruned":
        wanted = ids[shards.rows // 2 :][:1]
        text = f"id = {wanted[0]}"
    (found, *_), figures = _timed(lambda text: run.steps_of(where=text), [text] * 3)
    announce_measured()
    ids_found = shards.take(found["row_id"].to_pylist(), ["id"])["id"].to_pylist()
    possible = pruning.possible_blocks(shards.subset.catalog, [expressions.parse(text)])
    return {
        "figures": figures | {"blocks read %": 100 * float(possible.mean())},
        "findings": [] if sorted(ids_found) == wanted.tolist() else ["other rows were found"],
    }


def _log(task: Task) -> dict[str, Any]:
    """The callback, fed with what windows would tell, without a model."""
    folder = task.folder / "log-run"
    shutil.rmtree(folder, ignore_errors=True)
    shards = tfstream.open(str(tfstream_cases.kept_shards(task)))
    stream = _stream(shards, task.workload.batch)
    steps = min(_STEPS, task.workload.rows // 4)
    start = time.perf_counter()
    resident, appended = _feed(stream, folder, steps)
    seconds = time.perf_counter() - start
    size = sum(path.stat().st_size for path in folder.iterdir())
    start = time.perf_counter()
    found = tfstream.open_run(folder).steps
    opened = time.perf_counter() - start
    announce_measured()
    late = resident[_SETTLED:]
    slope = np.polyfit(np.linspace(_SETTLED / _SAMPLES, 1, len(late)) * steps, late, 1)[0]
    same = np.array_equal(found["row_fingerprint"].to_numpy(), _fingerprints(0, steps))
    return {
        "figures": {
            "bytes a step": size / steps,
            "while it runs": appended / steps,
            "us a step": seconds / steps * _MEGA,
            "MB before": resident[0] / _MEGA,
            "MB after": resident[-1] / _MEGA,
            "bytes of memory a step": float(slope),
            "read back s": opened,
        },
        "resident_mb": [value / _MEGA for value in resident],
        "findings": [] if same else ["the log has other fingerprints than were told"],
    }


def _timed(ask: Callable[[Any], Any], asked: list[Any]) -> tuple[list[Any], dict[str, float]]:
    """The answers, and how long they took."""
    found, seconds = [], []
    for one in asked:
        start = time.perf_counter()
        found.append(ask(one))
        seconds.append(time.perf_counter() - start)
    return found, {"median s": float(np.median(seconds)), "slowest s": max(seconds)}


def _kept_run(
    folder: Path, shards: tfstream.Shards, batch: int
) -> tuple[tfstream.Run, tfstream.Stream]:
    """A run of one epoch, opened, which has answered a question."""
    stream = _stream(shards, batch)
    data.keep(folder, lambda place: _feed(stream, place, stream.steps_per_epoch))
    run = tfstream.open_run(folder)
    run.steps_of(row_ids=[0])
    return run, stream


def _stream(shards: tfstream.Shards, batch: int) -> tfstream.Stream:
    return shards.stream(batch_size=batch, features=["f00"], label="label", seed=SEED)


def _fingerprints(start: int, stop: int) -> np.ndarray:
    """Made-up fingerprints of steps, (steps,) uint64."""
    return data.mixed(np.arange(start, stop))


def _feed(stream: tfstream.Stream, folder: Path, steps: int) -> tuple[list[int], int]:
    """Log steps as a loop of one's own would, the pipeline's part made up.

    Returns:
        Resident bytes of the process before and at equal distances, and the bytes of the log before
        it was compacted.
    """
    spec, random, process = stream.spec, np.random.default_rng(SEED), psutil.Process()
    blocks = len(stream.subset.blocks)
    a_window = min(blocks, -(-blocks // spec.windows_per_epoch))
    callback = tfstream.LineageCallback(folder, stream)
    callback.begin()
    resident = [process.memory_info().rss]
    at = set(np.linspace(0, steps, _SAMPLES + 1).astype(int).tolist())
    stop = 0
    for step in range(steps):
        if step == stop:
            epoch, in_epoch = divmod(step, spec.steps_per_epoch)
            window, _ = spec.window_of(in_epoch)
            later = window + 1 < spec.windows_per_epoch
            end = spec.first_step(window + 1) if later else spec.steps_per_epoch
            stop = epoch * spec.steps_per_epoch + end
            told = _fingerprints(step, stop)
            reads = random.choice(blocks, a_window, replace=False).astype(np.int64)
            place = tf.constant([0, epoch, window], tf.int64)
            stream.control.put(place, np.arange(step, stop), told, told, reads)
        callback.step()
        if step + 1 in at:
            resident.append(process.memory_info().rss)
    callback.settle()
    appended = sum(path.stat().st_size for path in folder.glob("*.log"))
    callback.close()
    return resident, appended


def _origin(row: int, cell: int) -> tuple[int, int]:
    """The source and the row there of a row of the synthetic data set."""
    rest, place = divmod(row, cell)
    shard, source = divmod(rest, _SOURCES)
    return source, place * _SHARDS + int(_dealt(cell)[place, shard])


@cache
def _dealt(cell: int) -> np.ndarray:
    """(cell, shards): which of so many rows in turn of a source each shard has."""
    every = np.tile(np.arange(_SHARDS), (cell, 1))
    return np.random.default_rng(SEED).permuted(every, axis=1)


def _write(place: Path, template: manifest.Catalog, cell: int) -> None:
    """Write index and provenance of a data set whose shards are groups with rows of every source.

    A shard has `cell` rows of each source, scattered over it; row ids are by shard, source and row,
    as those of a conversion.
    """
    rows = _SOURCES * cell
    dealt = _dealt(cell)
    source = np.repeat(np.arange(_SOURCES), cell)
    by_row = [
        provenance.write_by_row(
            place, shard, source, np.tile(np.arange(cell) * _SHARDS + dealt[:, shard], _SOURCES)
        )
        for shard in range(_SHARDS)
    ]
    shard_of = np.argsort(dealt, axis=1).reshape(-1)
    in_cell = np.repeat(np.arange(cell), _SHARDS)
    by_source = [
        provenance.write_by_source(place, i, [(shard_of * _SOURCES + i) * cell + in_cell])[1]
        for i in range(_SOURCES)
    ]
    firsts = np.arange(_SHARDS) * rows
    per_shard = -(-rows // _BLOCK_ROWS)
    sizes = np.full(per_shard, _BLOCK_ROWS)
    sizes[-1] = rows - (per_shard - 1) * _BLOCK_ROWS
    block_bytes = int(template.block_size[0])
    identity = hashlib.sha256(f"lookup {cell}".encode()).hexdigest()
    nothing = hashlib.sha256().hexdigest()
    shards = pa.table(
        {
            "path": [f"shards/{i // 1000:03d}/{i:05d}.tfrecord" for i in range(_SHARDS)],
            "first_row": firsts,
            "rows": np.full(_SHARDS, rows),
            "size_bytes": np.full(_SHARDS, per_shard * block_bytes),
            "sha256": [nothing] * _SHARDS,
            "token": np.array(
                [manifest.shard_token(identity, i) for i in range(_SHARDS)], np.uint64
            ),
            "blocks": np.full(_SHARDS, per_shard),
            "provenance_sha256": by_row,
        }
    )
    all_rows = np.tile(sizes, _SHARDS)
    blocks = pa.table(
        {
            "shard": np.repeat(np.arange(_SHARDS), per_shard),
            "offset": np.tile(np.arange(per_shard) * block_bytes, _SHARDS),
            "size_bytes": np.full(len(all_rows), block_bytes),
            "rows": all_rows,
            "first_row": np.cumsum(all_rows) - all_rows,
        }
    )
    keys = {"month": np.arange(_SHARDS) // 31 + 1, "day": np.arange(_SHARDS) % 31 + 1}
    groups = pa.table(
        {
            **keys,
            "first_row": firsts,
            "rows": np.full(_SHARDS, rows),
            "first_shard": np.arange(_SHARDS),
            "shards": np.ones(_SHARDS, np.int64),
        }
    ).cast(template.groups.schema)
    sources = pa.table(
        {
            "path": [_NAME.format(i) for i in range(_SOURCES)],
            "size_bytes": np.ones(_SOURCES, np.int64),
            "sha256": [nothing] * _SOURCES,
            "rows": np.full(_SOURCES, _SHARDS * cell),
            "quarantined": np.zeros(_SOURCES, np.int64),
            "by_source_sha256": by_source,
            "quarantine_sha256": [""] * _SOURCES,
        }
    )
    document = manifest.write_index(
        place,
        replace(template.manifest, identity=identity, parents=()),
        shards=shards,
        blocks=blocks,
        groups=groups,
        sources=sources,
        vocabularies={name: v.to_pylist() for name, v in template.vocabularies.items()},
        statistics=template.statistics.slice(0, 0),
        vocabulary_counts=template.vocabulary_counts.slice(0, 0),
    )
    (place / manifest.MANIFEST).write_bytes(document)
