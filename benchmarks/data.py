"""The rows: 32 float32 features, an int64 id, an int8 label, and int32 month and day.

Label, last feature and group are functions of the id, and the first feature *is* the id, scaled.
So any contender's rows can be checked one by one, whether it delivers the id or not, with nothing
kept beside.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.workload import SEED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FEATURES = tuple(f"f{index:02d}" for index in range(32))
GROUPS = 365
MIN_ROWS = 1_000
"""Fewer would leave some of the source's files, and most groups, without a row."""
ID_SCALE = 2.0**24
"""The first feature times this is the id, exactly, for ids below it."""
PACKED_BYTES = 4 * len(FEATURES) + 1
"""Bytes of a row as features and label."""
ID_BYTES = 8
KEY_BYTES = 8
"""Bytes of month and day."""
STORED_BYTES = PACKED_BYTES + ID_BYTES + KEY_BYTES
"""Bytes of a row with all of its columns, as it lies in tfstream's shards."""
CHUNK = 65_536
"""Rows that are made at once, from a seed of their own."""

SKEWED_ROW_BYTES = PACKED_BYTES + ID_BYTES
"""Bytes of a row in a file that is not compressed, at least; month and day take a few bits."""

_SOURCE_FILES = 8
_ROW_GROUP = 131_072
_SKEWED_FILE_ROWS = 14 * _ROW_GROUP
_MONTH_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])


def mixed(ids: np.ndarray) -> np.ndarray:
    """Splitmix64 of the ids, uint64."""
    values = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(SEED)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def labels_of(ids: np.ndarray) -> np.ndarray:
    """The labels of the rows, 0 or 1, int8: the lowest bit of `mixed`."""
    return (mixed(ids) & np.uint64(1)).astype(np.int8)


def last_of(ids: np.ndarray) -> np.ndarray:
    """The last feature of the rows, float32 in [0, 1): the top 24 bits of `mixed`."""
    return (mixed(ids) >> np.uint64(40)).astype(np.float32) / np.float32(ID_SCALE)


def groups_of(ids: np.ndarray) -> np.ndarray:
    """The groups of the rows, int64 in [0, 365): at random, so that neighbours are strangers."""
    return (((mixed(ids) >> np.uint64(8)) & np.uint64(0xFFFFFFFF)) % np.uint64(GROUPS)).astype(
        np.int64
    )


def dates_of(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Month and day of the groups, int32 from 1: a group is a day of a year of 365."""
    starts = np.concatenate([[0], np.cumsum(_MONTH_DAYS)])
    months = np.searchsorted(starts, groups, side="right")
    return months.astype(np.int32), (groups - starts[months - 1] + 1).astype(np.int32)


def ids_of(first_feature: np.ndarray) -> np.ndarray:
    """The ids that the first feature holds, int64."""
    return np.rint(first_feature * ID_SCALE).astype(np.int64)


def chunks(rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The ids and features, (n, 32) float32, of the first `rows` rows, `CHUNK` rows at a time."""
    for number, start in enumerate(range(0, rows, CHUNK)):
        ids = np.arange(start, min(start + CHUNK, rows), dtype=np.int64)
        random = np.random.default_rng([SEED, number])
        features = random.standard_normal((CHUNK, len(FEATURES)), dtype=np.float32)[: len(ids)]
        features[:, 0] = ids / ID_SCALE
        features[:, -1] = last_of(ids)
        yield ids, features


def table_of(ids: np.ndarray, features: np.ndarray, groups: np.ndarray | None = None) -> pa.Table:
    """The rows as the source holds them, in their own groups unless others are given."""
    month, day = dates_of(groups_of(ids) if groups is None else groups)
    columns: dict[str, Any] = {name: features[:, i] for i, name in enumerate(FEATURES)}
    columns |= {"id": ids, "label": labels_of(ids), "month": month, "day": day}
    return pa.table(columns)


def write_source(place: Path, rows: int) -> None:
    """Write the rows as a few Parquet files, in the order of their ids."""
    tables = [table_of(ids, features) for ids, features in chunks(rows)]
    whole = pa.concat_tables(tables)
    per_file = -(-rows // _SOURCE_FILES)
    for number in range(_SOURCE_FILES):
        pq.write_table(
            whole.slice(number * per_file, per_file),
            place / f"part-{number:02d}.parquet",
            row_group_size=_ROW_GROUP,
            use_dictionary=["month", "day"],
        )


def write_skewed(place: Path, rows: int) -> None:
    """Write rows half of which are of the first group, uncompressed, in files of about 256 MB.

    Their ids are told by the column `id` only, since a float32 cannot tell so many.
    """
    write_files(place, rows, -(-rows // _SKEWED_FILE_ROWS), _skewed_table)


def _skewed_table(ids: np.ndarray) -> pa.Table:
    random = np.random.default_rng([SEED, int(ids[0])])
    features = random.standard_normal((len(ids), len(FEATURES)), dtype=np.float32)
    return table_of(ids, features, np.where(mixed(ids) >> np.uint64(63), 0, groups_of(ids)))


def write_files(
    place: Path, rows: int, files: int, table: Callable[[np.ndarray], pa.Table]
) -> None:
    """Write the rows of a function of ids into uncompressed Parquet files, a row group at once."""
    per_file = -(-rows // files)
    schema = table(np.arange(1)).schema
    for number in range(files):
        stop = min((number + 1) * per_file, rows)
        path = place / f"part-{number:04d}.parquet"
        with pq.ParquetWriter(path, schema, compression="none") as writer:
            for first in range(number * per_file, stop, _ROW_GROUP):
                writer.write_table(table(np.arange(first, min(first + _ROW_GROUP, stop))))


def keep(place: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a folder, unless an earlier run did; a folder that is there is whole."""
    if not place.exists():
        draft = place.with_name(f".{place.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        write(draft)
        draft.rename(place)
    return place
