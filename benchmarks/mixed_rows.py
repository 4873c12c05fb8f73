"""Rows of many kinds: 13 int64 with nulls, 26 categories, 2 strings, a timestamp and a label.

The timestamp tells the id, so that rows can be told apart without a column that is there for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks import data
from benchmarks.workload import SEED

if TYPE_CHECKING:
    from pathlib import Path

INTEGERS = tuple(f"i{index:02d}" for index in range(13))
CATEGORIES = tuple(f"c{index:02d}" for index in range(26))
DISTINCT = np.geomspace(40, 5_000, len(CATEGORIES)).astype(int)
"""Distinct values of each category; the first one is the group."""
TIME = "time"
ROW_BYTES = 8 * len(INTEGERS) + 12 * len(CATEGORIES) + 40 + 13 + 8 + 1
"""Bytes of a row, texts by the length of what they say and 4 bytes for their place."""

_FILES = 8
_START_US = 1_700_000_000_000_000
_STEP_US = 1_000
_WORDS = 100


def write_source(place: Path, rows: int) -> None:
    """Write the rows as a few Parquet files, in the order of their ids."""
    data.write_files(place, rows, _FILES, table_of)


def ids_of(times: pa.ChunkedArray) -> np.ndarray:
    """The ids, int64, that timestamps or their microseconds tell."""
    return (times.cast(pa.int64()).to_numpy() - _START_US) // _STEP_US


def table_of(ids: np.ndarray) -> pa.Table:
    """The rows of some successive ids."""
    random = np.random.default_rng([SEED, len(ids), int(ids[0])])
    rows = len(ids)
    columns: dict[str, Any] = {}
    for index, name in enumerate(INTEGERS):
        nulls = random.random(rows) < 0.04 * index
        columns[name] = pa.array(random.integers(0, 2 ** (4 * index + 4), rows), mask=nulls)
    for index, (name, distinct) in enumerate(zip(CATEGORIES, DISTINCT, strict=True)):
        # Squared, so that some are frequent and most are rare.
        codes = (random.random(rows) ** 2 * distinct).astype(np.int64)
        columns[name] = _hexadecimal(codes * len(CATEGORIES) + index, "<u4")
    columns["url"] = pc.binary_join_element_wise("https://example.org", _hexadecimal(ids), "/")
    words = pa.array([f"w{word:03d}" for word in range(_WORDS)])
    two = (words.take(pa.array(random.integers(0, _WORDS, rows))) for _ in range(2))
    columns["query"] = pc.binary_join_element_wise(*two, " ")
    times = pa.array(ids * _STEP_US + _START_US)
    columns[TIME] = times.cast(pa.timestamp("us", "UTC"))
    columns["label"] = data.labels_of(ids)
    return pa.table(columns)


def _hexadecimal(values: np.ndarray, dtype: str = "<u8") -> pa.Array:
    """Strings that look random, 2 digits a byte of `dtype`, the same for the same value."""
    digits = data.mixed(values).astype(dtype).tobytes().hex().encode()
    width = 2 * np.dtype(dtype).itemsize
    places = np.arange(0, len(digits) + 1, width, dtype=np.int32)
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(places), pa.py_buffer(digits))
