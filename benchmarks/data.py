"""The rows: 32 float32 features, an int64 id, an int8 label, and int32 month and day.

Label, last feature and group are functions of the id, and the first feature *is* the id, scaled.
So any contender's rows can be checked one by one, whether it delivers the id or not, with nothing
kept beside. Scaling curves have other numbers of features, groups and files.
"""

from __future__ import annotations

import shutil
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.workload import SEED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

COLUMNS, GROUPS, FILES = 32, 365, 8
MIN_ROWS = 1_000
"""Fewer would leave some of the source's files, and most groups, without a row."""
ID_SCALE = 2.0**24
"""The first feature times this is the id, exactly, for ids below it."""
MAX_ROWS = 2**30
"""No more ids than first features can tell; see `first_of`."""
ID_BYTES = 8
KEY_BYTES = 8
"""Bytes of month and day."""
CHUNK = 65_536
"""Rows that are made at once, from a seed of their own."""

_ROW_GROUP = 131_072
_SKEWED_FILE_ROWS = 14 * _ROW_GROUP
_MONTH_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_EVEN_DAYS = 28
_ONE_BITS = np.float32(1).view(np.int32)


def names(columns: int) -> tuple[str, ...]:
    """The features of rows with so many."""
    return tuple(f"f{index:02d}" for index in range(columns))


def packed_bytes(columns: int) -> int:
    """Bytes of a row as float32 features and int8 label."""
    return 4 * columns + 1


def stored_bytes(columns: int) -> int:
    """Bytes of a row with all of its columns, as it lies in tfstream's shards."""
    return packed_bytes(columns) + ID_BYTES + KEY_BYTES


FEATURES = names(COLUMNS)
PACKED_BYTES = packed_bytes(COLUMNS)
SKEWED_ROW_BYTES = PACKED_BYTES + ID_BYTES
"""Bytes of a row in a file that is not compressed, at least; month and day take a few bits."""


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


def groups_of(ids: np.ndarray, groups: int = GROUPS) -> np.ndarray:
    """The groups of the rows, int64 in [0, groups): at random, so that neighbours are strangers."""
    return (((mixed(ids) >> np.uint64(8)) & np.uint64(0xFFFFFFFF)) % np.uint64(groups)).astype(
        np.int64
    )


def dates_of(group: np.ndarray, groups: int = GROUPS) -> tuple[np.ndarray, np.ndarray]:
    """Month and day of groups, int32 from 1: a day of a year, or of many months of 28 days."""
    if groups > GROUPS:
        months, days = np.divmod(group, _EVEN_DAYS)
        return (months + 1).astype(np.int32), (days + 1).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(_MONTH_DAYS)])
    months = np.searchsorted(starts, group, side="right")
    return months.astype(np.int32), (group - starts[months - 1] + 1).astype(np.int32)


def first_of(ids: np.ndarray) -> np.ndarray:
    """The first feature of the rows, float32: a number of its own for each id below `MAX_ROWS`.

    The id over `ID_SCALE`, below 1; from 1 on, the next float32 for the next id.
    """
    scaled = (ids / ID_SCALE).astype(np.float32)
    beyond = (ids - int(ID_SCALE) + int(_ONE_BITS)).astype(np.int32).view(np.float32)
    return np.where(ids < ID_SCALE, scaled, beyond)


def ids_of(first_feature: np.ndarray) -> np.ndarray:
    """The ids that the first feature, float32, holds, int64."""
    scaled = np.rint(np.minimum(first_feature, 1) * ID_SCALE).astype(np.int64)
    bits = np.ascontiguousarray(first_feature).view(np.int32).astype(np.int64)
    return np.where(first_feature < 1, scaled, bits - int(_ONE_BITS) + int(ID_SCALE))


def chunks(rows: int, columns: int = COLUMNS) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids and features, (n, columns) float32, of the first `rows` rows, `CHUNK` rows at a time."""
    for start in range(0, rows, CHUNK):
        stop = min(start + CHUNK, rows)
        yield np.arange(start, stop), _chunk(start // CHUNK, columns)[: stop - start]


@lru_cache(maxsize=1)
def _chunk(number: int, columns: int) -> np.ndarray:
    """The features of the rows of a chunk, (CHUNK, columns) float32; not to be written to."""
    ids = np.arange(number * CHUNK, (number + 1) * CHUNK)
    random = np.random.default_rng([SEED, number])
    features = random.standard_normal((CHUNK, columns), dtype=np.float32)
    features[:, 0] = first_of(ids)
    features[:, -1] = last_of(ids)
    features.flags.writeable = False
    return features


def _rows_between(start: int, stop: int, columns: int) -> np.ndarray:
    """The features of the rows of these ids, (stop - start, columns) float32."""
    parts = [
        _chunk(number, columns)[max(start - number * CHUNK, 0) : stop - number * CHUNK]
        for number in range(start // CHUNK, -(-stop // CHUNK))
    ]
    return np.concatenate(parts)


def _table_of(
    ids: np.ndarray, features: np.ndarray, dates: tuple[np.ndarray, np.ndarray]
) -> pa.Table:
    """The rows as the source holds them."""
    columns: dict[str, Any] = dict(zip(names(features.shape[1]), features.T, strict=True))
    columns |= {"id": ids, "label": labels_of(ids)}
    columns |= dict(zip(("month", "day"), dates, strict=True))
    return pa.table(columns)


def write_source(
    place: Path, rows: int, *, columns: int = COLUMNS, groups: int = GROUPS, files: int = FILES
) -> None:
    """Write the rows as a few Parquet files, in the order of their ids."""

    def table(ids: np.ndarray) -> pa.Table:
        start, stop = int(ids[0]), int(ids[-1]) + 1
        dates = dates_of(groups_of(ids, groups), groups)
        return _table_of(ids, _rows_between(start, stop, columns), dates)

    write_files(place, rows, files, table, compression="snappy", use_dictionary=["month", "day"])


def write_skewed(place: Path, rows: int) -> None:
    """Write rows half of which are of the first group, uncompressed, in files of about 256 MB.

    Their ids are told by the column `id` only, since a float32 cannot tell so many.
    """
    write_files(place, rows, -(-rows // _SKEWED_FILE_ROWS), _skewed_table)


def _skewed_table(ids: np.ndarray) -> pa.Table:
    random = np.random.default_rng([SEED, int(ids[0])])
    features = random.standard_normal((len(ids), len(FEATURES)), dtype=np.float32)
    groups = np.where(mixed(ids) >> np.uint64(63), 0, groups_of(ids))
    return _table_of(ids, features, dates_of(groups))


def write_files(
    place: Path, rows: int, files: int, table: Callable[[np.ndarray], pa.Table], **options: Any
) -> None:
    """Write the rows of a function of ids into Parquet files, a row group at once.

    Args:
        place: the folder.
        rows: ids are those below.
        files: files of the same number of rows, but for the last.
        table: the rows of some ids.
        options: what `pyarrow.parquet.ParquetWriter` takes; by default nothing is compressed.
    """
    options = {"compression": "none"} | options
    per_file = -(-rows // files)
    schema = table(np.arange(1)).schema
    for number in range(files):
        stop = min((number + 1) * per_file, rows)
        path = place / f"part-{number:04d}.parquet"
        with pq.ParquetWriter(path, schema, **options) as writer:
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
