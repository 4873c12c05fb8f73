"""How often each row was seen, group by group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tfstream.lineage import whereabouts

if TYPE_CHECKING:
    from tfstream.lineage.run import Run


def coverage(run: Run) -> pa.Table:
    """For each group, how many of its rows the weights have seen how often.

    Returns:
        The keys of the group, `seen` (times) and `rows`, by group and times. The rows of a group
        add up to those that the run's conditions leave of it.
    """
    catalog, subset = run.catalog, run.subset
    seen = _times(run)
    kept = np.concatenate(
        [np.empty(0, np.int64), *(subset.row_ids_in(int(block)) for block in subset.blocks)]
    )
    times, groups = seen[kept], whereabouts.groups_of(catalog, kept)
    width = int(times.max(initial=0)) + 1
    counts = np.bincount(groups * width + times, minlength=catalog.groups.num_rows * width)
    there = np.flatnonzero(counts)
    return pa.table(
        whereabouts.keys(catalog, there // width, taken=("seen", "rows"))
        | {"seen": pa.array(there % width), "rows": pa.array(counts[there])}
    )


def _times(run: Run) -> np.ndarray:
    """How often each row of the data set was in a step that the weights have seen; (rows,)."""
    seen = np.zeros(run.catalog.rows, np.int64)
    steps = run.seen
    for epoch, step in zip(
        steps["epoch"].to_pylist(), steps["step_in_epoch"].to_pylist(), strict=True
    ):
        np.add.at(seen, run.places.rows_of(epoch, step), 1)
    return seen
