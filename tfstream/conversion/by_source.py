"""The row ids of each source's rows, put back into the order of the source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tfstream.conversion.placement import row_ids
from tfstream.conversion.runs import opened
from tfstream.format import provenance

OwnRun = tuple[Path, int, tuple[np.ndarray, np.ndarray]]
"""A run of a source: its file, its first row, and the row ids of its stretches."""


def write_by_source(
    folder: Path, source: int, rows: int, runs: Sequence[OwnRun]
) -> tuple[Path, str]:
    """Write the row ids of a source, -1 for rows that could not be read.

    The file and the SHA-256 of its values are returned.

    Args:
        folder: where provenance is written.
        source: ordinal of the source.
        rows: how many rows it has.
        runs: its runs, in order.
    """
    # Rows between those of two runs could not be read, nor those that follow on a run's last.
    starts = [0, *(first_row for _, first_row, _ in runs[1:]), rows]

    def pieces() -> Iterator[np.ndarray]:
        for (path, _, stretches), start, stop in zip(runs, starts, starts[1:], strict=False):
            with opened(path) as batch:
                source_rows = batch.column("source_row").to_numpy()
                yield row_ids(source_rows, stretches, start, stop - start)
        if not runs:
            yield np.full(rows, -1, np.int64)

    return provenance.write_by_source(folder, source, pieces())
