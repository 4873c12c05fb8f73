"""What finished tasks leave behind, so that a conversion that was stopped goes on where it was.

A receipt is a JSON file that holds the result of one task. It is published when the task has ended,
and counts as long as each file that the result names has the size that it had then. So a task may
run twice, on two workers at once too: both write the same bytes, and the last name put wins.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from tfstream import storage
from tfstream.conversion.reading import Bad, FindOut
from tfstream.conversion.runs import Run
from tfstream.conversion.scheduling import Scheduler
from tfstream.conversion.shards import BatchRecord, ShardRecord
from tfstream.conversion.text_source import Inferred
from tfstream.errors import StorageError
from tfstream.format import strict_json

_RECORDS = {record.__name__: record for record in (Run, ShardRecord, BatchRecord, Inferred, Bad)}
_UNREADABLE = (
    *(StorageError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError),
    pa.ArrowException,
)
"""What reading a receipt ends in that is none."""
T = TypeVar("T")


class Receipts:
    """Runs the stages of a conversion, but for the tasks that have ended already."""

    def __init__(self, folder: Path, scheduler: Scheduler) -> None:
        """Keep receipts in a folder, which the workers see too."""
        self._folder = folder
        self._scheduler = scheduler

    def run(
        self,
        stage: str,
        function: Callable[..., T],
        calls: Sequence[Sequence[Any]],
        *,
        rows: Sequence[int] | None = None,
        size_bytes: int | None = None,
    ) -> list[T]:
        """The results of a function for each list of arguments, in order.

        The n-th call of a stage must be the same whenever the conversion is begun again. A result
        is made of None, numbers, strings, bytes, lists, one-dimensional arrays, tables, schemas,
        paths and records; a path in it is a file that the task wrote. Rows, those of each call, and
        bytes, those of all, are for the progress.
        """
        folder = self._folder / stage.replace(" ", "-")
        there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        results: dict[int, T] = {}
        todo = []
        for i, arguments in enumerate(calls):
            path = folder / f"{i:06d}.json"
            kept = _kept(path) if path.name in there else None
            if kept is None:
                todo.append((i, (path, function, arguments)))
            else:
                (results[i],) = kept
        fresh = self._scheduler.run(
            stage,
            _keep,
            [call for _, call in todo],
            done=len(results),
            rows=None if rows is None else [rows[i] for i in (*results, *(i for i, _ in todo))],
            size_bytes=size_bytes,
        )
        results.update(zip((i for i, _ in todo), fresh, strict=True))
        return [results[i] for i in range(len(calls))]

    def remember(self, kept: str) -> FindOut:
        """What runs tasks of this stage with receipts, and those of others without."""

        def run(
            stage: str,
            function: Callable[..., T],
            calls: Iterable[Sequence[Any]],
            *,
            size_bytes: int | None = None,
        ) -> list[T]:
            runs = self.run if stage == kept else self._scheduler.run
            return runs(stage, function, list(calls), size_bytes=size_bytes)

        return run


def _keep(receipt: Path, function: Callable[..., T], arguments: Sequence[Any]) -> T:
    """Run a task and leave its receipt."""
    result = function(*arguments)
    with storage.publishing(receipt, durable=False) as file:
        file.write(json.dumps(encode(result)).encode())
    return result


def _kept(receipt: Path) -> list[Any] | None:
    """The result in a receipt, alone in a list; None if it does not count any more."""
    try:
        return [decode(strict_json.parsed(storage.read(receipt)))]
    except _UNREADABLE:
        return None


def encode(value: Any) -> Any:  # noqa: ANN401, PLR0911 - JSON; one return a kind of value
    """A result as JSON; files with their sizes.

    Raises:
        TypeError: for a kind of value that a receipt does not hold.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    if isinstance(value, Path):
        return {"file": str(value), "size_bytes": value.stat().st_size}
    if isinstance(value, np.ndarray) and value.ndim == 1 and not value.dtype.hasobject:
        return {"array": base64.b64encode(value.tobytes()).decode(), "dtype": value.dtype.str}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, pa.Schema):
        return {"schema": base64.b64encode(value.serialize()).decode()}
    if isinstance(value, pa.Table):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, value.schema) as writer:
            writer.write_table(value)
        return {"table": base64.b64encode(sink.getvalue()).decode()}
    if type(value).__name__ in _RECORDS:
        held = {field.name: encode(getattr(value, field.name)) for field in fields(value)}
        return {"record": type(value).__name__, "fields": held}
    raise TypeError(f"a receipt cannot hold {type(value).__name__}")


def decode(value: Any) -> Any:  # noqa: ANN401, PLR0911 - JSON; one return a kind of value
    """What `encode` was given; tuples as lists.

    Raises:
        ValueError: if a file has not the size that it had.
        OSError: if it is not there.
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "file" in value:
        path = Path(value["file"])
        if path.stat().st_size != value["size_bytes"]:
            raise ValueError(f"{path} has not {value['size_bytes']} bytes any more")
        return path
    if "array" in value:
        return np.frombuffer(base64.b64decode(value["array"]), np.dtype(value["dtype"]))
    if "bytes" in value:
        return base64.b64decode(value["bytes"])
    if "schema" in value:
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(value["schema"])))
    if "table" in value:
        return pa.ipc.open_stream(base64.b64decode(value["table"])).read_all()
    held = {name: decode(item) for name, item in value["fields"].items()}
    return _RECORDS[value["record"]](**held)
