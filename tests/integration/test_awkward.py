"""Input that people have, given on the command line: it is taken, or told what to do about."""

from __future__ import annotations

from pathlib import Path

import pytest

import tfstream
from tfstream.cli import main
from tfstream.format.manifest import open_catalog
from tfstream.format.reader import take

HEADER = "select,group,from where,日本,a.b"


@pytest.mark.parametrize(
    ("name", "data", "code", "text"),
    [
        (
            "x.csv",
            b"",
            3,
            "{} is empty; a CSV file needs a first line with the names of its columns",
        ),
        ("x.csv", b"a,b\n", 3, "the sources have no rows: {}; give one that has"),
        ("x.jsonl", b"", 3, "{} has no columns; give a source that has rows"),
        ("x.csv", b"a,a\n1,2\n", 3, "{} has more than one column 'a'; rename all but one"),
        (
            "x.csv",
            b"a;b\n1;2\n",
            3,
            "the first line of {} has no comma but ';'; write its fields with commas between them",
        ),
        (
            "x.csv",
            b"a,b\n1,2\n1\n",
            3,
            (
                "{}: row 1 at byte 8 cannot be read: CSV parse error: Expected 2 columns, got 1: "
                "1; mend the source, or leave such rows out by on_bad_rows='quarantine'"
            ),
        ),
        ("x.parquet", b"", 3, "{} is not a readable Parquet file: Parquet file size is 0 bytes"),
        ("x.csv", b"b,c\n1,2\n", 2, "there is no column 'a'; there are b, c"),
    ],
)
def test_what_cannot_be_converted_is_named_and_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, data: bytes, code: int, text: str
) -> None:
    """One paragraph with the file; no folder, not even those above the output."""
    path = tmp_path / name
    path.write_bytes(data)
    out = tmp_path / "new" / "out"
    assert main(["convert", str(path), str(out), "--group-by", "a", "--quiet"]) == code
    assert capsys.readouterr().err == f"tfstream: {text.format(path)}\n"
    assert [child.name for child in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("key", ["select", "group", "from where", "日本", "a.b", '"from where"'])
def test_any_name_of_a_column_is_a_key(tmp_path: Path, key: str) -> None:
    """A word of the language too, and whatever the folder is called; quotes may stand around it."""
    folder = tmp_path / "ünï ключ"
    folder.mkdir()
    (folder / "日本 where.csv").write_text(f"{HEADER}\n1,2,3,4,5\n2,3,4,5,6\n", encoding="utf-8")
    out = tmp_path / "out"
    assert main(["convert", str(folder), str(out), "--group-by", key, "--quiet"]) == 0
    catalog = open_catalog(out)
    assert catalog.groups.num_rows == 2
    assert catalog.manifest.keys == (key.strip('"'),)
    assert main(["inspect", str(out)]) == 0
    least = catalog.groups[catalog.manifest.keys[0]][0].as_py()
    assert tfstream.open(out).where(f'"{catalog.manifest.keys[0]}" = {least}').rows == 1


def test_marks_and_line_ends_of_windows(tmp_path: Path) -> None:
    """A byte order mark is no part of a name, and a line end inside quotes none of a record."""
    path = tmp_path / "x.csv"
    path.write_bytes(b'\xef\xbb\xbfa,b\r\n1,"x\r\ny"\r\n2,z\r\n')
    shards = tfstream.convert(path, tmp_path / "out", group_by=["a"])
    assert take(open_catalog(tmp_path / "out"), range(2)).to_pydict() == {
        "a": [1, 2],
        "b": ["x\r\ny", "z"],
    }
    assert shards.rows == 2


def test_three_thousand_columns(tmp_path: Path) -> None:
    """Values stay at their names."""
    names = [f"c{i}" for i in range(3_000)]
    path = tmp_path / "x.csv"
    rows = [",".join(str(row * i) for i in range(len(names))) for row in range(3)]
    path.write_text("\n".join([",".join(names), *rows]) + "\n")
    tfstream.convert(path, tmp_path / "out", group_by=["c1"])
    found = take(open_catalog(tmp_path / "out"), range(3))
    assert [list(row.values()) for row in found.to_pylist()] == [
        [row * i for i in range(len(names))] for row in range(3)
    ]


def test_columns_that_no_source_has_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even if none is left."""
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,2\n")
    arguments = ["convert", str(path), str(tmp_path / "out"), "--group-by", "a", "--quiet"]
    assert main([*arguments, "--columns", "q"]) == 2
    text = "tfstream: columns= names 'q', which no source has; they have a, b\n"
    assert capsys.readouterr().err == text
