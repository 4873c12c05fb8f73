"""What is wrong with a data set on disk: every finding, not the first alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tfstream import storage
from tfstream.errors import CorruptionError, StorageError
from tfstream.format import provenance
from tfstream.format.manifest import Catalog


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
    """Check every shard and its provenance against the index; on request the sources too."""
    for shard in range(catalog.shards.num_rows):
        path = catalog.shards["path"][shard].as_py()
        expected = catalog.shards["sha256"][shard].as_py()
        yield from _check_file(catalog.folder / path, path, expected)
        try:
            provenance.shard_provenance(catalog, shard)
        except CorruptionError as error:
            yield Finding(where=f"provenance of {path}", what=str(error))
    yield from _check_quarantine(catalog)
    if sources:
        yield from check_sources(catalog)


def check_sources(catalog: Catalog) -> Iterator[Finding]:
    """Check the source files, as far as they are still there, against the index."""
    if not catalog.manifest.root:
        return
    for row in catalog.sources.select(["path", "sha256"]).to_pylist():
        path = Path(catalog.manifest.root) / row["path"]
        if path.exists():
            yield from _check_file(path, row["path"], row["sha256"])


def _check_quarantine(catalog: Catalog) -> Iterator[Finding]:
    """Check that each row that could not be read is accounted for."""
    for source, expected in enumerate(catalog.sources["quarantined"].to_pylist()):
        if not expected:
            continue
        path = provenance.quarantine_path(catalog, source)
        where = path.relative_to(catalog.folder).as_posix()
        try:
            table = pq.ParquetFile(path).read(["rows"], use_threads=False)
        except (OSError, pa.ArrowException) as error:
            yield Finding(where=where, what=f"it cannot be read: {error}")
            continue
        found = sum(table["rows"].to_pylist())
        if found != expected:
            yield Finding(where=where, what=f"it accounts for {found} rows, expected {expected}")


def _check_file(path: Path, name: str, expected: str) -> Iterator[Finding]:
    try:
        found = storage.sha256(path)
    except StorageError as error:
        yield Finding(where=name, what=str(error))
        return
    if found != expected:
        yield Finding(where=name, what=f"its SHA-256 is {found}, expected {expected}")
