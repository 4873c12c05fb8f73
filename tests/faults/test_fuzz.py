"""Files of strangers: every parser answers, or ends in one of our errors.

The long run is `python -m tests.faults.fuzz`.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.faults import fuzz
from tests.faults.parsers import Workshop
from tfstream.conversion import purpose
from tfstream.errors import CorruptionError, DataError, ResumeError
from tfstream.format import index_files, parquet
from tfstream.format.manifest import open_catalog

_CASES = 12


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """What the parsers need."""
    return Workshop(tmp_path_factory.mktemp("workshop"))


def test_changed_files_end_in_our_errors(workshop: Workshop) -> None:
    """Some files for each parser, always the same."""
    faults = {
        (name, seed): fault
        for name, parser in workshop.parsers.items()
        for seed in range(3 if name.startswith(("source", "purpose")) else _CASES)
        if (fault := fuzz.fault_of(parser, fuzz.cases(parser, seed)))
    }
    assert faults == {}


def test_sound_files_are_no_error(workshop: Workshop) -> None:
    """Each parser reads what was written."""
    for parser in workshop.parsers.values():
        for sound in parser.sound:
            parser.parse(sound)


def test_a_fault_is_seen(workshop: Workshop) -> None:
    """The tests above can fail."""
    broken = fuzz.Parser((b"1",), workshop.parsers["cursor"].change, json.loads)
    assert (fuzz.fault_of(broken, b"{") or "").startswith("JSONDecodeError")


def test_crashers_stay_mended(workshop: Workshop) -> None:
    """The shortest file of each fault that was found, compressed by zlib, in base64, by parser."""
    kept = json.loads(fuzz.CRASHERS.read_text(encoding="ascii"))
    assert kept
    faults = [
        (name, fault)
        for name, files in kept.items()
        for text in files
        if (fault := fuzz.fault_of(workshop.parsers[name], zlib.decompress(base64.b64decode(text))))
    ]
    assert faults == []


def test_a_purpose_with_a_time_that_no_clock_has_is_none(tmp_path: Path) -> None:
    """A crasher would have to name a source of its own day."""
    path = tmp_path / "purpose.json"
    path.write_text(json.dumps({"parents": [], "sources": {"a": [1, 1 << 70]}}))
    with pytest.raises(ResumeError):
        purpose.read_purpose(path)


@pytest.mark.parametrize("rows", [None, 10])
def test_a_small_file_that_would_be_large_is_refused(rows: int | None) -> None:
    """Runs of one value: 200 KB of Parquet for 400 MB."""
    sink = io.BytesIO()
    schema = pa.schema([("x", pa.int64())])
    with pq.ParquetWriter(sink, schema) as writer:
        for _ in range(5):
            writer.write_table(pa.table({"x": np.zeros(10_000_000, np.int64)}))
    assert len(sink.getvalue()) < 300_000
    with pytest.raises(CorruptionError, match="cannot hold 50000000 rows"):
        parquet.read(sink.getvalue(), "it", rows=rows)


def test_pages_that_unpack_to_far_more_are_refused() -> None:
    """A text of 64 MB that zstd makes 6 KB of."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": ["a" * (64 << 20)]}), sink, compression="zstd")
    with pytest.raises(CorruptionError, match="cannot hold 1 rows"):
        parquet.read(sink.getvalue(), "it", rows=1)


@pytest.mark.parametrize("name", ["manifest.json", "index/blocks.parquet", "index", "provenance"])
def test_no_link_leads_out_of_a_data_set(tmp_path: Path, name: str) -> None:
    """Files and folders that lie elsewhere are refused, whatever they hold."""
    Workshop(tmp_path)
    data = tmp_path / "quarantined"
    elsewhere = tmp_path / "elsewhere"
    (data / name).rename(elsewhere)
    (data / name).symlink_to(elsewhere)
    with pytest.raises(DataError, match="is a link to"):
        catalog = open_catalog(data)
        index_files.refuse_links(data, data / "provenance/by-row/000/00000.parquet")
        raise AssertionError(catalog)
