"""A short run of `tests.faults.mutation_loop run`, and what it found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tfstream
from tests.faults import mutations, run_mutations
from tfstream.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that tests damage and mend."""
    return run_mutations.make(tmp_path_factory.mktemp("run"))


def test_damage_anywhere_is_found_or_changes_nothing(folder: Path) -> None:
    """Every file of a run; the seeds are those that passed unseen once, and others."""
    law, before = run_mutations.Law(folder), mutations.digest_of(folder)
    for seed in range(120):
        law.hold(seed)
    assert mutations.digest_of(folder) == before


def test_a_missing_log_is_named(folder: Path) -> None:
    """By the numbers of the others, or by its Parquet file."""
    path = folder / "attempt-001.log"
    data = path.read_bytes()
    path.unlink()
    try:
        (finding,) = tfstream.open_run(folder).verify()
        assert str(finding) == "attempt-001.log: the log of this attempt is missing"
    finally:
        path.write_bytes(data)


def test_a_spec_that_is_not_its_digest_s_is_an_error(folder: Path) -> None:
    """Else another number of rows would lead beyond the blocks."""
    path = folder / "run.json"
    data = path.read_bytes()
    values = json.loads(data)
    values["training"]["spec"]["rows"] += 16
    path.write_text(json.dumps(values), encoding="utf-8")
    try:
        with pytest.raises(DataError, match="training.spec_digest"):
            tfstream.open_run(folder)
    finally:
        path.write_bytes(data)
