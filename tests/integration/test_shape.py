"""Columns chosen, renamed, cast and filled; files whose columns differ."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfstream.conversion.convert import convert
from tfstream.conversion.options import ConvertOptions
from tfstream.errors import DataError, TfstreamError, UsageError
from tfstream.format import reader
from tfstream.format.manifest import Catalog, open_catalog


def parquet(folder: Path, *tables: pa.Table) -> list[Path]:
    """Files a.parquet, b.parquet and so on."""
    paths = [folder / f"{name}.parquet" for name in "abc"[: len(tables)]]
    for path, table in zip(paths, tables, strict=True):
        pq.write_table(table, path)
    return paths


def converted(source: Path | list[Path], options: ConvertOptions | None = None) -> Catalog:
    """A data set of one group, so that its rows are in the order of the sources."""
    out = (source if isinstance(source, Path) else source[0]).parent / "out"
    convert(source, out, group_by=["g"], options=options, scheduler="synchronous")
    return open_catalog(out)


def rows(catalog: Catalog) -> list[dict[str, object]]:
    """All rows."""
    return reader.take(catalog, range(catalog.rows)).to_pylist()


def refused(source: Path | list[Path], options: ConvertOptions | None = None) -> TfstreamError:
    """The error of a conversion that leaves nothing."""
    with pytest.raises(TfstreamError) as error:
        converted(source, options)
    assert not ((source if isinstance(source, Path) else source[0]).parent / "out").exists()
    return error.value


def test_types_are_promoted_and_missing_columns_are_null(tmp_path: Path) -> None:
    """In whatever order the columns come, and where a file has no value of a column."""
    sources = parquet(
        tmp_path,
        pa.table(
            {
                "g": pa.array([0], pa.int8()),
                "i": pa.array([1], pa.int32()),
                "f": pa.array([0.5], pa.float32()),
                "s": pa.array(["a"]),
                "t": pa.array([1], pa.timestamp("s")),
                "n": pa.nulls(1),
            }
        ),
        pa.table(
            {
                "t": pa.array([1500], pa.timestamp("ms")),
                "s": pa.array(["b"], pa.large_string()),
                "i": pa.array([2**40], pa.int64()),
                "f": pa.array([1e300], pa.float64()),
                "g": pa.array([0], pa.int8()),
                "n": pa.array([7], pa.int16()),
            }
        ),
        pa.table({"g": pa.array([0], pa.int8()), "s": pa.array(["c"]).dictionary_encode()}),
    )
    catalog = converted(sources)
    assert [(column.name, column.type) for column in catalog.schema.columns] == [
        ("g", "int8"),
        ("i", "int64"),
        ("f", "double"),
        ("s", "string"),
        ("t", "timestamp[ms]"),
        ("n", "int16"),
    ]
    second = dt.datetime(1970, 1, 1, 0, 0, 1)
    half = second.replace(microsecond=500_000)
    assert rows(catalog) == [
        {"g": 0, "i": 1, "f": 0.5, "s": "a", "t": second, "n": None},
        {"g": 0, "i": 2**40, "f": 1e300, "s": "b", "t": half, "n": 7},
        {"g": 0, "i": None, "f": None, "s": "c", "t": None, "n": None},
    ]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (pa.int64(), pa.float64()),
        (pa.uint64(), pa.int8()),
        (pa.timestamp("us", "UTC"), pa.timestamp("us")),
        (pa.bool_(), pa.int8()),
    ],
)
def test_what_would_lose_is_refused(tmp_path: Path, left: pa.DataType, right: pa.DataType) -> None:
    """With the column, both files and their types."""
    a, b = parquet(
        tmp_path,
        pa.table({"g": [0], "x": pa.nulls(1, left)}),
        pa.table({"g": [0], "x": pa.nulls(1, right)}),
    )
    error = refused([a, b])
    assert isinstance(error, DataError)
    assert str(error) == (
        f"the sources differ in column 'x': {a} has {left}, but {b} has {right}, "
        "and no type holds the values of both; choose one by dtypes="
    )


def test_a_type_that_is_asked_for_joins_what_would_lose(tmp_path: Path) -> None:
    """As long as each value fits; else file, row and column are named."""
    tables = [pa.table({"g": [0], "x": [2**50]}), pa.table({"g": [0], "x": [0.5]})]
    options = ConvertOptions(dtypes={"x": "float64"})
    catalog = converted(parquet(tmp_path, *tables), options)
    assert [row["x"] for row in rows(catalog)] == [float(2**50), 0.5]
    (tmp_path / "other").mkdir()
    (path,) = parquet(tmp_path / "other", pa.table({"g": [0, 0], "x": [1, 2**53 + 1]}))
    error = refused(path, options)
    assert isinstance(error, DataError)
    assert str(error) == (
        f"{path}: row 1 cannot be read: column 'x': Integer value 9007199254740993 not in range: "
        "-9007199254740992 to 9007199254740992; mend the source, or leave such rows out by "
        "on_bad_rows='quarantine'"
    )


def test_a_moment_outside_the_finer_unit_is_named(tmp_path: Path) -> None:
    """Promotion never wraps around."""
    year_9000 = pa.array([221_845_392_000], pa.timestamp("s"))
    a, b = parquet(
        tmp_path,
        pa.table({"g": [0], "t": year_9000}),
        pa.table({"g": [0], "t": pa.nulls(1, pa.timestamp("ns"))}),
    )
    assert str(refused([a, b])).startswith(
        f"{a}: row 0 cannot be read: column 't': Casting from timestamp[ms] to timestamp[ns] "
    )


def test_columns_choose_order_and_rename(tmp_path: Path) -> None:
    """A list keeps names, a mapping gives new ones; what is not chosen may be anything."""
    a, b = parquet(
        tmp_path,
        pa.table({"x": [1], "k": [0], "bad": [1]}),
        pa.table({"k": [0], "x": [2], "bad": ["one"]}),
    )
    catalog = converted([a, b], ConvertOptions(columns={"g": "k", "y": "x"}))
    assert catalog.schema.names == ("g", "y")
    assert rows(catalog) == [{"g": 0, "y": 1}, {"g": 0, "y": 2}]
    assert catalog.manifest.options["columns"] == {"g": "k", "y": "x"}


def test_a_column_that_is_not_chosen_may_have_any_type(tmp_path: Path) -> None:
    """One that no data set can have, too."""
    interval = pa.array([pa.MonthDayNano([1, 2, 3])])
    path = tmp_path / "x.arrow"
    table = pa.table({"g": [0], "x": [1], "i": interval})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    assert rows(converted(path, ConvertOptions(columns=["g", "x"]))) == [{"g": 0, "x": 1}]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_text_is_read_as_the_type_that_is_asked_for(tmp_path: Path, suffix: str) -> None:
    """A large number is not rounded on the way, an unwanted column is in nobody's way."""
    path = tmp_path / f"x{suffix}"
    large = 2**64 - 1
    if suffix == ".csv":
        path.write_text(f"k,id,zip,odd\n0,{large},01234,\n0,,5,x\n")
    else:
        lines = [{"k": 0, "id": large, "zip": "01234", "odd": 1}, {"k": 0, "zip": "5", "odd": "x"}]
        path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    options = ConvertOptions(
        columns={"g": "k", "id": "id", "zip": "zip"},
        dtypes={"id": pa.uint64(), "zip": "string", "g": "int8"},
        default={"id": 5},
    )
    catalog = converted(path, options)
    assert [column.type for column in catalog.schema.columns] == ["int8", "uint64", "string"]
    assert rows(catalog) == [
        {"g": 0, "id": large, "zip": "01234"},
        {"g": 0, "id": 5, "zip": "5"},
    ]


def test_files_of_text_may_lack_columns(tmp_path: Path) -> None:
    """As any file may; what takes the place of nulls takes that of missing values too."""
    a, b = tmp_path / "a.csv", tmp_path / "b.csv"
    a.write_text("g,p\n0,1\n0,\n")
    b.write_text("q,g\nx,0\n")
    catalog = converted([a, b], ConvertOptions(default={"p": -1}))
    assert rows(catalog) == [
        {"g": 0, "p": 1, "q": None},
        {"g": 0, "p": -1, "q": None},
        {"g": 0, "p": -1, "q": "x"},
    ]
    assert not catalog.schema["p"].nullable


def test_fields_that_are_now_numbers_now_text_are_refused(tmp_path: Path) -> None:
    """With both files, or the same one twice."""
    path = tmp_path / "x.jsonl"
    path.write_text('{"g":0,"x":1}\n{"g":0,"x":"1"}\n')
    error = refused(path)
    assert isinstance(error, DataError)
    assert str(error) == (
        f"no type holds all values of column 'x': {path} has int64, and {path} has string; "
        "leave the column out by columns=, or give it a type by dtypes="
    )


def test_the_bytes_depend_on_the_shape(tmp_path: Path) -> None:
    """Two shapes of the same rows never share an identity, the same shape always does."""
    (path,) = parquet(tmp_path, pa.table({"g": [0], "x": [1], "y": [1]}))
    identities = []
    for i, options in enumerate(
        [
            ConvertOptions(columns=["g", "x"]),
            ConvertOptions(columns={"g": "g", "x": "y"}),
            ConvertOptions(columns=["g", "x"], default={"x": 1}),
            ConvertOptions(columns=["g", "x"], dtypes={"x": "int64"}),
            ConvertOptions(columns={"g": "g", "x": "x"}),
        ]
    ):
        convert(path, tmp_path / str(i), group_by=["g"], options=options, scheduler="synchronous")
        identities.append(open_catalog(tmp_path / str(i)).manifest.identity)
    assert len(set(identities)) == 4
    assert identities[0] == identities[4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"columns": ["g", "nope"]},
            "columns= names 'nope', which no source has; they have g, x",
        ),
        (
            {"dtypes": {"nope": "int8"}},
            "dtypes= names 'nope', which is no column of the data set; they are g, x",
        ),
        (
            {"default": {"nope": 1}},
            "default= names 'nope', which is no column of the data set; they are g, x",
        ),
        (
            {"dtypes": {"x": "money"}},
            (
                "dtypes['x'] is money, which is no type that a column can have: "
                "'money' is not a column type of this format"
            ),
        ),
        (
            {"dtypes": {"x": "date32"}},
            (
                "dtypes['x'] is date32[day], but {} has bool there, which cannot be cast to it; "
                "ask for another type"
            ),
        ),
    ],
)
def test_wishes_that_cannot_be(tmp_path: Path, options: dict[str, object], message: str) -> None:
    """Refused before anything is written."""
    (path,) = parquet(tmp_path, pa.table({"g": [0], "x": [True]}))
    error = refused(path, ConvertOptions(**options))
    assert isinstance(error, UsageError)
    assert str(error) == message.format(path)


def test_a_field_that_no_line_has_is_no_column(tmp_path: Path) -> None:
    """Though a type is asked for; one that is null in all lines is a column of that type."""
    path = tmp_path / "x.jsonl"
    path.write_text('{"g":0,"x":null}\n')
    assert str(refused(path, ConvertOptions(dtypes={"nope": "int8"}))) == (
        "dtypes= names 'nope', which is no column of the data set; they are g, x"
    )
    catalog = converted(path, ConvertOptions(dtypes={"x": "int8"}, default={"x": 1}))
    assert rows(catalog) == [{"g": 0, "x": 1}]
    assert catalog.schema["x"].type == "int8"


def test_a_default_of_another_type(tmp_path: Path) -> None:
    """It must be a value of the column's type."""
    (path,) = parquet(tmp_path, pa.table({"g": [0], "x": [1]}))
    assert str(refused(path, ConvertOptions(default={"x": "one"}))).startswith(
        "default['x'] is 'one', which is no value of the type int64: "
    )


def test_the_options_that_are_kept_ask_for_the_same(tmp_path: Path) -> None:
    """Made of JSON, whatever their values are."""
    moment = dt.datetime(2024, 2, 29, 1, 2, 3, 456, dt.timezone.utc)
    values = {
        "t": (moment, pa.timestamp("us", "UTC")),
        "d": (moment.date(), pa.date32()),
        "f": (0.1, pa.float32()),
        "b": (b"x", pa.binary()),
        "i": (np.int64(3), pa.int8()),
    }
    table = pa.table({"g": [0], **{n: pa.nulls(1, type_) for n, (_, type_) in values.items()}})
    (path,) = parquet(tmp_path, table)
    first = ConvertOptions(
        columns=["g", *values],
        dtypes={"t": pa.timestamp("us", "UTC"), "g": "int16"},
        default={name: value for name, (value, _) in values.items()},
        on_bad_rows="quarantine",
    )
    again = ConvertOptions(**json.loads(json.dumps(first.kept)))
    assert again.kept == first.kept
    digests = []
    for name, options in (("a", first), ("b", again)):
        convert(path, tmp_path / name, group_by=["g"], options=options, scheduler="synchronous")
        digests.append(open_catalog(tmp_path / name).digest)
    assert digests[0] == digests[1]
    (row,) = reader.take(open_catalog(tmp_path / "a"), [0]).to_pylist()
    expected = {n: pa.scalar(value, type_).as_py() for n, (value, type_) in values.items()}
    assert row == {"g": 0} | expected


def test_defaults_that_are_none() -> None:
    """A null takes no null's place, nor does what no text says."""
    with pytest.raises(UsageError) as error:
        ConvertOptions(default={"x": None})
    assert str(error.value) == "default['x'] is null; give the value that takes a null's place"
    with pytest.raises(UsageError, match=r"^default\['x'\] is \{1\}, which no text says: "):
        ConvertOptions(default={"x": {1}})


def test_options_that_are_none() -> None:
    """Refused where they are made."""
    with pytest.raises(UsageError) as error:
        ConvertOptions(on_bad_rows="ignore")  # type: ignore[arg-type]
    assert str(error.value) == "on_bad_rows must be one of raise, quarantine, found 'ignore'"
    with pytest.raises(UsageError) as error:
        ConvertOptions(columns="x")
    assert str(error.value) == "columns must be a list or a mapping, found 'x'"
