"""Where rows lie and where they come from."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa

from tfstream.format import provenance
from tfstream.format.manifest import Catalog


def describe_rows(catalog: Catalog, row_ids: np.ndarray) -> pa.Table:
    """Where rows lie and where they come from, in this order.

    Returns:
        row_id, the keys of the row's group, shard (its path), row_in_shard, source (its path),
        source_row. A key that has one of these names is called group_ and its name.
    """
    first = catalog.shards["first_row"].to_numpy()
    shard = np.searchsorted(first, row_ids, side="right") - 1
    source, source_row = provenance.rows_of_sources(catalog, row_ids)
    fixed = {
        "row_id": pa.array(row_ids),
        "shard": catalog.shards["path"].take(pa.array(shard)),
        "row_in_shard": pa.array(row_ids - first[shard]),
        "source": catalog.sources["path"].take(pa.array(source)),
        "source_row": pa.array(source_row),
    }
    found = keys(catalog, groups_of(catalog, row_ids), taken=fixed)
    return pa.table({"row_id": fixed.pop("row_id")} | found | fixed)


def groups_of(catalog: Catalog, row_ids: np.ndarray) -> np.ndarray:
    """The ordinal of each row's group; (rows,) int64."""
    groups: np.ndarray = np.searchsorted(catalog.group_starts, row_ids, side="right") - 1
    return groups


def keys(
    catalog: Catalog, groups: np.ndarray, *, taken: Collection[str]
) -> dict[str, pa.ChunkedArray]:
    """The keys of some groups as columns.

    Args:
        catalog: the data set.
        groups: (n,) ordinals.
        taken: names that other columns of the table have: a key of such a name is called group_
            and its name.
    """
    return {
        f"group_{name}" if name in taken else name: catalog.groups[name].take(pa.array(groups))
        for name in catalog.manifest.keys
    }
