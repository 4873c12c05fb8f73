"""What the index says of itself, checked before anything is made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tfstream.errors import DataError
from tfstream.storage import Place


def check_paths(paths: list[str], where: Place) -> None:
    """Refuse a path that could lead out of the folder that it is relative to.

    Raises:
        DataError: with the path.
    """
    for text in paths:
        path = PurePosixPath(text)
        if path.is_absolute() or ".." in path.parts or "\0" in text:
            raise DataError(f"{text!r} is not a path inside the data set. Where: {where}")


def check_table(
    table: pa.Table, schema: pa.Schema, where: str, may_be_null: Sequence[str] = ()
) -> None:
    """Refuse a table of the index that lacks columns, has others types of them, or nulls.

    Raises:
        DataError: with the column.
    """
    for field in schema:
        if table.column_names.count(field.name) != 1:
            raise DataError(f"expected a column {field.name!r}. Where: {where}")
        column = table[field.name]
        if column.type != field.type:
            raise DataError(
                f"expected {field.type}, found {column.type}. Where: {where}: {field.name}"
            )
        if column.null_count and field.name not in may_be_null:
            raise DataError(f"expected no null. Where: {where}: {field.name}")


def check_numbers(shards: pa.Table, blocks: pa.Table, folder: Place) -> None:
    """Refuse an index whose blocks do not tile its rows, or do not lie in their shards.

    Raises:
        DataError: with the first block that does not.
    """
    shard, offset, size, rows, first = (
        np.asarray(blocks[name].to_numpy(), np.int64)
        for name in ("shard", "offset", "size_bytes", "rows", "first_row")
    )
    lengths = np.asarray(shards["size_bytes"].to_numpy(), np.int64)
    is_known = (shard >= 0) & (shard < len(lengths))
    length = lengths[np.where(is_known, shard, 0)] if len(lengths) else np.zeros(len(shard), int)
    right = is_known & (rows > 0) & (first == np.cumsum(rows) - rows)
    # Differences, since sums may overflow.
    right &= (offset >= 0) & (size > 0) & (offset <= length) & (size <= length - offset)
    if not right.all():
        block = int(np.argmin(right))
        raise DataError(
            f"block {block} does not follow on the one before, or lies outside its shard. "
            f"Where: {folder}: index/blocks.parquet"
        )


def check_tiles(tables: Mapping[str, pa.Table], keys: Sequence[str], folder: Place) -> None:
    """Refuse an index whose shards or groups do not tile its rows, or whose groups lack a key.

    Raises:
        DataError: with the table.
    """
    rows = _numbers(tables["blocks"], "rows").sum()
    for name in ("shards", "groups"):
        counts, first = (_numbers(tables[name], column) for column in ("rows", "first_row"))
        if (
            (counts < 1).any()
            or (first != np.cumsum(counts) - counts).any()
            or counts.sum() != rows
        ):
            raise DataError(
                f"the {name} do not tile the rows. Where: {folder}: index/{name}.parquet"
            )
    if tables["groups"].column_names[: len(keys)] != list(keys):
        raise DataError(f"expected the columns {keys}. Where: {folder}: index/groups.parquet")
    block_shard, block_first = (_numbers(tables["blocks"], n) for n in ("shard", "first_row"))
    starts = _numbers(tables["shards"], "first_row")
    if (block_shard != np.searchsorted(starts, block_first, side="right") - 1).any():
        raise DataError(f"a block is in a wrong shard. Where: {folder}: index/blocks.parquet")


def _numbers(table: pa.Table, name: str) -> NDArray[Any]:
    return np.asarray(table[name].to_numpy(), np.int64)
