"""Random damage to a data set, and the law that holds for it.

The law: whatever byte of whatever file is changed, each answer is the answer that it was, or one of
our errors; and where an answer is an error, `verify` has a finding. Where the manifest of before an
append lies in the place of the new one, the data set is the one of before, which its digest tells,
and `verify` has a finding.
"""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

import tfstream
from tfstream.errors import TfstreamError
from tfstream.format import provenance
from tfstream.format.check import check_dataset

FRAME_HEAD, HEADER_BYTES = 12, 60
Answer = object


def make(folder: Path) -> Path:
    """A data set of two generations with nulls, codes, raw bytes and rows in quarantine."""
    rng = random.Random(0)
    for name, rows in (("a", 260), ("b", 90)):
        lines = [f"{rng.randrange(3)},{rng.random():.6f},{rng.choice('uvw')}" for _ in range(rows)]
        lines[17] = "1,broken,u"
        (folder / f"{name}.csv").write_text("g,x,s\n" + "\n".join(lines) + "\n", encoding="utf-8")
    options = tfstream.ConvertOptions(
        block_rows=30, dtypes={"x": "float64"}, on_bad_rows="quarantine"
    )
    tfstream.convert(folder / "a.csv", folder / "out", group_by=["g"], options=options)
    tfstream.append(folder / "b.csv", folder / "out", options=options)
    return folder / "out"


def answers(folder: Path, parent: str) -> dict[str, Answer]:
    """All that a data set is asked, each the answer or the error."""

    def rows(digest: str | None) -> Answer:
        shards = tfstream.open(folder, digest=digest)
        return shards.digest, shards.take(np.arange(shards.rows))

    def origins() -> Answer:
        catalog = tfstream.open(folder).subset.catalog
        found = provenance.rows_of_sources(catalog, np.arange(catalog.rows))
        return catalog.manifest.root, catalog.sources, [part.tolist() for part in found]

    def back() -> Answer:
        catalog = tfstream.open(folder).subset.catalog
        return [
            provenance.row_ids_of(catalog, source, np.delete(np.arange(rows), 17)).tolist()
            for source, rows in enumerate(catalog.sources["rows"].to_pylist())
        ]

    def left_out() -> Answer:
        catalog = tfstream.open(folder).subset.catalog
        try:
            provenance.row_ids_of(catalog, 0, np.array([17]))
        except tfstream.errors.UsageError as error:
            return str(error)
        raise AssertionError("a row that could not be read has no id")

    def statistics() -> Answer:
        shards = tfstream.open(folder)
        return str(shards.statistics), shards.where("x > 0.5").subset.digest

    asked: dict[str, Callable[[], Answer]] = {
        "rows": lambda: rows(None),
        "rows before": lambda: rows(parent),
        "origins": origins,
        "back": back,
        "left out": left_out,
        "statistics": statistics,
    }
    return {name: _answer(question) for name, question in asked.items()}


def _answer(question: Callable[[], Answer]) -> Answer:
    try:
        return question()
    except TfstreamError as error:
        return error


def findings(folder: Path) -> list[str]:
    """What `verify` says."""
    try:
        return [str(finding) for finding in check_dataset(tfstream.open(folder).subset.catalog)]
    except TfstreamError as error:
        return [str(error)]


def quarantined(folder: Path) -> list[object]:
    """What people read in the files of the quarantine, or None where they cannot."""
    found: list[object] = []
    for path in sorted(folder.rglob("quarantine/*.parquet")):
        try:
            found.append(pq.ParquetFile(path).read().to_pylist())
        except Exception:  # noqa: BLE001, PERF203 - any reader's error: no row is shown
            found.append(None)
    return found


def damage(folder: Path, rng: random.Random) -> tuple[str, dict[Path, bytes | None]]:
    """Change something.

    Returns:
        What was done, and what the changed files were, None where there was none.
    """
    path = rng.choice(sorted(p for p in folder.rglob("*") if p.is_file()))
    data = path.read_bytes()
    kind = rng.choice(["flip", "flip", "flip", "cut", "delete", "append", "swap", "zero", "insert"])
    if kind == "swap":
        other = rng.choice(
            sorted(p for p in folder.rglob(f"*{path.suffix}") if p.is_file() and p != path)
            or [path]
        )
        if path.suffix == ".tfrecord" and rng.random() < 2 / 3:
            return _swapped_blocks(path, rng.choice([path, other]), rng)
        before = {path: data, other: other.read_bytes()}
        path.write_bytes(before[other])
        if rng.random() < 0.5:
            other.write_bytes(data)
        return f"{path} for {other}", before
    changed = bytearray(data)
    place = _place(path, data, rng)
    if kind == "flip":
        changed[place] ^= 1 << rng.randrange(8)
    elif kind == "zero":
        changed[place : place + 8] = bytes(len(changed[place : place + 8]))
    elif kind == "insert":
        changed[place:place] = rng.randbytes(rng.randint(1, 4))
    elif kind == "cut":
        del changed[place:]
    elif kind == "append":
        changed += rng.choice([rng.randbytes(5), bytes(4), data])
    if kind == "delete":
        path.unlink()
    else:
        path.write_bytes(changed)
    return f"{kind} in {path} at {place}", {path: data}


def _blocks(data: bytes) -> list[tuple[int, int]]:
    """Where the records of a shard start and stop."""
    found, start = [], 0
    while start < len(data):
        stop = start + 16 + struct.unpack_from("<Q", data, start)[0]
        found.append((start, stop))
        start = stop
    return found


def _place(path: Path, data: bytes, rng: random.Random) -> int:
    """A byte; of a shard, drawn evenly over length, CRC of it, header, packs and last CRC."""
    if path.suffix != ".tfrecord":
        return rng.randrange(len(data))
    start, stop = rng.choice(_blocks(data))
    header = start + FRAME_HEAD + HEADER_BYTES
    parts = [(start, start + 8), (start + 8, start + FRAME_HEAD), (start + FRAME_HEAD, header)]
    low, high = rng.choice([*parts, (header, stop - 4), (stop - 4, stop)])
    return rng.randrange(low, high)


def _swapped_blocks(
    one: Path, other: Path, rng: random.Random
) -> tuple[str, dict[Path, bytes | None]]:
    """Exchange two records, of one shard or of two, of any generation."""
    before: dict[Path, bytes | None] = {one: one.read_bytes(), other: other.read_bytes()}
    a, b = one.read_bytes(), other.read_bytes()
    (start, stop), (first, last) = rng.choice(_blocks(a)), rng.choice(_blocks(b))
    if one == other:
        (start, stop), (first, last) = sorted([(start, stop), (first, last)])
        if stop <= first:
            one.write_bytes(a[:start] + a[first:last] + a[stop:first] + a[start:stop] + a[last:])
    else:
        one.write_bytes(a[:start] + b[first:last] + a[stop:])
        other.write_bytes(b[:first] + a[start:stop] + b[last:])
    return f"blocks of {one} at {start} and {other} at {first}", before


class Law:
    """The law, for one data set."""

    def __init__(self, folder: Path) -> None:
        """Ask the sound data set."""
        self._folder = folder
        self._parent = tfstream.open(folder).subset.catalog.manifest.parents[0].digest
        self._expected = answers(folder, self._parent)
        self._quarantined = quarantined(folder)
        assert not findings(folder)
        assert not [a for a in self._expected.values() if isinstance(a, TfstreamError)]

    def hold(self, seed: int) -> tuple[str, bool]:
        """Damage, ask, and mend again.

        Returns:
            What was done, and whether it was found.
        """
        told, before = damage(self._folder, random.Random(seed))
        try:
            found = answers(self._folder, self._parent)
            seen = findings(self._folder)
            rows = found["rows"]
            if isinstance(rows, tuple) and rows[0] == self._parent:
                assert seen, f"seed {seed}, {told}: verify finds nothing"
                return told, True
            wrong = [
                name
                for name, answer in found.items()
                if not isinstance(answer, TfstreamError) and answer != self._expected[name]
            ]
            assert not wrong, f"seed {seed}, {told}: another answer to {wrong}"
            failed = [n for n, answer in found.items() if isinstance(answer, TfstreamError)]
            assert seen or not failed, f"seed {seed}, {told}: {failed} fail, verify finds nothing"
            same = quarantined(self._folder) == self._quarantined
            assert seen or same, f"seed {seed}, {told}: quarantine"
        finally:
            for path, data in before.items():
                if data is None:
                    path.unlink(missing_ok=True)
                else:
                    path.write_bytes(data)
        return told, bool(seen)


def digest_of(folder: Path) -> str:
    """SHA-256 of all files, to see that they were mended."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
