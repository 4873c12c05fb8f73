"""Steps as tables: those of one log, those of all attempts, and as Parquet for other tools."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfstream import order, storage
from tfstream.errors import CorruptionError
from tfstream.format import damage, index_files, parquet
from tfstream.lineage.records import Attempt, Checked, Metrics, Steps, WindowShards
from tfstream.order import NUMPY, Spec
from tfstream.storage import Place, PlaceT

if TYPE_CHECKING:
    from tfstream.lineage.log import Log

LOGGED = pa.schema(
    [
        ("step", pa.int64()),
        ("row_fingerprint", pa.uint64()),
        ("label_fingerprint", pa.uint64()),
        ("time_s", pa.float64()),
    ]
)
"""What a log knows of a step; the metrics that it was asked for follow, float32. `time_s` is when
the step was written down, in seconds since 1970; those of a flush have the same."""

STEPS = pa.schema(
    [
        ("attempt", pa.int64()),
        ("step", pa.int64()),
        ("epoch", pa.int64()),
        ("step_in_epoch", pa.int64()),
        ("rows", pa.int64()),
        ("window", pa.int64()),
        ("row_fingerprint", pa.uint64()),
        ("label_fingerprint", pa.uint64()),
        ("time_s", pa.float64()),
        ("rolled_back", pa.bool_()),
    ]
)
"""A line a step that was trained. `step` counts over the run, `window` within the epoch.
`rolled_back`: the weights at the end of the run have not seen it. The metrics that were asked for
follow, float32."""

TESTS = pa.schema(
    [
        ("attempt", pa.int64()),
        ("phase", pa.string()),
        ("at_step", pa.int64()),
        ("step", pa.int64()),
        ("epoch", pa.int64()),
        ("step_in_epoch", pa.int64()),
        ("row_fingerprint", pa.uint64()),
        ("label_fingerprint", pa.uint64()),
    ]
)
"""`at_step` is where training stood; `step` counts over all passes of the validation's stream."""
WINDOWS = pa.schema(
    [
        ("attempt", pa.int64()),
        ("epoch", pa.int64()),
        ("window", pa.int64()),
        ("shards", pa.list_(pa.int64())),
        ("wait_s", pa.float64()),
    ]
)
"""`wait_s`: how long training waited for the window; what it had left of the one before is gone."""

_PLAIN = ("row_fingerprint", "label_fingerprint")


def path_of(log: PlaceT) -> PlaceT:
    """Where the Parquet file of a log lies."""
    return log.with_suffix(".parquet")


def logged(attempt: Attempt, steps: Sequence[Steps], metrics: Sequence[Metrics]) -> pa.Table:
    """The steps of a log; columns as in `LOGGED`."""
    pieces = [record.piece for record in steps]
    counts = [piece.stop - piece.first_step for piece in pieces]
    empty = np.empty(0, np.int64)
    number = np.concatenate([empty, *(np.arange(p.first_step, p.stop) for p in pieces)])
    rows, labels = (
        np.concatenate([empty.astype(np.uint64), *(getattr(p, name) for p in pieces)])
        for name in ("row_fingerprints", "label_fingerprints")
    )
    times = np.repeat(np.array([record.time_s for record in steps], np.float64), counts)
    values = np.full((len(number), len(attempt.metrics)), np.nan, np.float32)
    for record in metrics:
        place = number - record.first_step
        inside = np.flatnonzero((place >= 0) & (place < len(record.values)))
        values[inside] = record.values[place[inside]]
    columns = dict(zip(LOGGED.names, (number, rows, labels, times), strict=True))
    told = {name: values[:, i] for i, name in enumerate(attempt.metrics)}
    return pa.table(
        [pa.array(column, from_pandas=name in told) for name, column in (columns | told).items()],
        schema=_schema(LOGGED, attempt.metrics),
    )


def are_metrics(names: Sequence[str]) -> bool:
    """Whether columns can have these names beside those that every step has."""
    return len({*names, *STEPS.names}) == len(names) + len(STEPS)


def steps(logs: Mapping[int, Log], spec: Spec) -> pa.Table:
    """The steps of all attempts, by attempt and step; columns as in `STEPS`."""
    metrics = tuple(dict.fromkeys(n for log in logs.values() for n in log.attempt.metrics))
    rolled_back = _rolled_back(logs)
    schema = _schema(STEPS, metrics)
    tables = [schema.empty_table()]
    for number, log in logs.items():
        placed = _placed(number, log.consumed, spec)
        placed = placed.append_column("rolled_back", pa.array(rolled_back[number], pa.bool_()))
        missing = {
            name: pa.nulls(placed.num_rows, pa.float32())
            for name in metrics
            if name not in placed.column_names
        }
        for name, column in missing.items():
            placed = placed.append_column(name, column)
        tables.append(placed.select(schema.names).cast(schema))
    return pa.concat_tables(tables)


def publish(path: Path, number: int, consumed: pa.Table, spec: Spec) -> str:
    """Write the steps of an attempt as Parquet, all or nothing.

    Returns:
        SHA-256 of the file, in hex.

    Raises:
        StorageError: if it cannot be written.
    """
    table = _placed(number, consumed, spec)
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        compression="zstd",
        use_dictionary=[n for n in table.column_names if n not in {*_PLAIN, "step"}],
        column_encoding={"step": "DELTA_BINARY_PACKED"} | dict.fromkeys(_PLAIN, "PLAIN"),
        write_page_index=True,
    )
    storage.publish(path, buffer.getvalue())
    return storage.sha256(path)


def read(path: Place, sha256: str, attempt: Attempt) -> pa.Table:
    """The steps of an attempt from its Parquet file; columns as in `LOGGED`.

    Raises:
        CorruptionError: if the file is not what was written.
        StorageError: if it cannot be read.
    """
    index_files.refuse_links(path.parent, path)
    found = storage.sha256(path)
    if found != sha256:
        raise CorruptionError(f"its SHA-256 is {found}, expected {sha256}")
    schema = _schema(LOGGED, attempt.metrics)
    table = parquet.read(path, str(path), columns=schema.names)
    with damage.told(str(path)):
        found = table.cast(schema)
    if any(found[name].null_count for name in LOGGED.names):
        raise CorruptionError("a step is null")
    return found


def _schema(fixed: pa.Schema, metrics: Sequence[str]) -> pa.Schema:
    return pa.schema([*fixed, *((name, pa.float32()) for name in metrics)])


def _placed(number: int, consumed: pa.Table, spec: Spec) -> pa.Table:
    """The steps of a log, each with its place in the epochs of the spec."""
    step = consumed["step"].to_numpy()
    epoch, in_epoch = np.divmod(step, spec.steps_per_epoch)
    places = {
        "attempt": np.full(len(step), number),
        "step": step,
        "epoch": epoch,
        "step_in_epoch": in_epoch,
        "rows": order.rows_of_steps(spec, epoch, in_epoch),
        "window": order.window_with(NUMPY, spec, in_epoch),
    }
    known = {name: consumed[name] for name in consumed.column_names if name != "step"}
    return pa.table({name: pa.array(values) for name, values in places.items()} | known)


def _rolled_back(logs: Mapping[int, Log]) -> dict[int, np.ndarray]:
    """For each attempt, which of its steps the weights of the last one have not seen; bool.

    An attempt that goes on with the weights of the one before it has seen all of that. Else it
    began with new weights, or with those of a checkpoint, which had the steps before its own first.
    """
    found: dict[int, np.ndarray] = {}
    stop: int | None = None
    for number in sorted(logs, reverse=True):
        log = logs[number]
        step = log.consumed["step"].to_numpy()
        found[number] = np.zeros(len(step), bool) if stop is None else step >= stop
        first = log.attempt.first_step
        if log.attempt.goes_on:
            # What came before it was seen if any of it was.
            stop = None if stop is None or stop > first else stop
        else:
            stop = first if stop is None else min(stop, first)
    return found


def seen(all_steps: pa.Table) -> pa.Table:
    """The steps that the weights at the end of the run have seen; columns as in `STEPS`."""
    return all_steps.filter(pc.invert(all_steps["rolled_back"]))


def tests(found: Sequence[tuple[int, Checked]], spec: Spec) -> pa.Table:
    """The steps of validations and tests, each with the number of its attempt."""
    tables = [TESTS.empty_table()]
    for number, test in found:
        piece = test.steps.piece
        step = np.arange(piece.first_step, piece.stop)
        epoch, in_epoch = np.divmod(step, spec.steps_per_epoch)
        columns = {
            "attempt": np.full(len(step), number),
            "phase": [test.phase] * len(step),
            "at_step": np.full(len(step), test.at_step),
            "step": step,
            "epoch": epoch,
            "step_in_epoch": in_epoch,
            "row_fingerprint": piece.row_fingerprints,
            "label_fingerprint": piece.label_fingerprints,
        }
        tables.append(pa.table(columns, schema=TESTS))
    return pa.concat_tables(tables)


def windows(found: Sequence[tuple[int, WindowShards]]) -> pa.Table:
    """The windows that were read, each with the number of its attempt."""
    lines = [
        {
            "attempt": number,
            "epoch": window.epoch,
            "window": window.window,
            "shards": window.shards.tolist(),
            "wait_s": window.wait_s,
        }
        for number, window in found
    ]
    return pa.Table.from_pylist(lines, schema=WINDOWS)
