"""A small data set with every kind of column, nulls among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import tfstream

ROWS = 700


def table(rows: int = ROWS) -> pa.Table:
    """Columns of every type; `id` numbers the rows of the source."""
    rng = np.random.default_rng(5)

    def some(values: np.ndarray, type_: pa.DataType) -> pa.Array:
        return pa.array(values, type_, mask=rng.random(rows) < 0.15)

    words = np.array(["", "ant", "bee", "cow", "dög"])
    return pa.table(
        {
            "id": np.arange(rows) * 1_000_003,
            "g": rng.integers(0, 7, rows),
            "f": some(rng.normal(size=rows), pa.float32()),
            "d": rng.normal(size=rows),
            "i": some(rng.integers(-9, 9, rows), pa.int16()),
            "u": pa.array(rng.integers(0, 2**63, rows).astype(np.uint64) * 2, pa.uint64()),
            "v": pa.array(rng.integers(0, 2**32, rows), pa.uint32()),
            "b": some(rng.random(rows) < 0.5, pa.bool_()),
            "s": some(words[rng.integers(0, 5, rows)], pa.string()),
            "seen": some(rng.integers(0, 2**50, rows), pa.timestamp("us")),
            "y": rng.normal(size=rows),
            "z": some(rng.normal(size=rows), pa.float64()),
        }
    )


def converted(folder: Path, source: pa.Table, block_rows: int = 16) -> tfstream.Shards:
    """A data set of the table, in small blocks."""
    pq.write_table(source, folder / "source.parquet")
    return tfstream.convert(
        folder / "source.parquet",
        folder / "shards",
        group_by=["g"],
        options=tfstream.ConvertOptions(block_rows=block_rows),
    )
