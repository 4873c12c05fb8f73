"""Stores of single rows: Grain over ArrayRecord, MosaicML Streaming; job read.

Each is imported where it is used, since they live in environments of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import data
from benchmarks.workload import SEED, Task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.contenders import Contender

_ROW = np.dtype([("x", "<f4", (len(data.FEATURES),)), ("label", "i1")])
_FILE = "rows.arrayrecord"
_WORKERS = 2


def prepare(place: Path, task: Task, contender: Contender) -> None:  # noqa: ARG001 - one signature for all
    """Write the rows, one record each."""
    write = {"grain-arrayrecord": _write_array_record, "mosaic-loader": _write_mds}
    write[contender.name](place, contender.rows)


def open_source(place: Path, task: Task, contender: Contender) -> Any:
    """Open them."""
    kinds = {"grain-arrayrecord": GrainRows, "mosaic-loader": MosaicRows}
    return kinds[contender.name](place, task)


def _rows(rows: int) -> Iterator[np.ndarray]:
    """The rows as a structured array, a chunk at a time."""
    for ids, features in data.chunks(rows):
        records = np.empty(len(ids), _ROW)
        records["x"], records["label"] = features, data.labels_of(ids)
        yield records


def _write_array_record(place: Path, rows: int) -> None:
    from array_record.python.array_record_module import (
        ArrayRecordWriter,
    )

    # What Grain's manual asks for, so that a row can be read alone.
    writer = ArrayRecordWriter(str(place / _FILE), "group_size:1")
    for records in _rows(rows):
        for record in records:
            writer.write(record.tobytes())
    writer.close()


def _write_mds(place: Path, rows: int) -> None:
    from streaming import MDSWriter

    columns = {"x": f"ndarray:float32:{len(data.FEATURES)}", "label": "int8"}
    with MDSWriter(out=str(place / "mds"), columns=columns) as writer:
        for records in _rows(rows):
            for record in records:
                writer.write({"x": record["x"], "label": record["label"]})


class GrainRows:
    """`MapDataset` of row numbers: shuffle, batch, by threads; a batch's rows are read at once.

    Row by row, as the source gives them to a `MapDataset`, is 30 times slower.
    """

    def __init__(self, place: Path, task: Task) -> None:
        """Over the one file of `place`."""
        import grain

        source = grain.sources.ArrayRecordDataSource(str(place / _FILE))
        self._dataset = (
            grain.MapDataset.range(len(source))
            .seed(SEED)
            .shuffle()
            .batch(
                task.workload.batch,
                batch_fn=lambda rows: _decoded(source.__getitems__([int(row) for row in rows])),
            )
        )
        self._epoch = 0

    def epoch(self) -> Iterator[tuple[Any, Any]]:
        """One pass, newly shuffled: (n, 32) float32, (n,) int8."""
        shuffled = self._dataset if self._epoch == 0 else self._dataset.repeat(self._epoch + 1)
        length = len(self._dataset)
        yield from shuffled.slice(slice(self._epoch * length, None)).to_iter_dataset()
        self._epoch += 1


def _decoded(records: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    rows = np.frombuffer(b"".join(records), _ROW)
    return rows["x"], rows["label"]


class MosaicRows:
    """`StreamingDataset`, shuffled by itself, in a `DataLoader` with worker processes."""

    def __init__(self, place: Path, task: Task) -> None:
        """Over the shards of `place`."""
        from streaming import StreamingDataset
        from torch.utils.data import DataLoader

        batch = task.workload.batch
        dataset = StreamingDataset(
            local=str(place / "mds"), shuffle=True, shuffle_seed=SEED, batch_size=batch
        )
        self._loader = DataLoader(dataset, batch_size=batch, num_workers=_WORKERS)

    def epoch(self) -> Iterator[tuple[Any, Any]]:
        """One pass, newly shuffled: (n, 32) float32, (n,) int8."""
        for batch in self._loader:
            yield batch["x"].numpy(), batch["label"].numpy()
