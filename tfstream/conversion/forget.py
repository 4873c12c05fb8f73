"""Rows whose values are to be gone: the files that hold them are written again without these.

The new files lie beside the old ones until the manifest, whose rename is the commit. Then all that
the new manifest does not name is removed; a call that was killed there leaves that to the next.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tfstream import storage
from tfstream.conversion.lock import locked
from tfstream.errors import ResumeError, UsageError
from tfstream.format import block_cache, erased, index_files, kept_statistics, reader
from tfstream.format.block_cache import Removed
from tfstream.format.document import Forgotten
from tfstream.format.manifest import (
    BLOCKS,
    MANIFEST,
    UNFINISHED,
    Catalog,
    open_catalog,
    shard_token,
    write_index,
)
from tfstream.format.recipe import Without
from tfstream.format.schema import FIRST_CODE
from tfstream.format.subset import Subset


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgetting:
    """What a call of `forget` is about."""

    catalog: Catalog
    """The data set before."""
    row_ids: NDArray[Any]
    """(rows,) int64, ascending: the rows that are not forgotten yet."""
    shards: tuple[int, ...]
    """Ordinals of the shards that hold them."""

    @property
    def sources(self) -> list[str]:
        """Where else their values may be: source files and rows that could not be read."""
        root = self.catalog.manifest.root
        table = self.catalog.sources.select(["path", "quarantined"]).to_pylist()
        found = [str(storage.place(root) / source["path"]) for source in table] if root else []
        if any(source["quarantined"] for source in table):
            found.append(f"{self.catalog.folder}: quarantine")
        return found


def planned(
    folder: str | os.PathLike[str], *, where: str | None, row_ids: list[int] | None
) -> Forgetting:
    """What would be forgotten; nothing is written.

    Raises:
        UsageError: if not exactly one of condition and row ids is given, or one is none.
    """
    catalog = open_catalog(storage.local_path(folder).absolute())
    whole = Subset.whole(catalog)
    if (where is None) is (row_ids is None):
        raise UsageError("give either a condition or row ids of what is to be forgotten")
    if where is not None:
        chosen = whole.where(where)
        parts = [chosen.row_ids_in(block) for block in chosen.blocks.tolist()]
        ids = np.concatenate([np.empty(0, np.int64), *parts])
    else:
        ids = np.unique(np.asarray(row_ids, np.int64))
        outside = ids[(ids < 0) | (ids >= catalog.rows)]
        if len(outside):
            raise UsageError(f"row ids go from 0 to {catalog.rows - 1}, there is no {outside[0]}")
        ids = ids[whole.place_of(ids)[0] >= 0]
    shards = np.unique(catalog.block_shard[_blocks_of(catalog, ids)])
    return Forgetting(catalog=catalog, row_ids=ids, shards=tuple(shards.tolist()))


def forget(found: Forgetting) -> Removed:
    """Write the files again, publish the manifest, remove what held the rows.

    Blocks of copies behind URLs that this machine's cache keeps go first, so that a call that is
    killed later has removed them; at worst they are fetched again.

    Returns:
        What was removed from the cache.

    Raises:
        ResumeError: if a conversion is at work there, or has not come to its end.
        UsageError: if the data set has changed since `planned`.
        StorageError: if a file cannot be written; the data set is as it was.
    """
    folder = storage.local_path(found.catalog.folder)
    with locked(folder):
        if any(path.is_dir() for path in (folder / UNFINISHED).iterdir()):
            raise ResumeError(
                f"a conversion into {folder} has not come to its end, and what it left may hold "
                f"the rows: repeat its call, or remove {folder / UNFINISHED}"
            )
        if open_catalog(folder).digest != found.catalog.digest:
            raise UsageError(f"{folder} has changed meanwhile; call again")
        removed = block_cache.remove(found.catalog, found.shards, block_cache.default_folder())
        _remove_unnamed(folder)
        if len(found.row_ids):
            storage.publish(folder / MANIFEST, _written(found, folder))
            _remove_unnamed(folder)
        return removed


def _written(found: Forgetting, folder: Path) -> bytes:
    """Write the shards and the index beside those that are there; the new manifest."""
    before = found.catalog
    forgotten = Forgotten(
        digest=before.digest,
        date=dt.datetime.now(dt.timezone.utc).date().isoformat(),
        generation=before.manifest.generation,
        ranges=_ranges(found.row_ids),
    )
    manifest = replace(before.manifest, forgotten=(*before.manifest.forgotten, forgotten))
    tables = _shards(found, folder, manifest.revision)
    groups = _groups(before, found.row_ids)
    after = replace(before, manifest=manifest, groups=groups, **_arrays(tables))
    statistics, counts = kept_statistics.without(before, after, found.row_ids)
    return write_index(
        folder,
        manifest,
        shards=tables["shards"],
        blocks=tables["blocks"],
        groups=groups,
        sources=before.sources,
        vocabularies=_vocabularies(before, counts),
        statistics=statistics,
        vocabulary_counts=counts,
    )


def _shards(found: Forgetting, folder: Path, revision: int) -> dict[str, pa.Table]:
    """Write the shards that hold the rows; the tables of all shards and blocks."""
    catalog = found.catalog
    shards = catalog.shards.to_pylist()
    offsets, sizes = catalog.block_offset.copy(), catalog.block_size.copy()
    for shard in found.shards:
        path = catalog.shard_path(shard)
        token = shard_token(catalog.manifest.identity, f"{shard}:{revision}")
        blocks = np.flatnonzero(catalog.block_shard == shard)
        # Not called after its group any more: that may be forgotten, too.
        home = Path(shards[shard]["path"]).parent
        name = f"{home.as_posix()}/{shard:06d}.r{revision}.tfrecord"
        digest, offset = hashlib.sha256(), 0
        with storage.publishing(folder / name) as file:
            for block, data in _erased(catalog, path, blocks, found.row_ids, token):
                file.write(data)
                digest.update(data)
                offsets[block], sizes[block] = offset, len(data)
                offset += len(data)
        shards[shard] |= {
            "path": name,
            "size_bytes": offset,
            "sha256": digest.hexdigest(),
            "token": token,
        }
    columns = {"offset": pa.array(offsets), "size_bytes": pa.array(sizes)}
    changed = catalog.blocks
    for column, values in columns.items():
        changed = changed.set_column(changed.schema.get_field_index(column), column, values)
    return {
        "shards": pa.Table.from_pylist(shards, schema=catalog.shards.schema),
        "blocks": changed.cast(BLOCKS),
    }


def _erased(
    catalog: Catalog, path: storage.Place, blocks: NDArray[Any], row_ids: NDArray[Any], token: int
) -> Iterator[tuple[int, bytes]]:
    for block in blocks.tolist():
        offset, size = int(catalog.block_offset[block]), int(catalog.block_size[block])
        framed = storage.read_range(path, offset, size)
        first, rows = int(catalog.block_first[block]), int(catalog.block_rows[block])
        low, high = np.searchsorted(row_ids, [first, first + rows])
        lost = np.zeros(rows, bool)
        lost[row_ids[low:high] - first] = True
        # What was forgotten before has been erased then.
        reader.decoded(catalog, block, framed)
        yield block, erased.erase(catalog.schema, framed, lost, token)


def _groups(catalog: Catalog, row_ids: NDArray[Any]) -> pa.Table:
    """The groups; of those without any row left the keys are null."""
    left = Subset.whole(catalog).without(Without(ranges=_ranges(row_ids)))
    stops = np.append(catalog.group_starts[1:], catalog.rows)
    gone = pa.array(left.kept_between(catalog.group_starts, stops) == 0)
    table = catalog.groups
    for name in catalog.manifest.keys:
        column = table[name]
        blank = pa.compute.if_else(gone, pa.scalar(None, column.type), column)
        table = table.set_column(table.schema.get_field_index(name), name, blank)
    return table


def _vocabularies(catalog: Catalog, counts: pa.Table) -> dict[str, list[str]]:
    """The values of each coded column; those that no row has are blanked, their codes stay."""
    found = {}
    for name, values in catalog.vocabularies.items():
        own = counts.filter(pa.compute.equal(counts["column"], name))
        used = np.zeros(len(values) + FIRST_CODE, bool)
        used[own["code"].to_numpy()[own["count"].to_numpy() > 0]] = True
        texts, taken = values.to_pylist(), set(values.to_pylist())
        for code in np.flatnonzero(~used[FIRST_CODE:]).tolist():
            blank = f"forgotten {code}"
            while blank in taken and blank != texts[code]:
                blank += "'"
            texts[code] = blank
        found[name] = texts
    return found


def _arrays(tables: Mapping[str, pa.Table]) -> dict[str, Any]:
    """The fields of a catalog that change with its shards and blocks."""
    shards, blocks = tables["shards"], tables["blocks"]
    return {
        "shards": shards,
        "blocks": blocks,
        "block_offset": np.asarray(blocks["offset"].to_numpy(), np.int64),
        "block_size": np.asarray(blocks["size_bytes"].to_numpy(), np.int64),
        "shard_tokens": shards["token"].to_numpy(),
    }


def _blocks_of(catalog: Catalog, row_ids: NDArray[Any]) -> NDArray[Any]:
    found = np.searchsorted(catalog.block_first, row_ids, side="right") - 1
    blocks: NDArray[Any] = np.unique(found)
    return blocks


def _ranges(row_ids: NDArray[Any]) -> tuple[tuple[int, int], ...]:
    cuts = np.flatnonzero(np.diff(row_ids) != 1) + 1
    runs = [run for run in np.split(row_ids, cuts) if len(run)]
    return tuple((int(run[0]), int(run[-1]) + 1) for run in runs)


def _remove_unnamed(folder: Path) -> None:
    """Remove shards and indexes that the manifest does not name, and manifests from before."""
    catalog = open_catalog(folder)
    named = set(catalog.shards["path"].to_pylist())
    revision, last = catalog.manifest.revision, catalog.manifest.generation
    for generation in range(last + 1):
        home = index_files.generation_folder(folder, generation)
        for path in sorted((home / "shards").rglob("*")):
            if path.is_file() and path.relative_to(folder).as_posix() not in named:
                path.unlink()
        if not revision:
            continue
        # As it was before can nobody open it any more.
        since = catalog.manifest.forgotten[-1].generation
        for index in home.glob(index_files.EVERY):
            is_named = index.name == index_files.name_of(revision) and generation >= since
            if not is_named:
                shutil.rmtree(index)
        if generation <= since:
            (home / index_files.PARENT).unlink(missing_ok=True)
