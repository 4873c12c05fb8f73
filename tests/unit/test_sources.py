"""Finding sources, and cutting CSV files between records."""

from __future__ import annotations

import csv
import io
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.permissions import bound_by_permissions
from tfstream.conversion import csv_source
from tfstream.conversion.sources import discover
from tfstream.errors import StorageError, UsageError

SUFFIXES = ".parquet, .pq, .csv, .jsonl, .ndjson, .arrow, .feather, .ipc, .orc"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with sources and other things."""
    for name in ("b/2.csv", "b/1.csv", "a.csv", ".hidden/x.csv", "_draft.csv", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x\n1\n")
    return tmp_path


def test_a_folder_means_what_lies_below_it(tree: Path) -> None:
    """Sorted by the path relative to the common root; hidden, drafts and other kinds left out."""
    found = discover(tree)
    assert [source.name for source in found.files] == ["a.csv", "b/1.csv", "b/2.csv"]
    assert [source.ordinal for source in found.files] == [0, 1, 2]
    assert (found.root, found.kind.name) == (tree, "CSV")


def test_file_glob_and_list_find_the_same(tree: Path) -> None:
    """However files are named, each counts once; the root is the deepest common folder."""
    for source in (tree / "b", str(tree / "b" / "*.csv"), [tree / "b/2.csv", str(tree / "b")]):
        found = discover(source)
        assert [file.name for file in found.files] == ["1.csv", "2.csv"]
        assert found.root == tree / "b"
    assert [file.name for file in discover(tree / "a.csv").files] == ["a.csv"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "none.csv",
            "there is no source {}/none.csv; name a file, a glob that matches one, or a folder",
        ),
        (
            "*.parquet",
            "there is no source {}/*.parquet; name a file, a glob that matches one, or a folder",
        ),
        (
            "notes.txt",
            f"{{}}/notes.txt has none of the suffixes {SUFFIXES}; name files that do",
        ),
        (
            "empty",
            f"the folder {{}}/empty has no file with a suffix {SUFFIXES}",
        ),
    ],
)
def test_what_is_no_source_is_named(tree: Path, name: str, message: str) -> None:
    """The message says what and where."""
    (tree / "empty").mkdir()
    with pytest.raises(UsageError) as error:
        discover(tree / name)
    assert str(error.value) == message.format(tree)


def test_mixed_kinds_are_refused(tree: Path) -> None:
    """One of each is named."""
    (tree / "c.parquet").touch()
    with pytest.raises(UsageError) as error:
        discover([tree / "a.csv", tree / "c.parquet"])
    assert str(error.value) == (
        f"the sources mix CSV ({tree}/a.csv) and Parquet ({tree}/c.parquet); "
        "convert them one after the other"
    )


def test_an_empty_list_is_refused() -> None:
    """It names no file."""
    with pytest.raises(UsageError, match="^the list of sources is empty; name at least one file"):
        discover([])


cells = st.text(st.sampled_from('ab",\n\r ü'), max_size=6)


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(cells, cells), max_size=12),
    end=st.sampled_from(["\n", "\r\n"]),
    size=st.integers(1, 40),
    last=st.booleans(),
)
def test_cuts_stand_between_records(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str]],
    end: str,
    size: int,
    last: bool,
) -> None:
    """The stretches between cuts, parsed one by one, are the records of the file."""
    text = io.StringIO()
    csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([("p", "q"), *rows])
    data = text.getvalue().encode()
    data = data if last or not rows else data.removesuffix(end.encode())
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_bytes(data)
    places = csv_source.cuts(path, size)
    assert places[-1] == len(data)
    parts = [data[a:b].decode() for a, b in pairwise(places)]
    found = [tuple(row) for part in parts for row in csv.reader(io.StringIO(part, newline=""))]
    assert found == rows


def test_a_quote_inside_a_field_misleads_nobody(tmp_path: Path) -> None:
    """A quote counts only at the start of a field, as pyarrow has it."""
    path = tmp_path / "x.csv"
    path.write_bytes(b'p,q\n5" pipe,1\n"a\nb",2\n7",3\n')
    places = csv_source.cuts(path, 1)
    data = path.read_bytes()
    assert [data[a:b] for a, b in pairwise(places)] == [
        b'5" pipe,1\n',
        b'"a\nb",2\n',
        b'7",3\n',
    ]


def test_an_unclosed_quote_is_refused(tmp_path: Path) -> None:
    """With the byte at which its record begins."""
    path = tmp_path / "x.csv"
    path.write_bytes(b'p,q\n1,2\n"a,3\n')
    with pytest.raises(ValueError, match="^a quoted field in the record at byte 8 does not end$"):
        csv_source.cuts(path, 1)


@pytest.mark.parametrize(
    ("left", "right", "both"),
    [
        (pa.null(), pa.int64(), pa.int64()),
        (pa.int64(), pa.float64(), pa.float64()),
        (pa.int64(), pa.string(), pa.string()),
        (pa.bool_(), pa.int64(), pa.string()),
        (pa.date32(), pa.timestamp("s"), pa.timestamp("s")),
        (pa.timestamp("ns"), pa.timestamp("s"), pa.timestamp("ns")),
        (pa.timestamp("ns", "UTC"), pa.timestamp("s"), pa.string()),
        (pa.binary(), pa.int64(), pa.binary()),
    ],
)
def test_types_of_two_partitions(left: pa.DataType, right: pa.DataType, both: pa.DataType) -> None:
    """The narrowest type that holds both, whichever comes first."""
    assert csv_source.unified(left, right) == both
    assert csv_source.unified(right, left) == both


def test_a_link_is_followed_and_one_to_nowhere_is_named(tree: Path) -> None:
    """Given by its path, or met in a folder."""
    (tree / "b" / "link.csv").symlink_to(tree / "a.csv")
    assert [source.name for source in discover(tree / "b").files] == ["1.csv", "2.csv", "link.csv"]
    gone = tree / "b" / "gone.csv"
    gone.symlink_to("nowhere.csv")
    for source in (gone, tree, tree / "b" / "*.csv"):
        with pytest.raises(UsageError) as caught:
            discover(source)
        assert str(caught.value) == (
            f"{gone} is a link to nowhere.csv, which is not there; name a file that is"
        )


def test_a_folder_that_may_not_be_looked_into_is_not_passed_over(tree: Path) -> None:
    """Or its rows would be missing in silence."""
    (tree / "b").chmod(0)
    with bound_by_permissions(), pytest.raises(StorageError) as caught:
        discover(tree)
    (tree / "b").chmod(0o755)
    assert str(caught.value) == f"cannot look into {tree / 'b'}: Permission denied"
