"""The limit of files: the bytes of tfstream's shards, read one file after the other, as they are.

Nothing is decoded, so there are no rows to check: only the bytes are, against the manifest.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from benchmarks import tfstream_cases
from tfstream.format.manifest import open_catalog

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from benchmarks.contenders import Contender
    from benchmarks.workload import Task

_CHUNK = 1 << 17
"""Bytes that are read at once, as cp does, into the same memory, which the cores' caches hold."""

prepare = tfstream_cases.prepare


class ShardBytes:
    """The files of the shards, one after the other."""

    def __init__(self, place: Path) -> None:
        """Those that the manifest of `place` names."""
        catalog = open_catalog(place)
        shards = catalog.shards.select(["rows", "size_bytes", "sha256"]).to_pylist()
        paths = (catalog.shard_path(shard) for shard in range(len(shards)))
        self._shards = {str(path): shard for path, shard in zip(paths, shards, strict=True)}
        self._buffer = bytearray(_CHUNK)

    def epoch(self) -> Iterator[tuple[Any, Any]]:
        """One pass: (file and bytes, range of the rows that so many bytes stand for)."""
        view = memoryview(self._buffer)
        for path, shard in self._shards.items():
            came = row = 0
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - as bare as can be
                while count := file.readinto(view):
                    came += count
                    stop = shard["rows"] * came // shard["size_bytes"]
                    yield (path, view[:count]), range(row, stop)
                    row = stop

    def ledger(self) -> ByteLedger:
        """What checks an epoch of these files."""
        return ByteLedger(self._shards)


class ByteLedger:
    """What came in one epoch: bytes only, by their number and SHA-256, file by file."""

    def __init__(self, shards: Mapping[str, Mapping[str, Any]]) -> None:
        """Of shards with `size_bytes` and `sha256`, by path."""
        self._shards = shards
        self._hashes = {path: hashlib.sha256() for path in shards}
        self._bytes = dict.fromkeys(shards, 0)
        self._rows = 0

    def record(self, features: tuple[str, memoryview], label: range) -> int:
        """Note some bytes; the rows that they stand for."""
        path, some = features
        self._hashes[path].update(some)
        self._bytes[path] += len(some)
        self._rows += len(label)
        return len(label)

    def findings(self, *, whole: bool) -> list[str]:
        """What is wrong with the bytes; of an epoch that was not over, that there are too many."""
        found = []
        for path, shard in self._shards.items():
            came, size_bytes = self._bytes[path], shard["size_bytes"]
            if came > size_bytes or (whole and came < size_bytes):
                found.append(f"{came} bytes came of {path}, {size_bytes} are there")
            elif came == size_bytes and self._hashes[path].hexdigest() != shard["sha256"]:
                found.append(f"the bytes of {path} are not those of the manifest")
        return found

    def totals(self) -> dict[str, Any]:
        """Bytes, the rows that they stand for, and what was checked."""
        return {"rows": self._rows, "bytes": sum(self._bytes.values()), "checked": "bytes only"}

    def quality(self, batch: int) -> None:  # noqa: ARG002 - as of other ledgers
        """None, since bytes are not shuffled."""
        return


def open_source(place: Path, task: Task, contender: Contender) -> ShardBytes:  # noqa: ARG001 - one signature for all
    """Open the files."""
    return ShardBytes(place)
