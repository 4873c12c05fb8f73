"""Parquet files of a stranger: what they say of their sizes is checked before they are read."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from tfstream import storage
from tfstream.errors import CorruptionError
from tfstream.format import damage
from tfstream.storage import Place

_MOST_RATIO = 64
"""Bytes of decompressed pages, and rows, for each byte of a file: Snappy makes 21 of one."""
_FREE = 1 << 20
"""Bytes and rows that any file may have."""


def read(
    source: Place | bytes,
    what: str,
    *,
    rows: int | None = None,
    columns: Sequence[str] | None = None,
    row_groups: Sequence[int] | None = None,
) -> pa.Table:
    """A table, or some of its row groups, in this thread; the file's metadata is its schema's.

    Arrow's own threads may still hold the bytes when Python ends, which aborts it.

    Args:
        source: the file, or its bytes.
        what: what a message calls it.
        rows: how many it must have at most; without, a bound from the length of the file holds.
        columns: those wanted; all if None.
        row_groups: those wanted, at least one; all if None.

    Raises:
        CorruptionError: if it cannot be read, or says that it is larger than it can be.
        StorageError: if the system cannot read it.
    """
    size_bytes = len(source) if isinstance(source, bytes) else storage.size(source)
    with damage.told(what):
        where = pa.BufferReader(source) if isinstance(source, bytes) else storage.for_arrow(source)
        with storage.told_by_store(where), pq.ParquetFile(where) as file:
            about = file.metadata
            groups = range(about.num_row_groups) if row_groups is None else row_groups
            found = [about.row_group(i) for i in groups]
            # Not by its columns: pyarrow 26 ends the process at some that are damaged.
            held = sum(group.num_rows for group in found)
            unpacked = sum(group.total_byte_size for group in found)
            most = _FREE + _MOST_RATIO * size_bytes
            if held > (most if rows is None else rows) or unpacked > most:
                raise CorruptionError(
                    f"{what}: {size_bytes} bytes cannot hold {held} rows of {unpacked} bytes; "
                    "restore it or convert again"
                )
            wanted = None if columns is None else list(columns)
            if row_groups is None:
                table = file.read(wanted, use_threads=False)
            else:
                table = file.read_row_groups(list(row_groups), wanted, use_threads=False)
            table.validate(full=True)
            return table
