"""Job parquet: the reader's own Parquet, converted and read, by tfstream and beside it.

No column is known to tell its rows apart. So what came is checked by the number of rows and by a
sum of the mixed values of one column, and tfstream by the ids of its rows, too.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pds

import tfstream
from benchmarks import data, delivery, jobs, tfstream_cases
from benchmarks.clock import Clock
from benchmarks.runner import announce_measured
from benchmarks.workload import SEED, parquet_files

if TYPE_CHECKING:
    from benchmarks.workload import Task

_Convert = Callable[[Path], Iterable[Any]]
"""Into a new folder; returns how the column that is checked, or another, is read back."""

_GROUPS = 64
_MOST_FOLDERS = 1 << 20
_FLOATS = (pa.types.is_float32, pa.types.is_float64)
"""Half floats have no Example, and few readers."""


class Sum:
    """The rows that came, and the sum of the mixed values of a column."""

    def __init__(self, column: str | None, kind: type) -> None:
        """Of values as floats of that kind; of the rows alone if there is no column."""
        self._column = column
        self._kind = kind
        self._values = self._rows = 0

    def add(self, rows: int, values: Any) -> None:
        """Note some rows, without nulls."""
        self._rows += rows
        if self._column is not None:
            bits = np.asarray(values).astype(self._kind).view(f"u{np.dtype(self._kind).itemsize}")
            self._values += int(data.mixed(bits).sum(dtype=np.uint64))

    def findings(self, dataset: pds.Dataset, rows: int) -> list[str]:
        """What differs from the first `rows` rows of the source."""
        source = Sum(self._column, self._kind)
        name = self._column or dataset.schema.names[0]
        for batch in first(dataset.scanner(columns=[name]), rows):
            source.add(batch.num_rows, batch[name])
        found = [] if self._rows == rows else [f"{self._rows} rows came, {rows} should"]
        if (self._values - source._values) % 2**64:
            found.append(f"the values of column {self._column} are others")
        return found


def first(scanner: pds.Scanner, rows: int) -> Iterator[pa.RecordBatch]:
    """The first `rows` rows in their order."""
    for batch in scanner.to_batches():
        yield batch.slice(0, rows)
        rows -= min(rows, batch.num_rows)
        if not rows:
            return


def run(task: Task) -> dict[str, Any]:
    """Measure a case."""
    dataset = pds.dataset(parquet_files(task.workload.parquet), format="parquet")
    column = _checked(dataset, task.workload.label)
    rows, has_few = dataset.count_rows(), task.contender.startswith("examples")
    if has_few:
        rows = min(rows, task.workload.examples)
    # More digits than Examples and packed tensors have cannot come from them.
    kind = np.float32 if has_few or task.contender == "tfstream-packed" else np.float64
    measure = _conversion if task.contender in _CONVERSIONS else _reading
    found = measure(task, dataset, column, rows, Sum(column, kind))
    if found is None:
        found = {"figures": _figures(0, 0.0, 0.0), "findings": []}
    return {"checked": ["rows", *([] if column is None else [column])], **found}


def _checked(dataset: pds.Dataset, label: str | None) -> str | None:
    """A column of numbers without nulls, of integers if there is one."""
    for kinds in ((pa.types.is_integer,), _FLOATS):
        for name in _columns(dataset, kinds):
            nulls = dataset.count_rows(filter=pds.field(name).is_null())
            if name != label and not nulls:
                return name
    return None


def _columns(dataset: pds.Dataset, kinds: Iterable[Callable[[pa.DataType], bool]]) -> list[str]:
    kinds = tuple(kinds)
    return [one.name for one in dataset.schema if any(is_kind(one.type) for is_kind in kinds)]


def _place(task: Task) -> Path:
    """A folder for these files as they are now, removed when all is over."""
    workload = task.workload
    files = [(path, Path(path).stat()) for path in parquet_files(workload.parquet)]
    state = [(path, found.st_size, found.st_mtime_ns) for path, found in files]
    asked = repr((state, workload.group_by, workload.examples)).encode()
    return task.folder.parent / jobs.SCRATCH / hashlib.sha256(asked).hexdigest()[:16]


def _figures(rows: int, rate: object, cpu_s: float) -> dict[str, float]:
    return {
        "M rows/s": float(cast("float", rate)) / 1e6,
        "rows": rows,
        "CPU s / M rows": cpu_s * 1e6,
    }


def _conversion(
    task: Task, dataset: pds.Dataset, column: str | None, rows: int, total: Sum
) -> dict[str, Any] | None:
    """Convert into a new folder, which is read back and removed."""
    convert = _CONVERSIONS[task.contender](task, dataset, column)
    if convert is None:
        return None
    out = _place(task) / f"out-{os.getpid()}"
    out.parent.mkdir(parents=True, exist_ok=True)
    os.sync()  # Or the contender before would write back its pages on this one's time.
    try:
        start, cpu = time.perf_counter(), time.process_time()
        read_back = convert(out)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        announce_measured()
        for values in read_back:
            total.add(len(values), values)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    figures = _figures(rows, rows / seconds, cpu / rows)
    return {"figures": figures, "findings": total.findings(dataset, rows)}


def _to_shards(task: Task, dataset: pds.Dataset, column: str | None) -> _Convert:
    importlib.import_module("tfstream.conversion.convert")  # Or its loading would count.
    name = column or dataset.schema.names[0]

    def convert(out: Path) -> Iterator[Any]:
        _convert(task, dataset, out)
        return (table[name] for table in tfstream_cases.tables(out, name))

    return convert


def _convert(task: Task, dataset: pds.Dataset, out: Path) -> None:
    groups = list(task.workload.group_by)
    if not groups:  # A hash, since the values of an unknown column may all differ.
        exact = _columns(dataset, (pa.types.is_integer, pa.types.is_string))
        groups = [f'hash("{[*exact, *dataset.schema.names][0]}", {_GROUPS})']
    tfstream.convert(parquet_files(task.workload.parquet), str(out), group_by=groups)


def _to_parquet(task: Task, dataset: pds.Dataset, column: str | None) -> _Convert:
    name = column or dataset.schema.names[0]
    # Columns can be folders, as they are in tfstream's groups; expressions cannot.
    keys = [key for key in task.workload.group_by if key in dataset.schema.names]
    fields = pa.schema(map(dataset.schema.field, keys))
    parts = pds.partitioning(fields, flavor="hive")

    def convert(out: Path) -> Iterator[Any]:
        pds.write_dataset(
            dataset, out, format="parquet", partitioning=parts, max_partitions=_MOST_FOLDERS
        )
        batches = pds.dataset(out, partitioning=parts).to_batches(columns=[name])
        return (batch[name] for batch in batches)

    return convert


def _to_nothing(task: Task, dataset: pds.Dataset, column: str | None) -> _Convert:  # noqa: ARG001 - one signature for all
    name = column or dataset.schema.names[0]
    return lambda _: [batch[name] for batch in dataset.to_batches()]


def _to_examples(task: Task, dataset: pds.Dataset, column: str | None) -> _Convert | None:
    examples = importlib.import_module("benchmarks.examples")
    specs = examples.specs_of(dataset.schema)
    if not specs:
        return None
    name = column or next(iter(specs))

    def convert(out: Path) -> Iterator[Any]:
        rows = first(dataset.scanner(columns=list(specs)), task.workload.examples)
        examples.write(rows, out, examples.plainly)
        return cast("Iterator[Any]", examples.values_of(out, name, specs[name]))

    return convert


_CONVERSIONS: dict[str, Callable[..., _Convert | None]] = {
    "tfstream-convert": _to_shards,
    "pyarrow-write": _to_parquet,
    "pyarrow-read": _to_nothing,
    "examples-write": _to_examples,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """What is read."""

    epoch: Callable[[], Iterator[tuple[int, Any]]]
    """One pass: rows of a batch, and its features."""
    values: Callable[[Any], Any]
    """Of features, those of the column that is checked, if there is one."""
    findings: Callable[[list[int]], list[str]] = lambda _: []
    """What is wrong besides, given the rows of each batch of the first epoch."""


def _reading(
    task: Task, dataset: pds.Dataset, column: str | None, rows: int, total: Sum
) -> dict[str, Any] | None:
    """Read by whole epochs; the first one is checked, and for that read to its end in any case."""
    opened = _READERS[task.contender](task, dataset, column)
    if opened is None:
        return None
    clock = Clock(floor_s=task.workload.floor_s, bound_s=task.workload.bound_s)
    lengths: list[int] = []
    is_over, cpu = False, 0.0
    for epoch in itertools.count():
        for count, features in opened.epoch():
            if epoch == 0:
                lengths.append(count)
                total.add(count, opened.values(features))
            if not is_over:
                is_over = clock.tick(epoch, count)
                if clock.rows == 0:  # It has only just begun.
                    cpu = time.process_time()
                if is_over:
                    cpu = (time.process_time() - cpu) / clock.rows
                    announce_measured()
            if is_over and epoch:
                break
        if is_over:
            break
    return {
        "figures": _figures(rows, clock.result()["rows_per_s"], cpu),
        "findings": total.findings(dataset, rows) + opened.findings(lengths),
    }


def _stream(task: Task, dataset: pds.Dataset, column: str | None) -> _Opened | None:
    """The stream, by column or, of the numbers without nulls, packed."""
    place = data.keep(_place(task) / "shards", lambda draft: _convert(task, dataset, draft))
    shards, label = tfstream.open(str(place)), task.workload.label
    packed, names = task.contender == "tfstream-packed", None
    if packed:
        numbers = _columns(dataset, (pa.types.is_integer, *_FLOATS))
        names = [n for n in numbers if n != label and not shards.statistics[n].nulls]
        if not names:
            return None
    stream = shards.stream(
        batch_size=task.workload.batch,
        features=names,
        label=label,
        seed=SEED,
        options=tfstream.StreamOptions(packed=packed),
    )
    batches = stream.dataset()

    def epoch() -> Iterator[tuple[int, Any]]:
        for batch in batches:
            features = batch if label is None else batch[0]
            yield _length(features if packed else next(iter(features.values()))), features

    def values(features: Any) -> Any:
        if column is None:
            return None
        return features[:, names.index(column)] if names else features[column]

    def findings(lengths: list[int]) -> list[str]:
        ids = [stream.row_ids(0, step) for step in range(stream.steps_per_epoch)]
        found = delivery.covered(np.concatenate(ids), shards.rows)
        return found if lengths == list(map(len, ids)) else [*found, "batches have other rows"]

    return _Opened(epoch=epoch, values=values, findings=findings)


def _named(column: str | None) -> Callable[[Any], Any]:
    return lambda features: features[column] if column else None


def _length(values: Any) -> int:
    return int(values.nrows()) if hasattr(values, "nrows") else len(values)


def _arrow(task: Task, dataset: pds.Dataset, column: str | None) -> _Opened:
    def epoch() -> Iterator[tuple[int, Any]]:
        for batch in dataset.to_batches(batch_size=task.workload.batch):
            if batch.num_rows:
                yield batch.num_rows, batch

    return _Opened(epoch=epoch, values=_named(column))


def _textbook(task: Task, dataset: pds.Dataset, column: str | None) -> _Opened | None:
    examples = importlib.import_module("benchmarks.examples")
    specs = examples.specs_of(dataset.schema)
    if not specs:
        return None

    def write(draft: Path) -> None:
        rows = first(dataset.scanner(columns=list(specs)), task.workload.examples)
        examples.write(rows, draft, examples.plainly)

    place = data.keep(_place(task) / "examples", write)
    batches = examples.pipeline(place, specs, task)

    def epoch() -> Iterator[tuple[int, Any]]:
        for batch in batches:
            yield len(next(iter(batch.values()))), batch

    return _Opened(epoch=epoch, values=_named(column))


_READERS: dict[str, Callable[..., _Opened | None]] = {
    "tfstream-packed": _stream,
    "tfstream-dict": _stream,
    "pyarrow-batches": _arrow,
    "examples-read": _textbook,
}
