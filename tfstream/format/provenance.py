"""Row id → (source, row of the source), and back; both delta-encoded with a page index."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tfstream import storage
from tfstream.errors import CorruptionError, UsageError
from tfstream.format import damage, index_files, parquet
from tfstream.format.index_files import generation_folder
from tfstream.format.manifest import Catalog
from tfstream.storage import Place, PlaceT

ROW_GROUP_ROWS = 1 << 20
"""Rows of a row group of the files by source."""

_BY_ROW = pa.schema([("source", pa.int32()), ("source_row", pa.int64())])
_BY_SOURCE = pa.schema([("row_id", pa.int64())])


def digest_of(source: NDArray[Any], source_row: NDArray[Any]) -> str:
    """SHA-256 of the provenance of a shard's rows, in hex."""
    return hashlib.sha256(
        source.astype("<i4").tobytes() + source_row.astype("<i8").tobytes()
    ).hexdigest()


def write_by_row(folder: Path, shard: int, source: NDArray[Any], source_row: NDArray[Any]) -> str:
    """Write where the rows of a shard come from.

    Args:
        folder: the generation's.
        shard: its ordinal there.
        source: (rows,) ordinal there of each row's source.
        source_row: (rows,) its row there, 0-based.

    Returns:
        `digest_of` them.
    """
    table = pa.table([source.astype(np.int32), source_row.astype(np.int64)], schema=_BY_ROW)
    with storage.publishing(by_row_path(folder, shard), durable=False) as file:
        pq.write_table(
            table,
            file,
            use_dictionary=["source"],
            column_encoding={"source_row": "DELTA_BINARY_PACKED"},
            write_page_index=True,
        )
    return digest_of(source, source_row)


def write_by_source(folder: Path, source: int, row_ids: Iterable[NDArray[Any]]) -> tuple[Path, str]:
    """Write the row ids of a source's rows, given in its order in pieces of any length.

    A row that could not be read has the row id -1.

    Returns:
        The file, and the SHA-256 in hex of the row ids.
    """
    path, digest = by_source_path(folder, source), hashlib.sha256()
    with (
        storage.publishing(path, durable=False) as file,
        pq.ParquetWriter(
            file,
            _BY_SOURCE,
            use_dictionary=False,
            column_encoding={"row_id": "DELTA_BINARY_PACKED"},
            write_page_index=True,
        ) as writer,
    ):
        for ids in _chunks(row_ids):
            digest.update(ids.astype("<i8").tobytes())
            writer.write_table(pa.table([ids], schema=_BY_SOURCE), row_group_size=ROW_GROUP_ROWS)
    return path, digest.hexdigest()


def shard_provenance(catalog: Catalog, shard: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Source and row there, (rows,) int64 each, of the rows of a shard.

    Raises:
        CorruptionError: if the file is not what was written.
    """
    generation, first = _generation([p.shards for p in catalog.manifest.parents], shard)
    path = by_row_path(generation_folder(catalog.folder, generation), shard - first)
    rows = catalog.shards["rows"][shard].as_py()
    table = _read(catalog, path, None, _BY_ROW, rows)
    source, row = (np.asarray(table[name].to_numpy(), np.int64) for name in _BY_ROW.names)
    if digest_of(source, row) != catalog.shards["provenance_sha256"][shard].as_py():
        raise CorruptionError(f"{path} is not what was written for shard {shard}; convert again")
    return source + (catalog.manifest.parents[generation - 1].sources if generation else 0), row


def rows_of_sources(catalog: Catalog, row_ids: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Where rows come from.

    Args:
        catalog: the data set.
        row_ids: (n,) int64.

    Returns:
        Source ordinal and row there, (n,) int64 each.
    """
    first = catalog.shards["first_row"].to_numpy()
    shards = np.searchsorted(first, row_ids, side="right") - 1
    source, source_row = np.empty(len(row_ids), np.int64), np.empty(len(row_ids), np.int64)
    for shard in np.unique(shards):
        wanted = shards == shard
        sources, rows = shard_provenance(catalog, int(shard))
        places = row_ids[wanted] - first[shard]
        source[wanted], source_row[wanted] = sources[places], rows[places]
    return source, source_row


def row_ids_of(catalog: Catalog, source: int, source_rows: NDArray[Any]) -> NDArray[Any]:
    """The row ids of rows of a source.

    Args:
        catalog: the data set.
        source: ordinal of the source.
        source_rows: (n,) 0-based.

    Returns:
        (n,) int64.

    Raises:
        UsageError: if the source has no such row, or it could not be read.
        CorruptionError: if the files of the two directions do not agree.
    """
    rows = catalog.sources["rows"][source].as_py()
    for row in source_rows:
        if not 0 <= row < rows:
            name = catalog.sources["path"][source].as_py()
            raise UsageError(f"{name} has rows 0 to {rows - 1}, there is no row {row}")
    generation, first = _generation([p.sources for p in catalog.manifest.parents], source)
    path = by_source_path(generation_folder(catalog.folder, generation), source - first)
    groups = np.asarray(source_rows, np.int64) // ROW_GROUP_ROWS
    found = np.empty(len(groups), np.int64)
    for group in np.unique(groups):
        wanted = groups == group
        ids = _read(catalog, path, int(group), _BY_SOURCE, ROW_GROUP_ROWS)["row_id"].to_numpy()
        places = source_rows[wanted] - group * ROW_GROUP_ROWS
        if len(ids) <= places.max():
            raise _damaged(path, source)
        found[wanted] = ids[places]
    # What the other direction tells is checked by its hash.
    there = found >= 0
    back = rows_of_sources(catalog, np.minimum(found[there], catalog.rows - 1))
    if (back[0] != source).any() or (back[1] != source_rows[there]).any():
        raise _damaged(path, source)
    if not there.all():
        check_by_source(catalog, source)
        name, row = catalog.sources["path"][source].as_py(), source_rows[np.argmax(found < 0)]
        raise UsageError(
            f"row {row} of {name} could not be read; {quarantine_path(catalog, source)} tells why"
        )
    return found


def check_by_source(catalog: Catalog, source: int) -> None:
    """Check the row ids of all rows of a source.

    Raises:
        CorruptionError: if the file is not what was written.
    """
    generation, first = _generation([p.sources for p in catalog.manifest.parents], source)
    path = by_source_path(generation_folder(catalog.folder, generation), source - first)
    digest = hashlib.sha256()
    index_files.refuse_links(catalog.folder, path)
    with damage.told(str(path)):
        groups = pq.read_metadata(storage.for_arrow(path)).num_row_groups
    for group in range(groups):
        ids = _read(catalog, path, group, _BY_SOURCE, ROW_GROUP_ROWS)["row_id"].to_numpy()
        digest.update(ids.astype("<i8").tobytes())
    if digest.hexdigest() != catalog.sources["by_source_sha256"][source].as_py():
        raise _damaged(path, source)


def _damaged(path: Place, source: int) -> CorruptionError:
    return CorruptionError(f"{path} is not what was written for source {source}; convert again")


def quarantine_path(catalog: Catalog, source: int) -> Place:
    """Where the rows of a source that could not be read lie, if there are any."""
    generation, first = _generation([p.sources for p in catalog.manifest.parents], source)
    folder = generation_folder(catalog.folder, generation)
    return folder / "quarantine" / f"{source - first:05d}.parquet"


def find_source(catalog: Catalog, name: str) -> int:
    """The source of this path, or whose path ends so.

    Raises:
        UsageError: if there is none, or more than one.
    """
    paths = catalog.sources["path"].to_pylist()
    if name in paths:
        return int(paths.index(name))
    parts = PurePosixPath(name).parts
    found = [i for i, path in enumerate(paths) if PurePosixPath(path).parts[-len(parts) :] == parts]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{name!r} fits {' and '.join(paths[i] for i in found)}; give more of the path"
        )
    raise UsageError(f"there is no source {name!r}; the sources are {', '.join(paths[:10])}")


def _generation(ends: Sequence[int], ordinal: int) -> tuple[int, int]:
    """Which generation a shard or source is of, and the first one there.

    Args:
        ends: how many there were before each append.
        ordinal: the place among those of all generations.
    """
    generation = bisect_right(ends, ordinal)
    return generation, ends[generation - 1] if generation else 0


def by_row_path(folder: PlaceT, shard: int) -> PlaceT:
    """Where the provenance of a shard lies, counted in its generation."""
    return folder / "provenance" / "by-row" / f"{shard // 1000:03d}" / f"{shard:05d}.parquet"


def by_source_path(folder: PlaceT, source: int) -> PlaceT:
    """Where the row ids of a source lie, counted in its generation."""
    return folder / "provenance" / "by-source" / f"{source:05d}.parquet"


def _read(
    catalog: Catalog, path: Place, row_group: int | None, schema: pa.Schema, rows: int
) -> pa.Table:
    """A file, or a group of its rows, which must have these columns and no null."""
    index_files.refuse_links(catalog.folder, path)
    table = parquet.read(path, str(path), rows=rows, row_group=row_group)
    is_other = not table.schema.equals(schema)
    if is_other or any(table[name].null_count for name in schema.names):
        raise CorruptionError(f"{path} has other columns than were written; convert again")
    return table


def _chunks(pieces: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """The same values in arrays of `ROW_GROUP_ROWS`, the last one shorter."""
    held: list[NDArray[Any]] = []
    for piece in pieces:
        held.append(piece)
        while sum(map(len, held)) >= ROW_GROUP_ROWS:
            joined = np.concatenate(held)
            yield joined[:ROW_GROUP_ROWS]
            held = [joined[ROW_GROUP_ROWS:]]
    rest = np.concatenate(held) if held else np.empty(0, np.int64)
    if len(rest):
        yield rest
