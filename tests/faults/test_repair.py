"""Damaged data sets, made whole again from their sources."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import tfstream
from tests.faults import mutations
from tfstream.cli import main
from tfstream.errors import DataError
from tfstream.format.check import check_dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of two generations."""
    return mutations.make(tmp_path)


def test_a_repair_brings_back_every_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shards, provenance, quarantine and statistics, missing or damaged: the same bytes again."""
    before, rng = mutations.digest_of(folder), random.Random(0)
    parts = ["shards", "by-row", "by-source", "quarantine"]
    for path in [
        rng.choice(sorted(p for p in folder.rglob(f"{x}/**/*") if p.is_file())) for x in parts
    ]:
        path.write_bytes(path.read_bytes()[:-7])
    (folder / "generations" / "1" / "index" / "statistics.parquet").unlink()
    assert len(list(check_dataset(tfstream.open(folder).subset.catalog))) >= 5
    assert main(["repair", str(folder), "--quiet"]) == 0
    assert mutations.digest_of(folder) == before
    assert "findings before; equal to what was converted" in capsys.readouterr().out
    assert tfstream.repair(folder) == []
    assert sorted(path.name for path in folder.parent.iterdir()) == ["a.csv", "b.csv", "out"]


def test_a_changed_source_repairs_nothing(folder: Path) -> None:
    """It is named, before anything is converted."""
    next((folder / "shards").rglob("*.tfrecord")).unlink()
    damaged = mutations.digest_of(folder)
    source = folder.parent / "b.csv"
    source.write_bytes(source.read_bytes().replace(b"1,", b"2,", 1))
    with pytest.raises(DataError, match=r"^the source b\.csv: its SHA-256 is .*; restore it$"):
        tfstream.repair(folder)
    source.unlink()
    with pytest.raises(DataError, match=r"^the source .*b\.csv is not there any more; restore it$"):
        tfstream.repair(folder)
    assert mutations.digest_of(folder) == damaged
