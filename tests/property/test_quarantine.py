"""Rows that cannot be read: none is lost, none is read as something else."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import orc

from tfstream.conversion.convert import convert
from tfstream.conversion.options import ConvertOptions
from tfstream.errors import DataError, UsageError
from tfstream.format import check, provenance, reader
from tfstream.format.manifest import Catalog, open_catalog


def quarantined(source: Path, out: Path, partition_bytes: int = 1 << 26) -> Catalog:
    """The data set of what can be read."""
    options = ConvertOptions(
        on_bad_rows="quarantine", dtypes={"n": "int32"}, partition_bytes=partition_bytes
    )
    convert(source, out, group_by=["g"], options=options, scheduler="synchronous")
    return open_catalog(out)


def bad_rows(out: Path) -> list[dict[str, object]]:
    """What is kept of the rows that could not be read."""
    if not (out / "quarantine").exists():
        return []
    files = sorted((out / "quarantine").iterdir())
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all files of a data set but the manifest."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.parent != folder
    }


good = st.tuples(
    st.integers(0, 2), st.integers(-99, 99), st.text(st.sampled_from("ab ü"), max_size=3)
)
DAMAGE = {
    ".csv": [",", "1", "1,2,3,4", "1,x,a", "1,3000000000,a", '1,"2"x,a', "1,2.5,a"],
    ".jsonl": ["{", "[]", '{"g":1', '{"g":1,"n":"x"}', '{"g":1,"n":3000000000}', "{}{}", "1"],
}


def line(suffix: str, row: tuple[int, int, str]) -> str:
    """A row as text."""
    group, number, text = row
    if suffix == ".csv":
        return f'{group},{number},"_{text}"'
    return json.dumps({"g": group, "n": number, "s": f"_{text}"})


@pytest.mark.parametrize("suffix", DAMAGE)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), rows=st.lists(good, min_size=1, max_size=20), size=st.integers(1, 200))
def test_each_row_is_either_right_or_quarantined(
    suffix: str, data: st.DataObject, rows: list[tuple[int, int, str]], size: int
) -> None:
    """With its true place, byte and bytes; whatever the partitions."""
    hit = data.draw(st.dictionaries(st.integers(0, len(rows) - 1), st.sampled_from(DAMAGE[suffix])))
    if len(hit) == len(rows):
        del hit[0]
    lines = [hit.get(i, line(suffix, row)) for i, row in enumerate(rows)]
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / f"x{suffix}"
        head = "g,n,s\n" if suffix == ".csv" else ""
        source.write_text(head + "".join(f"{text}\n" for text in lines), encoding="utf-8")
        catalog = quarantined(source, Path(name) / "a")
        bad = bad_rows(Path(name) / "a")
        assert [row["source_row"] for row in bad] == sorted(hit)
        whole = source.read_bytes()
        for row in bad:
            raw = f"{hit[row['source_row']]}\n".encode()
            assert row["raw"] == raw
            assert whole[row["byte"] :].startswith(raw)
        assert catalog.rows + len(bad) == len(rows)
        assert catalog.sources.select(["rows", "quarantined"]).to_pylist() == [
            {"rows": len(rows), "quarantined": len(bad)}
        ]
        _, places = provenance.rows_of_sources(catalog, np.arange(catalog.rows))
        found = reader.take(catalog, np.arange(catalog.rows)).to_pylist()
        for place, row in zip(places, found, strict=True):
            group, number, text = rows[place]
            assert row == {"g": group, "n": number, "s": f"_{text}"}
        for place in hit:
            with pytest.raises(UsageError, match=f"^row {place} of x{suffix} could not be read; "):
                provenance.row_ids_of(catalog, 0, np.array([place]))
        other = quarantined(source, Path(name) / "b", size)
        assert contents(Path(name) / "a") == contents(Path(name) / "b")
        assert other.digest == catalog.digest


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.lists(good, min_size=1, max_size=12),
    strokes=st.lists(
        st.tuples(st.integers(0, 200), st.sampled_from([b'"', b",", b"\n", b"x", b""])), max_size=4
    ),
    size=st.integers(1, 200),
)
def test_rows_and_quarantined_ones_are_all(
    rows: list[tuple[int, int, str]], strokes: list[tuple[int, bytes]], size: int
) -> None:
    """Whatever was done to the bytes behind the header; whatever the partitions."""
    body = "".join(f"{line('.csv', row)}\n" for row in rows).encode()
    for at, stroke in strokes:
        body = body[:at] + stroke + body[at + 1 :]
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "x.csv"
        source.write_bytes(b"g,n,s\n" + body + b"1,2,end\n")
        try:
            catalog = quarantined(source, Path(name) / "a")
        except DataError as error:
            assert "no row of the sources can be read" in str(error)  # noqa: PT017 - it may succeed
            return
        bad = bad_rows(Path(name) / "a")
        assert catalog.rows + len(bad) == catalog.sources["rows"][0].as_py()
        _, places = provenance.rows_of_sources(catalog, np.arange(catalog.rows))
        assert sorted([*places, *(row["source_row"] for row in bad)]) == list(
            range(catalog.rows + len(bad))
        )
        assert quarantined(source, Path(name) / "b", size).digest == catalog.digest
        assert contents(Path(name) / "a") == contents(Path(name) / "b")


@pytest.mark.parametrize("partition_bytes", [1 << 26, 1000, 10])
@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
def test_a_corrupt_piece_is_quarantined_as_a_whole(
    tmp_path: Path, suffix: str, partition_bytes: int
) -> None:
    """A row group or batch that does not decode takes its rows along, and no others."""
    table = pa.table({"g": [i % 3 for i in range(400)], "n": list(range(400))})
    path = tmp_path / f"x{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path, row_group_size=100, write_page_checksum=True)
        place = pq.ParquetFile(path).metadata.row_group(1).column(1).data_page_offset + 40
    else:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(path, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=100)
        # The second batch's last column ends before the third batch begins.
        place = path.read_bytes().index(b"\x28\xb5\x2f\xfd", len(path.read_bytes()) * 3 // 8)
    data = bytearray(path.read_bytes())
    data[place : place + 30] = b"\xff" * 30
    path.write_bytes(data)
    catalog = quarantined(path, tmp_path / "out", partition_bytes)
    (bad,) = bad_rows(tmp_path / "out")
    assert bad["rows"] == 100
    assert catalog.rows == 300
    assert catalog.sources["quarantined"].to_pylist() == [100]
    lost = range(bad["source_row"], bad["source_row"] + 100)
    found = reader.take(catalog, np.arange(300))["n"].to_pylist()
    assert sorted(found) == [i for i in range(400) if i not in lost]
    with pytest.raises(DataError) as error:
        convert(path, tmp_path / "none", group_by=["g"])
    assert str(error.value).startswith(f"{path}: rows {lost[0]} to {lost[-1]}")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("partition_bytes", [1 << 26, 100_000])
def test_a_corrupt_stripe_is_quarantined_as_a_whole(tmp_path: Path, partition_bytes: int) -> None:
    """Of ORC, whose stripes have 8,192 rows at least; or it is named.

    ORC has no checksums: what was not compressed, as random numbers are, may be damaged unseen.
    """
    numbers = np.random.default_rng(0).integers(0, 2**30, 60_000)
    path = tmp_path / "x.orc"
    table = pa.table({"g": numbers % 3, "n": numbers, "s": [f"text {n}" for n in numbers.tolist()]})
    orc.write_table(table, path, stripe_size=1_000, compression="zstd")
    file = orc.ORCFile(path)
    sizes = [file.read_stripe(i).num_rows for i in range(file.nstripes)]
    assert len(sizes) > 2
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 300] = b"\xff" * 300
    path.write_bytes(data)
    catalog = quarantined(path, tmp_path / "out", partition_bytes)
    (bad,) = bad_rows(tmp_path / "out")
    first, rows = bad["source_row"], bad["rows"]
    assert (first, rows) in zip(np.cumsum(sizes) - sizes, sizes, strict=True)
    found = reader.take(catalog, np.arange(catalog.rows))["n"].to_pylist()
    assert sorted(found) == sorted(np.delete(numbers, np.s_[first : first + rows]))
    with pytest.raises(DataError) as error:
        convert(path, tmp_path / "none", group_by=["g"])
    where = f"rows {first} to {first + rows - 1}"
    assert str(error.value).startswith(f"{path}: {where} cannot be read: ")
    assert not (tmp_path / "none").exists()


def test_verify_accounts_for_each_row(tmp_path: Path) -> None:
    """A quarantine that is gone, or is another one's, is a finding."""
    path = tmp_path / "x.csv"
    path.write_text("g,n\n1,1\n2\n3\n")
    catalog = quarantined(path, tmp_path / "out")
    kept = tmp_path / "out" / "quarantine" / "00000.parquet"
    assert list(check.check_dataset(catalog)) == []
    pq.write_table(pq.read_table(kept).slice(1), kept)
    assert [str(finding) for finding in check.check_dataset(catalog)] == [
        "quarantine/00000.parquet: it does not account for the 2 rows"
    ]
    kept.unlink()
    (finding,) = check.check_dataset(catalog)
    assert str(finding).startswith("quarantine/00000.parquet: it cannot be read: ")


@pytest.mark.parametrize(
    ("name", "text", "where", "reason"),
    [
        (
            "x.csv",
            'g,n\n"1",1\n\n"2\n",2,3\n',
            "row 1 at byte 11",
            'CSV parse error: Expected 2 columns, got 3: "2',
        ),
        (
            "x.csv",
            "g,n\n0,1\n0,1.5\n",
            "row 1 at byte 8",
            "column 'n': CSV conversion error to int32: invalid value '1.5'",
        ),
        ("x.jsonl", '{"g":1}\n\n{"g":\n', "row 1 at byte 9", "JSON parse error: Invalid value"),
        (
            "x.jsonl",
            '{"g":1,"n":0.5}\n',
            "row 0 at byte 0",
            "Failed to convert JSON to int32, couldn't parse:0.5",
        ),
    ],
)
def test_the_first_bad_row_is_named(
    tmp_path: Path, name: str, text: str, where: str, reason: str
) -> None:
    """With its number among the records, and the byte at which it begins."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError) as error:
        convert(
            path, tmp_path / "out", group_by=["g"], options=ConvertOptions(dtypes={"n": "int32"})
        )
    assert str(error.value) == (
        f"{path}: {where} cannot be read: {reason}; mend the source, or leave such rows out by "
        "on_bad_rows='quarantine'"
    )
    assert not (tmp_path / "out").exists()


def test_a_value_that_does_not_fit_is_quarantined_alone(tmp_path: Path) -> None:
    """Under a type that was asked for, in a file that has types of its own."""
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"g": [0, 0, 1, 1], "n": ["1", "x", "3", None]}), path, row_group_size=3
    )
    catalog = quarantined(path, tmp_path / "out")
    assert bad_rows(tmp_path / "out") == [
        {
            "source": "x.parquet",
            "source_row": 1,
            "rows": 1,
            "byte": None,
            "raw": None,
            "reason": "column 'n': Failed to parse string: 'x' as a scalar of type int32",
        }
    ]
    assert reader.take(catalog, [0, 1, 2]).to_pydict() == {"g": [0, 1, 1], "n": [1, 3, None]}


@pytest.mark.parametrize(("name", "text"), [("x.csv", "g,n\n1\n2\n"), ("x.ndjson", "1\n2\n")])
def test_nothing_readable_is_refused(tmp_path: Path, name: str, text: str) -> None:
    """A data set has rows."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError) as error:
        quarantined(path, tmp_path / "out")
    assert str(error.value) == "no row of the sources can be read; on_bad_rows='raise' tells why"
    assert not (tmp_path / "out").exists()
