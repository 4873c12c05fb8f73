"""Data sets of every format that was released stay readable; see `tests.golden.formats`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import tfstream
from tests.golden import formats
from tfstream.errors import DataError
from tfstream.format import document
from tfstream.format.check import check_dataset
from tfstream.format.document import document_sha256

KEPT = sorted(formats.HOME.glob("format-*"))
_MOST_BYTES = 100_000


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_a_kept_data_set_is_what_it_was(folder: Path) -> None:
    """It opens, streams and verifies, and its rows, digests and batches are those of then."""
    shards = tfstream.open(folder / "data")
    assert formats.found(shards) == json.loads((folder / "expected.json").read_text())
    assert list(check_dataset(shards.subset.catalog)) == []


def test_today_s_format_is_kept() -> None:
    """Who freezes a format keeps a small data set of it."""
    folder = formats.HOME / f"format-{document.FORMAT}"
    assert folder in KEPT
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < _MOST_BYTES


def test_today_s_format_is_written_as_it_is_kept(tmp_path: Path) -> None:
    """A change of what is written is a change of the format."""
    formats.make(tmp_path)
    kept = formats.HOME / f"format-{document.FORMAT}"
    # Digests are of the sources' bytes, which pyarrow writes, too.
    for name, fields in (("expected.json", ("rows", "labels")), ("data/manifest.json", ())):
        here, there = (json.loads((folder / name).read_text()) for folder in (tmp_path, kept))
        assert here.keys() == there.keys()
        assert [here[field] for field in fields] == [there[field] for field in fields]


@pytest.mark.parametrize(
    ("change", "is_read"),
    [
        ({"format": document.FORMAT + 1, "more": 1}, True),
        ({"format": document.FORMAT + 1, "minimum_reader": document.FORMAT + 1}, False),
        ({"more": 1}, False),
        ({"format": document.OLDEST - 1}, False),
        ({"format": True}, False),
        ({"minimum_reader": None}, False),
        ({"minimum_reader": document.FORMAT + 1}, False),
    ],
)
def test_unknown_fields_are_passed_over_where_the_writer_says_so(
    change: dict[str, object], is_read: bool
) -> None:
    """A newer manifest that readers of today may read; any other one is refused."""
    path = formats.HOME / f"format-{document.FORMAT}" / "data/manifest.json"
    told = json.loads(path.read_text()) | change
    if is_read:
        document.check(told, "here")
        return
    with pytest.raises(DataError, match="here"):
        document.check(told, "here")


def test_an_older_manifest_in_the_newest_s_place_is_not_opened(tmp_path: Path) -> None:
    """The generation that it does not know tells."""
    data = shutil.copytree(formats.HOME / f"format-{document.FORMAT}/data", tmp_path / "data")
    shutil.copy(data / "generations/1/parent.json", data / "manifest.json")
    told = json.loads((data / "manifest.json").read_text())
    assert told["manifest_sha256"] == document_sha256(told)
    with pytest.raises(DataError, match="is older than"):
        tfstream.open(data)
