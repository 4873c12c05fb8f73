"""Rows read again from their sources are the rows of the shards, or the difference is named."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest
from pyarrow import feather, orc

import tfstream
from tfstream.conversion.rereading import source_rows
from tfstream.errors import DataError, UsageError
from tfstream.evidence import evidence

ROWS = 90


def table(seed: int) -> pa.Table:
    """Numbers with NaN and nulls, times, words."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=ROWS)
    numbers[::9] = np.nan
    return pa.table(
        {
            "g": rng.integers(0, 4, ROWS),
            "x": pa.array(numbers, mask=rng.random(ROWS) < 0.2),
            "n": pa.array(rng.integers(-9, 9, ROWS), mask=rng.random(ROWS) < 0.2),
            "word": rng.choice(["a", "b,\n", '"c"'], ROWS),
            "at": pa.array(rng.integers(0, 10**9, ROWS), pa.timestamp("s")),
        }
    )


def write_json(rows: pa.Table, path: Path) -> None:
    """As pandas writes it, a line a row."""
    rows.to_pandas().to_json(path, orient="records", lines=True, date_format="iso")


WRITERS = {
    "parquet": lambda rows, path: pq.write_table(rows, path, row_group_size=20),
    "csv": pcsv.write_csv,
    "jsonl": write_json,
    "feather": lambda rows, path: feather.write_feather(rows, str(path), chunksize=20),
    "orc": orc.write_table,
}


def converted(folder: Path, kind: str, **options: object) -> tfstream.Shards:
    """Two files of a kind, converted in small partitions."""
    for i in range(2):
        WRITERS[kind](table(i), folder / f"{i}.{kind}")
    return tfstream.convert(
        folder / f"*.{kind}",
        folder / "out",
        group_by=["g"],
        options=tfstream.ConvertOptions(block_rows=16, partition_bytes=1_000, **options),
    )


@pytest.mark.parametrize("kind", WRITERS)
def test_all_rows_equal_their_sources(tmp_path: Path, kind: str) -> None:
    """Whatever the kind of file, in any order of the rows; every row is compared."""
    shards = converted(tmp_path, kind)
    ids = np.random.default_rng(0).permutation(2 * ROWS)
    found = evidence(shards.subset.catalog, ids)
    assert (found.compared, found.missing) == (2 * ROWS, ())
    assert repr(found.values.to_pylist()) == repr(shards.take(ids).to_pylist())


def test_what_the_conversion_made_of_the_columns_is_made_again(tmp_path: Path) -> None:
    """Renamed, cast and filled columns are compared as they became."""
    shards = converted(
        tmp_path,
        "csv",
        columns={"g": "g", "number": "n", "x": "x"},
        dtypes={"x": "float32"},
        default={"number": 7},
    )
    found = evidence(shards.subset.catalog, np.arange(2 * ROWS))
    assert found.compared == 2 * ROWS
    assert found.values.column_names == ["g", "number", "x"]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_changed_value_is_named(tmp_path: Path, kind: str) -> None:
    """A source that was edited without becoming longer differs in a value, which is told."""
    shards = converted(tmp_path, kind)
    catalog = shards.subset.catalog
    path = tmp_path / f"1.{kind}"
    rows = table(1)
    first = rows["g"][5].as_py()
    numbers = rows["g"].to_numpy().copy()
    numbers[5] = (first + 1) % 4
    size = path.stat().st_size
    WRITERS[kind](rows.set_column(0, "g", pa.array(numbers)), path)
    assert path.stat().st_size == size
    with pytest.raises(DataError, match=rf"1\.{kind} row 5, column 'g'"):
        evidence(catalog, np.arange(2 * ROWS))


def test_a_source_that_is_gone_is_told_and_the_others_are_compared(tmp_path: Path) -> None:
    """The values come from the shards all the same."""
    shards = converted(tmp_path, "parquet")
    (tmp_path / "0.parquet").unlink()
    found = evidence(shards.subset.catalog, np.arange(2 * ROWS))
    assert found.compared == ROWS
    assert found.missing == (
        f"the source {tmp_path / '0.parquet'} is not there any more; bring it back",
    )


def test_a_source_of_another_length_is_refused(tmp_path: Path) -> None:
    """Its rows are not those of then."""
    shards = converted(tmp_path, "csv")
    with (tmp_path / "0.csv").open("ab") as file:
        file.write(b"\n")
    with pytest.raises(DataError, match="had .* when it was converted"):
        source_rows(shards.subset.catalog, 0, np.array([3]))


def test_a_partition_of_a_frame_has_no_file(tmp_path: Path) -> None:
    """Nothing is kept of it to read again."""
    from dask.dataframe import from_pandas

    frame = from_pandas(table(0).to_pandas().drop(columns=["at"]), npartitions=2)
    shards = tfstream.convert(frame, tmp_path / "out", group_by=["g"])
    with pytest.raises(UsageError, match="partition-00000 was a partition of a DataFrame"):
        source_rows(shards.subset.catalog, 0, np.array([3]))
