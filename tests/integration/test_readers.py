"""The Parquet file of an attempt, read by pandas, DuckDB and polars."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import keras
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tfstream
from tfstream.lineage import callback

Columns = dict[str, list[Any]]


def with_pandas(path: Path) -> Columns:
    """Its columns."""
    return {str(name): column.tolist() for name, column in pd.read_parquet(path).items()}


def with_duckdb(path: Path) -> Columns:
    """Its columns."""
    found = duckdb.read_parquet(str(path))
    lines = found.fetchall()
    return {name: [line[i] for line in lines] for i, name in enumerate(found.columns)}


def with_polars(path: Path) -> Columns:
    """Its columns."""
    return pl.read_parquet(path).to_dict(as_series=False)


READERS: list[Callable[[Path], Columns]] = [with_pandas, with_duckdb, with_polars]


class Copying(keras.callbacks.Callback):
    """Reads the file that is there when the second epoch begins."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.found: list[Columns] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Read it."""
        if epoch == 1:
            self.found = [read(self.path) for read in READERS]


def test_other_tools_read_the_steps_while_a_run_goes_on_and_when_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All columns are those of `Run.steps`; the copy of a running attempt has the first epoch."""
    monkeypatch.setattr(callback, "_PUBLISH_S", 0.0)
    pq.write_table(
        pa.table(
            {"g": np.arange(100) % 3, "x": np.arange(100.0) / 100, "y": np.arange(100.0) / 100}
        ),
        tmp_path / "source.parquet",
    )
    shards = tfstream.convert(tmp_path / "source.parquet", tmp_path / "out", group_by=["g"])
    stream = shards.stream(batch_size=16, features=["x"], label="y", seed=1)
    inputs = {"x": keras.Input((1,), name="x")}
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs["x"]))
    model.compile("sgd", "mse")
    lineage = tfstream.LineageCallback(tmp_path / "run", stream, metrics=["loss"])
    path = tmp_path / "run" / "attempt-000.parquet"
    copying = Copying(path)
    model.fit(stream.dataset(), epochs=2, shuffle=False, verbose=0, callbacks=[lineage, copying])
    steps = tfstream.open_run(tmp_path / "run").steps.drop_columns("rolled_back")
    per_epoch = stream.steps_per_epoch
    assert steps.num_rows == 2 * per_epoch

    def exact(columns: Columns) -> dict[str, list[str]]:
        return {name: [repr(value) for value in values] for name, values in columns.items()}

    for read in READERS:
        assert exact(read(path)) == exact(steps.to_pydict()), read.__name__
    for found in copying.found:
        known = {name: values for name, values in found.items() if name != "time_s"}
        whole = steps.slice(0, per_epoch).drop_columns("time_s").to_pydict()
        assert exact(known) == exact(whole)
    assert len(copying.found) == len(READERS)
