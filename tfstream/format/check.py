"""What is wrong with a data set on disk: every finding, not the first alone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from tfstream import storage
from tfstream.errors import CorruptionError, DataError, StorageError, TfstreamError
from tfstream.format import damage, index_files, parquet, provenance, reader
from tfstream.format.canonical import digest_of
from tfstream.format.index_files import generation_folder
from tfstream.format.manifest import UNFINISHED, Catalog, open_catalog
from tfstream.storage import Place

_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it was written."""

    where: str
    """File, step or field."""
    what: str
    """What is wrong, in a sentence."""
    shard: int | None = None
    """Ordinal of the shard that it concerns, if it is one."""
    block: int | None = None
    """Ordinal of the block in the data set, if it is one block."""
    first_row: int | None = None
    """Row id of the first row that it concerns, if it concerns rows."""
    stop_row: int | None = None
    """Row id behind the last of them."""

    def __str__(self) -> str:
        """As a line for people."""
        return f"{self.where}: {self.what}"


def check_dataset(catalog: Catalog, *, sources: bool = False) -> Iterator[Finding]:
    """Check every file of a data set against its index; on request the sources too.

    Shards are read block by block, so that damage is told with its rows.
    """
    for shard, path in enumerate(catalog.shards["path"].to_pylist()):
        yield from _check_shard(catalog, shard)
        for error in _errors(partial(provenance.check_by_row, catalog, shard)):
            yield _of_shard(catalog, shard, f"provenance of {path}", error)
    for source, path in enumerate(catalog.sources["path"].to_pylist()):
        for error in _errors(partial(provenance.check_by_source, catalog, source)):
            yield Finding(where=f"provenance by source of {path}", what=error)
    yield from _check_quarantine(catalog)
    yield from _check_summaries(catalog)
    forgotten = catalog.manifest.forgotten
    since = forgotten[-1].generation if forgotten else 0
    for parent in catalog.manifest.parents[since:]:
        was = partial(open_catalog, catalog.folder, parent.digest)
        errors = _errors(was)
        for error in errors:
            yield Finding(where=f"the data set as {parent.digest}", what=error)
        if not errors:
            yield from _check_summaries(was())
    yield from _check_unknown(catalog)
    if sources:
        yield from check_sources(catalog)


def _errors(check: Callable[[], object]) -> list[str]:
    """What a check raises, if it does."""
    try:
        check()
    except TfstreamError as error:
        return [str(error)]
    return []


def _check_shard(catalog: Catalog, shard: int) -> Iterator[Finding]:
    """Check the blocks of a shard, and that it has nothing else."""
    path: str = catalog.shards["path"][shard].as_py()
    digest, damaged = hashlib.sha256(), 0
    try:
        index_files.refuse_links(catalog.folder, catalog.folder / path)
        with (catalog.folder / path).open("rb") as file:
            there = file.seek(0, os.SEEK_END)
            file.seek(0)
            blocks = np.flatnonzero(catalog.block_shard == shard)
            for block in blocks.tolist():
                framed = file.read(min(int(catalog.block_size[block]), there))
                digest.update(framed)
                try:
                    reader.decoded(catalog, block, framed)
                except CorruptionError as error:
                    damaged += 1
                    first = int(catalog.block_first[block])
                    yield Finding(
                        where=path,
                        what=str(error),
                        shard=shard,
                        block=block,
                        first_row=first,
                        stop_row=first + int(catalog.block_rows[block]),
                    )
            surplus = 0
            while rest := file.read(_READ_BYTES):
                surplus += len(rest)
    except DataError as error:
        yield _of_shard(catalog, shard, path, str(error))
        return
    except OSError as error:
        yield _of_shard(catalog, shard, path, f"it cannot be read: {error.strerror or error}")
        return
    if surplus:
        yield Finding(where=path, what=f"it has {surplus} bytes too many at its end", shard=shard)
    if not damaged and digest.hexdigest() != catalog.shards["sha256"][shard].as_py():
        yield _of_shard(catalog, shard, path, f"its SHA-256 is {digest.hexdigest()}")


def _of_shard(catalog: Catalog, shard: int, where: str, what: str) -> Finding:
    """A finding about all rows of a shard."""
    first = catalog.shards["first_row"][shard].as_py()
    rows = catalog.shards["rows"][shard].as_py()
    return Finding(where=where, what=what, shard=shard, first_row=first, stop_row=first + rows)


def _check_summaries(catalog: Catalog) -> Iterator[Finding]:
    """Check the tables of statistics, which opening does not read."""
    for name in ("statistics", "vocabulary_counts"):
        where = storage.relative(catalog.manifest.index_path(catalog.folder, name), catalog.folder)
        for error in _errors(partial(getattr, catalog, name)):
            yield Finding(where=where, what=error)


def _check_unknown(catalog: Catalog) -> Iterator[Finding]:
    """Look for shards and generations that the index does not know."""
    following = generation_folder(catalog.folder, catalog.manifest.generation + 1)
    is_newest = open_catalog(catalog.folder).digest == catalog.digest
    if is_newest and following.exists() and not (catalog.folder / UNFINISHED).exists():
        name = storage.relative(following, catalog.folder)
        yield Finding(where=name, what="it is no part of the data set: the manifest is older")
    known = set(catalog.shards["path"].to_pylist())
    for generation in range(catalog.manifest.generation + 1):
        folder = generation_folder(catalog.folder, generation) / "shards"
        for found in storage.below(folder):
            name = storage.relative(folder / found, catalog.folder)
            if name not in known:
                yield Finding(where=name, what="the index knows no such shard")


def check_sources(catalog: Catalog) -> Iterator[Finding]:
    """Check the source files, as far as they are still there, against the index."""
    if not catalog.manifest.root:
        return
    for row in catalog.sources.select(["path", "sha256"]).to_pylist():
        path = storage.place(catalog.manifest.root) / row["path"]
        yield from _check_file(path, row["path"], row["sha256"])


def _check_quarantine(catalog: Catalog) -> Iterator[Finding]:
    """Check that each row that could not be read is accounted for."""
    for source, expected in enumerate(catalog.sources["quarantined"].to_pylist()):
        if not expected:
            continue
        path = provenance.quarantine_path(catalog, source)
        where = storage.relative(path, catalog.folder)
        try:
            index_files.refuse_links(catalog.folder, path)
            table = parquet.read(path, where, rows=expected)
            with damage.told(where):
                found = digest_of(table.combine_chunks())
        except TfstreamError as error:
            yield Finding(where=where, what=f"it cannot be read: {error}")
            continue
        if found != catalog.sources["quarantine_sha256"][source].as_py():
            yield Finding(where=where, what=f"it does not account for the {expected} rows")


def _check_file(path: Place, name: str, expected: str) -> Iterator[Finding]:
    try:
        if not path.exists():
            return
        found = storage.sha256(path)
    except StorageError as error:
        yield Finding(where=name, what=str(error))
        return
    if found != expected:
        yield Finding(where=name, what=f"its SHA-256 is {found}, expected {expected}")
