"""A short run of `tests.faults.mutation_loop`, and what it found."""

from __future__ import annotations

from pathlib import Path

import pytest

import tfstream
from tests.faults import mutations
from tfstream.format.check import check_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set that tests damage and mend."""
    return mutations.make(tmp_path_factory.mktemp("mutations"))


def test_damage_anywhere_is_an_error_or_changes_nothing(folder: Path) -> None:
    """Every file, every part of a shard, cuts, swaps of files and of blocks."""
    law, before = mutations.Law(folder), mutations.digest_of(folder)
    for seed in range(60):
        law.hold(seed)
    assert mutations.digest_of(folder) == before


def test_verify_names_the_block_and_its_rows(folder: Path) -> None:
    """One flipped bit of a pack: one finding, and what it leaves is sound."""
    shards = tfstream.open(folder)
    catalog = shards.subset.catalog
    block = len(catalog.block_rows) // 2
    path = catalog.shard_path(int(catalog.block_shard[block]))
    data = path.read_bytes()
    damaged = bytearray(data)
    damaged[int(catalog.block_offset[block] + catalog.block_size[block]) - 9] ^= 4
    first, rows = int(catalog.block_first[block]), int(catalog.block_rows[block])
    path.write_bytes(damaged)
    try:
        (finding,) = check_dataset(catalog)
        assert (finding.shard, finding.block) == (int(catalog.block_shard[block]), block)
        assert (finding.first_row, finding.stop_row) == (first, first + rows)
        assert f"block {block}, rows {first} to {first + rows - 1}" in finding.what
        left = shards.without([finding]).where("x >= 0 or x < 0")
        assert left.rows == catalog.rows - rows
    finally:
        path.write_bytes(data)


def test_more_bytes_and_more_shards_are_findings(folder: Path) -> None:
    """What no row is of is told too."""
    catalog = tfstream.open(folder).subset.catalog
    path = catalog.shard_path(0)
    data, extra = path.read_bytes(), path.with_name("00099.tfrecord")
    path.write_bytes(data + b"more")
    extra.write_bytes(data)
    try:
        assert [finding.what for finding in check_dataset(catalog)] == [
            "it has 4 bytes too many at its end",
            "the index knows no such shard",
        ]
    finally:
        path.write_bytes(data)
        extra.unlink()
