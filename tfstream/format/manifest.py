"""The manifest and the index: what a data set consists of, and the digest that is its identity."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tfstream import storage
from tfstream.errors import CorruptionError, DataError, UsageError
from tfstream.format import damage, index_checks, index_files, strict_json
from tfstream.format.canonical import canonical
from tfstream.format.document import Manifest, document_sha256
from tfstream.format.document import check as check_document
from tfstream.format.index_files import PARENT
from tfstream.format.schema import Schema
from tfstream.format.statistics import STATISTICS, VOCABULARY_COUNTS
from tfstream.storage import Place

MANIFEST = "manifest.json"

UNFINISHED = ".tmp"
"""Folder inside the output whose being there says that a conversion has not come to its end."""

SHARDS = pa.schema(
    [
        ("path", pa.string()),
        ("first_row", pa.int64()),
        ("rows", pa.int64()),
        ("size_bytes", pa.int64()),
        ("sha256", pa.string()),
        ("token", pa.uint64()),
        ("blocks", pa.int64()),
        ("provenance_sha256", pa.string()),
    ]
)
BLOCKS = pa.schema(
    [
        ("shard", pa.int32()),
        ("offset", pa.int64()),
        ("size_bytes", pa.int64()),
        ("rows", pa.int32()),
        ("first_row", pa.int64()),
    ]
)
SOURCES = pa.schema(
    [
        ("path", pa.string()),
        ("size_bytes", pa.int64()),
        ("sha256", pa.string()),
        ("rows", pa.int64()),
        ("quarantined", pa.int64()),
        ("by_source_sha256", pa.string()),
        ("quarantine_sha256", pa.string()),
    ]
)
_VOCABULARIES = pa.schema([("column", pa.string()), ("value", pa.string())])
_SCHEMAS = {
    "shards": SHARDS,
    "blocks": BLOCKS,
    "groups": pa.schema([("first_row", pa.int64()), ("rows", pa.int64())]),
    "sources": SOURCES,
    "vocabularies": _VOCABULARIES,
}
"""The columns of each table; groups have their keys too."""
_TABLES = ("shards", "blocks", "groups", "sources", "vocabularies")
_SUMMARIES = {"statistics": STATISTICS, "vocabulary_counts": VOCABULARY_COUNTS}
_UNKNOWN = ("min", "max", "mean", "m2", "distinct")
"""What a span of statistics need not have."""


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """An open data set: its manifest and index, checked against its digest."""

    folder: Place
    manifest: Manifest
    digest: str
    index_sha256: Mapping[str, str]
    """SHA-256 in hex of the file of each table of the index, by the table's name."""
    shards: pa.Table
    blocks: pa.Table
    groups: pa.Table
    sources: pa.Table
    vocabularies: Mapping[str, pa.Array]
    """The values of each coded column, sorted, then the sorted new ones of each append; the code of
    value i is `FIRST_CODE + i`."""
    block_shard: NDArray[Any]
    block_offset: NDArray[Any]
    block_size: NDArray[Any]
    """Framed bytes."""
    block_rows: NDArray[Any]
    block_first: NDArray[Any]
    """Row id of the first row of each block."""
    shard_tokens: NDArray[Any]

    @property
    def schema(self) -> Schema:
        """The columns."""
        return self.manifest.schema

    @property
    def rows(self) -> int:
        """Rows of the data set."""
        return int(self.block_rows.sum())

    @cached_property
    def group_starts(self) -> NDArray[Any]:
        """Row id of the first row of each group."""
        return np.asarray(self.groups["first_row"])

    @cached_property
    def statistics(self) -> pa.Table:
        """The entries of all spans, read when first asked for; see `format.statistics`."""
        return self._summary("statistics")

    @cached_property
    def vocabulary_counts(self) -> pa.Table:
        """The counts of codes in all spans, read when first asked for."""
        return self._summary("vocabulary_counts")

    def _summary(self, name: str) -> pa.Table:
        path = self.manifest.index_path(self.folder, name)
        table = index_files.read_table(self.folder, path, self.index_sha256[name])
        index_checks.check_table(table, _SUMMARIES[name], str(path), _UNKNOWN)
        return table

    def shard_path(self, shard: int) -> Place:
        """Where a shard lies."""
        path: str = self.shards["path"][shard].as_py()
        return self.folder / path


def shard_token(identity: str, ordinal: int | str) -> int:
    """64 bits for the headers of a shard, which no other shard of any other conversion has."""
    digest = hashlib.sha256(f"{identity}:{ordinal}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def write_index(  # noqa: PLR0913 - one argument a table
    folder: Path,
    manifest: Manifest,
    *,
    shards: pa.Table,
    blocks: pa.Table,
    groups: pa.Table,
    sources: pa.Table,
    vocabularies: Mapping[str, list[str]],
    statistics: pa.Table,
    vocabulary_counts: pa.Table,
) -> bytes:
    """Write the index.

    Returns:
        The manifest, to be published when all else is on the disk.
    """
    columns = [name for name, values in vocabularies.items() for _ in values]
    values = [value for values in vocabularies.values() for value in values]
    tables = {
        "shards": shards.cast(SHARDS),
        "blocks": blocks.cast(BLOCKS),
        "groups": groups,
        "sources": sources.cast(SOURCES),
        "vocabularies": pa.table([columns, values], schema=_VOCABULARIES),
    }
    written = {}
    for name, table in (
        tables | {"statistics": statistics, "vocabulary_counts": vocabulary_counts}
    ).items():
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        storage.publish(manifest.index_path(folder, name), buffer.getvalue())
        written[name] = hashlib.sha256(buffer.getvalue()).hexdigest()
    if manifest.parents and manifest.parents[-1].digest == _parse(folder, folder / MANIFEST)[0]:
        parent = index_files.generation_folder(folder, manifest.generation) / PARENT
        storage.publish(parent, storage.read(folder / MANIFEST))
    digest = _digest(manifest, tables)
    rows = sum(blocks["rows"].to_pylist())
    return manifest.to_json(digest=digest, rows=rows, index_sha256=written)


def open_catalog(folder: Place, digest: str | None = None) -> Catalog:
    """Open a data set.

    Args:
        folder: where it lies.
        digest: that of the data set before an append, to open it as it was then.

    Raises:
        UsageError: if there is none in the folder, or none of this digest.
        DataError: if its manifest is not one of this format.
        CorruptionError: if the index is not what the manifest's digest was made of, or there is a
            generation that the manifest does not know.
    """
    path, newest, manifest, hashes = _found(folder, digest)
    tables = {
        name: index_files.read_table(folder, manifest.index_path(folder, name), hashes[name])
        for name in _TABLES
    }
    with damage.told(f"the index of {folder}"):
        for name, schema in _SCHEMAS.items():
            index_checks.check_table(tables[name], schema, f"{folder}: index/{name}.parquet")
        if _digest(manifest, tables) != newest:
            raise CorruptionError(
                f"the index of {folder} is not the one that {path} was written for: "
                "its digest differs; restore the folder or convert again"
            )
        for name in ("shards", "sources"):
            where = manifest.index_path(folder, name)
            index_checks.check_paths(tables[name]["path"].to_pylist(), where)
        index_checks.check_numbers(tables["shards"], tables["blocks"], folder)
        index_checks.check_tiles(tables, manifest.keys, folder)
        for parent in manifest.parents:
            if parent.shards > len(tables["shards"]) or parent.sources > len(tables["sources"]):
                raise DataError(f"a parent has more shards or sources. Where: {path}: parents")
        vocabulary = tables["vocabularies"]
        blocks, shards = tables["blocks"], tables["shards"]
        return Catalog(
            folder=folder,
            manifest=manifest,
            digest=newest,
            index_sha256=hashes,
            shards=shards,
            blocks=blocks,
            groups=tables["groups"],
            sources=tables["sources"],
            vocabularies={
                column.name: vocabulary.filter(pa.compute.equal(vocabulary["column"], column.name))[
                    "value"
                ].combine_chunks()
                for column in manifest.schema.columns
                if column.coded
            },
            block_shard=_int64(blocks["shard"]),
            block_offset=_int64(blocks["offset"]),
            block_size=_int64(blocks["size_bytes"]),
            block_rows=_int64(blocks["rows"]),
            block_first=_int64(blocks["first_row"]),
            shard_tokens=shards["token"].to_numpy(),
        )


def _found(folder: Place, digest: str | None) -> tuple[Place, str, Manifest, dict[str, str]]:
    """The manifest to open, with its file, digest and the SHA-256 of each table's file."""
    path = folder / MANIFEST
    if not path.is_file():
        raise UsageError(
            f"there is no data set in {folder}: {path} does not exist; give convert's output"
        )
    newest, manifest, hashes = _parse(folder, path)
    if _is_superseded(folder, manifest):
        # An append may have come to its end since the manifest was read.
        if _parse(folder, path)[0] != newest:
            return _found(folder, digest)
        following = index_files.generation_folder(folder, manifest.generation + 1)
        raise CorruptionError(
            f"{path} is older than {following}; restore the newer one, or remove that folder if "
            "its append was given up"
        )
    if digest is not None and digest != newest:
        _refuse_forgotten(folder, manifest, digest)
        ordinals = {parent.digest: i for i, parent in enumerate(manifest.parents)}
        if digest not in ordinals:
            raise UsageError(
                f"{folder} holds the data set {newest}, which was never {digest}; "
                "give the folder of the latter"
            )
        path = index_files.generation_folder(folder, ordinals[digest] + 1) / PARENT
        newest, manifest, hashes = _parse(folder, path)
        if newest != digest:
            raise CorruptionError(
                f"{path} is the manifest of {newest}, expected {digest}; restore it"
            )
    return path, newest, manifest, hashes


def _refuse_forgotten(folder: Place, manifest: Manifest, digest: str) -> None:
    for one in manifest.forgotten:
        if digest in {one.digest, *(p.digest for p in manifest.parents[: one.generation])}:
            raise UsageError(
                f"rows of the data set {digest} were forgotten on {one.date}, so it cannot be "
                f"opened as it was; {folder} holds it without them"
            )


def _is_superseded(folder: Place, manifest: Manifest) -> bool:
    """Whether there is a whole generation behind that of a manifest, which no append is making."""
    following = index_files.generation_folder(folder, manifest.generation + 1)
    return (following / PARENT).exists() and not (folder / UNFINISHED).exists()


def _parse(folder: Place, path: Place) -> tuple[str, Manifest, dict[str, str]]:
    """The digest, the manifest, and the SHA-256 of each table's file."""
    where = f"Where: {path}"
    try:
        document = strict_json.parsed(index_files.read_inside(folder, path))
    except ValueError as error:
        raise DataError(f"the manifest is not JSON: {error}. {where}") from error
    check_document(document, where)
    if document_sha256(document) != document["manifest_sha256"]:
        raise CorruptionError(
            f"the manifest is not what was written: its SHA-256 differs; restore it. {where}"
        )
    hashes = document["index_sha256"]
    if set(hashes) != {*_TABLES, *_SUMMARIES}:
        raise DataError(f"expected a hash for each table. {where}: index_sha256")
    return document["digest"], Manifest.from_json(document), hashes


def _digest(manifest: Manifest, tables: Mapping[str, pa.Table]) -> str:
    """SHA-256 over the manifest and the values of the index, whatever Parquet's bytes are."""
    digest = hashlib.sha256()
    head = {
        "format": manifest.format,
        "identity": manifest.identity,
        "keys": manifest.keys,
        "group_by": manifest.group_by,
        "options": dict(manifest.options),
        "schema": manifest.schema.to_json(),
        "parents": [asdict(parent) for parent in manifest.parents],
        "forgotten": [asdict(one) | {"date": ""} for one in manifest.forgotten],
    }
    digest.update(json.dumps(head, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(tables):
        digest.update(f"\n{name} {tables[name].num_rows}\n".encode())
        for column in tables[name].column_names:
            digest.update(f"{column}\n".encode())
            for part in canonical(tables[name][column]):
                digest.update(part)
    return digest.hexdigest()


def _int64(values: pa.ChunkedArray) -> NDArray[Any]:
    return np.asarray(values.to_numpy(), np.int64)
