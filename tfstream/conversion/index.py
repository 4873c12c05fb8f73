"""The tables of the index, from what the tasks of a conversion wrote."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from tfstream.conversion.placement import Placement
from tfstream.conversion.plan import ShardPlan
from tfstream.conversion.shards import ShardRecord
from tfstream.conversion.sources import Sources
from tfstream.conversion.survey import Survey
from tfstream.format.document import Manifest
from tfstream.format.manifest import BLOCKS, SHARDS, SOURCES, shard_token


def shards(
    manifest: Manifest,
    plans: Sequence[ShardPlan],
    paths: Sequence[str],
    records: Sequence[ShardRecord],
) -> pa.Table:
    """A row a shard."""
    columns = [
        paths,
        [plan.first_row for plan in plans],
        [plan.rows for plan in plans],
        [record.size_bytes for record in records],
        [record.sha256 for record in records],
        [shard_token(manifest.identity, plan.ordinal) for plan in plans],
        [len(record.block_rows) for record in records],
        [record.provenance_sha256 for record in records],
    ]
    return pa.table(
        [pa.array(c, f.type) for c, f in zip(columns, SHARDS, strict=True)], schema=SHARDS
    )


def blocks(records: Sequence[ShardRecord]) -> pa.Table:
    """A row a block."""
    sizes = np.concatenate([record.block_sizes for record in records])
    rows = np.concatenate([record.block_rows for record in records])
    columns = [
        np.repeat(np.arange(len(records)), [len(record.block_rows) for record in records]),
        np.concatenate([np.cumsum(r.block_sizes) - r.block_sizes for r in records]),
        sizes,
        rows,
        np.cumsum(rows) - rows,
    ]
    return pa.table(
        [pa.array(c).cast(f.type) for c, f in zip(columns, BLOCKS, strict=True)], schema=BLOCKS
    )


def groups(placement: Placement, plans: Sequence[ShardPlan]) -> pa.Table:
    """A row a group: its key, rows and shards."""
    rows = placement.rows_per_group
    first_rows = np.cumsum(rows) - rows
    starts = np.array([plan.first_row for plan in plans])
    first = np.searchsorted(starts, first_rows, side="right") - 1
    last = np.searchsorted(starts, first_rows + rows, side="left")
    table = placement.keys
    for name, values in (("first_row", first_rows), ("rows", rows)):
        table = table.append_column(name, pa.array(values))
    for name, values in (("first_shard", first), ("shards", last - first)):
        table = table.append_column(name, pa.array(values.astype(np.int32)))
    return table


def sources(
    found: Sources,
    survey: Survey,
    hashes: Sequence[str],
    provenance: Sequence[str],
    quarantined: Sequence[tuple[int, str]],
) -> pa.Table:
    """A row a source.

    Args:
        found: the sources.
        survey: their rows.
        hashes: SHA-256 of each.
        provenance: of the row ids of its rows.
        quarantined: how many of its rows could not be read, and SHA-256 of what is kept of them.
    """
    columns = [
        [s.name for s in found.files],
        [s.size_bytes for s in found.files],
        hashes,
        survey.rows,
        [rows for rows, _ in quarantined],
        provenance,
        [digest for _, digest in quarantined],
    ]
    return pa.table(
        [pa.array(c, f.type) for c, f in zip(columns, SOURCES, strict=True)], schema=SOURCES
    )
