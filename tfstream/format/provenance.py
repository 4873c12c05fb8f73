"""Row id → (source, row of the source), and back: files whose row groups can each be checked."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tfstream import storage
from tfstream.errors import CorruptionError, UsageError
from tfstream.format import index_files, parquet
from tfstream.format.index_files import generation_folder
from tfstream.format.manifest import Catalog
from tfstream.storage import Place, PlaceT

ROW_GROUP_ROWS = 1 << 14
"""Rows of a row group, the smallest part that can be read and checked by itself."""
_DIGESTS = "sha256"
"""Key of a file's metadata: the SHA-256 of the values of each row group, in hex, one after the
other."""
_HEX = 64

_BY_ROW = pa.schema([("source", pa.int32()), ("source_row", pa.int64())])
_BY_SOURCE = pa.schema([("row_id", pa.int64())])


def write_by_row(folder: Path, shard: int, source: NDArray[Any], source_row: NDArray[Any]) -> str:
    """Write where the rows of a shard come from.

    Args:
        folder: the generation's.
        shard: its ordinal there.
        source: (rows,) ordinal there of each row's source.
        source_row: (rows,) its row there, 0-based.

    Returns:
        The SHA-256 in hex of the digests of its row groups.
    """
    table = pa.table([source.astype(np.int32), source_row.astype(np.int64)], schema=_BY_ROW)
    groups = (table.slice(at, ROW_GROUP_ROWS) for at in range(0, len(table), ROW_GROUP_ROWS))
    return _write(by_row_path(folder, shard), _BY_ROW, groups)


def write_by_source(folder: Path, source: int, row_ids: Iterable[NDArray[Any]]) -> tuple[Path, str]:
    """Write the row ids of a source's rows, given in its order in pieces of any length.

    A row that could not be read has the row id -1.

    Returns:
        The file, and the SHA-256 in hex of the digests of its row groups.
    """
    path = by_source_path(folder, source)
    groups = (pa.table([ids], schema=_BY_SOURCE) for ids in _chunks(row_ids))
    return path, _write(path, _BY_SOURCE, groups)


def _write(path: Path, schema: pa.Schema, groups: Iterable[pa.Table]) -> str:
    digests = ""
    with (
        storage.publishing(path, durable=False) as file,
        pq.ParquetWriter(
            file,
            schema,
            use_dictionary=["source"] if "source" in schema.names else False,
            column_encoding={schema.names[-1]: "DELTA_BINARY_PACKED"},
            write_page_index=True,
        ) as writer,
    ):
        for group in groups:
            writer.write_table(group)
            digests += _digest_of(group)
        writer.add_key_value_metadata({_DIGESTS: digests})
    return hashlib.sha256(digests.encode()).hexdigest()


def _digest_of(group: pa.Table) -> str:
    """SHA-256 of its columns, little-endian, in hex."""
    digest = hashlib.sha256()
    for field in group.schema:
        dtype = np.dtype(field.type.to_pandas_dtype()).newbyteorder("<")
        digest.update(np.ascontiguousarray(group[field.name].to_numpy(), dtype).data)
    return digest.hexdigest()


def rows_of_sources(catalog: Catalog, row_ids: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Where rows come from.

    Args:
        catalog: the data set.
        row_ids: (n,) int64.

    Returns:
        Source ordinal and row there, (n,) int64 each.

    Raises:
        CorruptionError: if a file is not what was written.
    """
    first = catalog.shards["first_row"].to_numpy()
    shards = np.searchsorted(first, row_ids, side="right") - 1
    source, source_row = np.empty(len(row_ids), np.int64), np.empty(len(row_ids), np.int64)

    def find(shard: int) -> None:
        wanted = np.flatnonzero(shards == shard)
        file = _of_shard(catalog, shard)
        table = file.rows(row_ids[wanted] - first[shard])
        source[wanted] = table["source"].to_numpy() + file.first_source
        source_row[wanted] = table["source_row"].to_numpy()

    # The rows of a step may be of hundreds of shards; decoding and hashing leave Python's lock.
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(find, np.unique(shards).tolist()):
            pass
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
        CorruptionError: if the file is not what was written.
    """
    file, name = _of_source(catalog, source), catalog.sources["path"][source].as_py()
    for row in source_rows:
        if not 0 <= row < file.length:
            raise UsageError(f"{name} has rows 0 to {file.length - 1}, there is no row {row}")
    table = file.rows(np.asarray(source_rows, np.int64))
    found: NDArray[np.int64] = table["row_id"].to_numpy()
    if (found >= catalog.rows).any():
        raise file.damaged()
    if (found < 0).any():
        raise UsageError(
            f"row {source_rows[np.argmax(found < 0)]} of {name} could not be read; "
            f"{quarantine_path(catalog, source)} tells why"
        )
    return found


def check_by_row(catalog: Catalog, shard: int) -> None:
    """Check where all rows of a shard come from.

    Raises:
        CorruptionError: if the file is not what was written.
    """
    _of_shard(catalog, shard).check()


def check_by_source(catalog: Catalog, source: int) -> None:
    """Check the row ids of all rows of a source.

    Raises:
        CorruptionError: if the file is not what was written.
    """
    _of_source(catalog, source).check()


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A file of either direction, and what it must hold."""

    catalog: Catalog
    path: Place
    schema: pa.Schema
    length: int
    """Rows."""
    sha256: str
    """Of the digests of its row groups."""
    what: str
    first_source: int = 0
    """The first source of its generation."""

    def rows(self, places: NDArray[Any]) -> pa.Table:
        """Rows at `places`, (n,) int64, 0-based."""
        groups, group_of = np.unique(places // ROW_GROUP_ROWS, return_inverse=True)
        table = self._checked(groups.tolist())
        # Each group before the last of the file is as long as the others.
        return table.take(group_of.reshape(-1) * ROW_GROUP_ROWS + places % ROW_GROUP_ROWS)

    def check(self) -> None:
        """Read all of it."""
        for group in range(-(-self.length // ROW_GROUP_ROWS)):
            self._checked([group])

    def damaged(self) -> CorruptionError:
        return CorruptionError(
            f"{self.path} is not what was written for {self.what}; convert again"
        )

    def _checked(self, groups: list[int]) -> pa.Table:
        """Some row groups, which are what was written."""
        index_files.refuse_links(self.catalog.folder, self.path)
        sizes = [min(ROW_GROUP_ROWS, self.length - group * ROW_GROUP_ROWS) for group in groups]
        table = parquet.read(self.path, str(self.path), rows=sum(sizes), row_groups=groups)
        digests = (table.schema.metadata or {}).get(_DIGESTS.encode(), b"")
        if (
            hashlib.sha256(digests).hexdigest() != self.sha256
            or not table.schema.equals(self.schema)
            or any(table[name].null_count for name in self.schema.names)
            or len(table) != sum(sizes)
        ):
            raise self.damaged()
        start = 0
        for group, size in zip(groups, sizes, strict=True):
            expected = digests[group * _HEX : (group + 1) * _HEX].decode("ascii", "replace")
            if _digest_of(table.slice(start, size)) != expected:
                raise self.damaged()
            start += size
        return table


def _of_shard(catalog: Catalog, shard: int) -> _File:
    parents = catalog.manifest.parents
    generation, first = _generation([parent.shards for parent in parents], shard)
    return _File(
        catalog=catalog,
        path=by_row_path(generation_folder(catalog.folder, generation), shard - first),
        schema=_BY_ROW,
        length=catalog.shards["rows"][shard].as_py(),
        sha256=catalog.shards["provenance_sha256"][shard].as_py(),
        what=f"shard {shard}",
        first_source=parents[generation - 1].sources if generation else 0,
    )


def _of_source(catalog: Catalog, source: int) -> _File:
    generation, first = _generation([p.sources for p in catalog.manifest.parents], source)
    return _File(
        catalog=catalog,
        path=by_source_path(generation_folder(catalog.folder, generation), source - first),
        schema=_BY_SOURCE,
        length=catalog.sources["rows"][source].as_py(),
        sha256=catalog.sources["by_source_sha256"][source].as_py(),
        what=f"source {source}",
    )


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
