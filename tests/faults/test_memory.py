"""Memory is bounded by partitions and workers: not by the rows, nor by one group of most of them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfstream.conversion.convert import convert
from tfstream.conversion.options import ConvertOptions
from tfstream.conversion.progress import Progress

ROWS, GROUP_ROWS = 40_000, 4_000
OPTIONS = ConvertOptions(block_rows=128, shard_bytes=1_000_000, partition_bytes=400_000)


def peak_bytes(folder: Path, rows: int) -> dict[str, int]:
    """The most that Python and numpy hold in each stage, beyond what they held at its begin.

    One task runs at a time. Nine of ten rows are of one group, and all sources are one file.
    """
    folder.mkdir()
    numbers = np.random.default_rng(rows)
    table = pa.table(
        {
            "g": np.where(numbers.random(rows) < 0.9, 0, numbers.integers(1, 9, rows)),
            **{f"x{i}": numbers.normal(size=rows) for i in range(12)},
        }
    )
    pq.write_table(table, folder / "x.parquet", row_group_size=GROUP_ROWS, compression="none")
    peaks: dict[str, int] = {}
    stage, before = "", 0

    def progress(now: Progress) -> None:
        nonlocal stage, before
        if now.stage != stage:
            stage = now.stage
            before = tracemalloc.get_traced_memory()[0]
        else:
            held = tracemalloc.get_traced_memory()[1] - before
            peaks[stage] = max(peaks.get(stage, 0), held)
        tracemalloc.reset_peak()

    tracemalloc.start()
    try:
        convert(
            folder / "x.parquet",
            folder / "out",
            group_by=["g"],
            options=OPTIONS,
            scheduler="synchronous",
            progress=progress,
        )
    finally:
        tracemalloc.stop()
    return peaks


def test_memory_does_not_grow_with_the_rows_of_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four times the rows, and the group, take a little more: what is known of each shard."""
    monkeypatch.setattr("tfstream.conversion.shards._BATCH_SHARDS", 1)
    peak_bytes(tmp_path / "loading", ROWS)
    few, many = peak_bytes(tmp_path / "few", ROWS), peak_bytes(tmp_path / "many", 4 * ROWS)
    for stage in ("sort by group", "write shards"):
        assert many[stage] < 1.5 * few[stage], (stage, few, many)
