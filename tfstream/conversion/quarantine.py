"""Rows that could not be read, kept beside the data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tfstream import storage
from tfstream.conversion.reading import Bad, Source
from tfstream.format.canonical import digest_of

QUARANTINE = pa.schema(
    [
        ("source", pa.string()),
        ("source_row", pa.int64()),
        ("rows", pa.int64()),
        ("byte", pa.int64()),
        ("raw", pa.binary()),
        ("reason", pa.string()),
    ]
)


def keep(folder: Path, number: int, source: Source, bad: Sequence[Bad]) -> None:
    """Write what a partition has of them, if anything, until the data set is written.

    Raises:
        StorageError: if it cannot be written.
    """
    if not bad:
        return
    table = pa.Table.from_pylist(
        [
            {
                "source": source.name,
                "source_row": one.first_row,
                "rows": one.rows,
                "byte": one.byte,
                "raw": one.raw,
                "reason": one.reason,
            }
            for one in bad
        ],
        schema=QUARANTINE,
    )
    with storage.publishing(_draft(folder, number), durable=False) as file:
        pq.write_table(table, file)


def gather(
    folder: Path, numbers: Sequence[int], out: Path, source: int
) -> tuple[int, str, Path | None]:
    """Write all that a source has of them, `quarantine/00012.parquet`, if it has any.

    Args:
        folder: where `keep` wrote.
        numbers: the source's partitions, in order.
        out: the folder of the data set.
        source: ordinal of the source.

    Returns:
        How many rows they are, SHA-256 of their values, empty if there are none, and the file.
    """
    drafts = [_draft(folder, number) for number in numbers]
    found = [pq.ParquetFile(path).read(use_threads=False) for path in drafts if path.exists()]
    if not found:
        return 0, "", None
    table = pa.concat_tables(found).combine_chunks()
    path = out / "quarantine" / f"{source:05d}.parquet"
    with storage.publishing(path, durable=False) as file:
        pq.write_table(table, file)
    return sum(table["rows"].to_pylist()), digest_of(table), path


def _draft(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}-bad.parquet"
