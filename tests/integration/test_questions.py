"""What a run answers: rows of many steps, coverage, composition, differences, rows by a condition."""

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tfstream
from tfstream.errors import UsageError

ROWS, BATCH = 330, 16
CONDITION = "n < 300"

# Ten steps an epoch of Keras' do not divide the 19 of the stream.
pytestmark = pytest.mark.filterwarnings("ignore:Your input ran out of data")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of five groups, one of them null."""
    folder = tmp_path_factory.mktemp("questions")
    rng = np.random.default_rng(2)
    table = pa.table(
        {
            "n": np.arange(ROWS),
            "g": pa.array(rng.integers(0, 4, ROWS), mask=rng.random(ROWS) < 0.2),
            "x": rng.normal(size=ROWS).astype(np.float32),
            "word": pa.array(rng.choice(["a", "b", "c"], ROWS), mask=rng.random(ROWS) < 0.1),
            "list": [[i] * (i % 3) for i in range(ROWS)],
        }
    )
    pq.write_table(table, folder / "source.parquet")
    tfstream.convert(
        folder / "source.parquet",
        folder / "shards",
        group_by=["g"],
        options=tfstream.ConvertOptions(block_rows=16),
    )
    return folder


def fit(
    folder: Path, run: Path, *, epochs: int = 2, condition: str = CONDITION, **changes: Any
) -> tfstream.Run:
    """Train a small model and open the run."""
    options = changes.pop("options", tfstream.StreamOptions(window_rows=64, stretches=4))
    arguments = {"batch_size": BATCH, "features": ["x"], "label": "x > 0", "seed": 5} | changes
    fitting = {name: arguments.pop(name) for name in ("steps_per_epoch",) if name in arguments}
    stream = tfstream.open(folder / "shards").where(condition).stream(options=options, **arguments)
    inputs = {"x": keras.Input((1,), name="x")}
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs["x"]))
    model.compile("sgd", "mse", jit_compile=False)
    callback = tfstream.LineageCallback(run, stream)
    model.fit(
        stream.dataset(), epochs=epochs, callbacks=[callback], shuffle=False, verbose=0, **fitting
    )
    return tfstream.open_run(run)


@pytest.fixture(scope="module")
def run(folder: Path) -> tfstream.Run:
    """Two and a half epochs of 19 steps: five of ten steps."""
    return fit(folder, folder / "run", epochs=5, steps_per_epoch=10)


def lines(table: pa.Table) -> Counter[tuple[Any, ...]]:
    """The lines of a table, without their order."""
    return Counter(zip(*(column.to_pylist() for column in table.columns), strict=True))


def all_rows(run: tfstream.Run) -> pa.Table:
    """The rows of all steps, step by step."""
    parts = [run.rows(step=step) for step in run.seen["step"].to_pylist()]
    return pa.concat_tables(parts)


def test_rows_of_a_range_are_those_of_its_steps(run: tfstream.Run) -> None:
    """In order, with the step beside them; an epoch is the range of its steps."""
    found = run.rows(step=range(17, 22))
    expected = [run.rows(step=step) for step in range(17, 22)]
    assert found.drop_columns("step").equals(pa.concat_tables(expected))
    assert Counter(found["step"].to_pylist()) == {
        s: t.num_rows for s, t in zip(range(17, 22), expected, strict=True)
    }
    epoch = run.rows(epoch=1)
    assert epoch.equals(run.rows(step=range(19, 38)))
    with pytest.raises(
        UsageError, match="none of these steps was seen; the steps logged lie from 0 to 47"
    ):
        run.rows(step=range(100, 120))
    with pytest.raises(UsageError, match="give either a step, or a range of steps, or an epoch"):
        run.rows()


def test_coverage_counts_what_the_steps_had(run: tfstream.Run) -> None:
    """Each row's times are those of the rows of all steps; unseen rows count too."""
    rows = all_rows(run)
    times = Counter(rows["row_id"].to_pylist())
    kept = run.subset
    ids = np.concatenate([kept.row_ids_in(int(block)) for block in kept.blocks])
    group = dict(zip(rows["row_id"].to_pylist(), rows["g"].to_pylist(), strict=True))
    expected = Counter((group[i], times[i]) for i in ids.tolist())
    found = run.coverage()
    assert found.column_names == ["g", "seen", "rows"]
    assert (
        dict(
            zip(
                zip(found["g"].to_pylist(), found["seen"].to_pylist(), strict=True),
                found["rows"].to_pylist(),
                strict=True,
            )
        )
        == expected
    )
    assert set(times.values()) == {2, 3}


def test_rows_that_no_step_had_are_covered_zero_times(folder: Path, tmp_path: Path) -> None:
    """Less than an epoch leaves rows unseen, and they are told."""
    found = fit(folder, tmp_path / "short", epochs=1, steps_per_epoch=3).coverage()
    counts = Counter()
    for seen, rows in zip(found["seen"].to_pylist(), found["rows"].to_pylist(), strict=True):
        counts[seen] += rows
    assert counts == {0: 300 - 3 * BATCH, 1: 3 * BATCH}


def test_composition_counts_groups_and_values(run: tfstream.Run) -> None:
    """By step: groups, a column with nulls, and a key function, as the rows themselves say."""
    rows = run.rows(step=range(48))
    by_group = run.composition()
    assert lines(by_group) == {(*key, n): 1 for key, n in lines(rows.select(["step", "g"])).items()}
    shards = tfstream.open(run.catalog.folder)
    values = shards.take(rows["row_id"].to_numpy())
    words = run.composition("word", steps=range(5, 9))
    counted = lines(pa.table({"step": rows["step"], "word": values["word"]}))
    assert lines(words) == {(*key, n): 1 for key, n in counted.items() if key[0] in range(5, 9)}
    buckets = run.composition("bucket(n, 100)", steps=3)
    expected = Counter(
        n // 100
        for s, n in zip(rows["step"].to_pylist(), values["n"].to_pylist(), strict=True)
        if s == 3
    )
    assert (
        dict(zip(buckets["bucket"].to_pylist(), buckets["rows"].to_pylist(), strict=True))
        == expected
    )
    with pytest.raises(UsageError, match="there is no column 'nothing'"):
        run.composition("nothing")
    with pytest.raises(
        UsageError, match="'list' is list<item: int64>, whose values are not counted"
    ):
        run.composition("list", steps=0)


def test_steps_of_a_condition_are_those_of_its_rows(run: tfstream.Run) -> None:
    """All rows of the data set that fulfil it, those that the run left out among them."""
    shards = tfstream.open(run.catalog.folder)
    values = shards.take(np.arange(shards.rows), ["word", "n"]).to_pylist()
    ids = [i for i, row in enumerate(values) if row["word"] == "b" and row["n"] > 250]
    assert any(values[i]["n"] >= 300 for i in ids)
    found = run.steps_of(where="word = 'b' and n > 250")
    assert found.equals(run.steps_of(row_ids=ids))
    assert set(found["row_id"].to_pylist()) == {i for i in ids if values[i]["n"] < 300}
    assert not run.steps_of(where="word = 'zebra'").num_rows
    with pytest.raises(UsageError, match="give either source and source_row, or row_ids, or where"):
        run.steps_of(where="n = 1", row_ids=[1])


def test_equal_runs_do_not_differ(folder: Path, run: tfstream.Run, tmp_path: Path) -> None:
    """A shorter run of the same order agrees as far as it goes."""
    found = run.difference(fit(folder, tmp_path / "same", epochs=1))
    assert (found.step, found.steps, found.only, found.reasons) == (None, 19, (29, 0), ())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"seed": 6}, ("seed", "5", "6")),
        ({"batch_size": 8}, ("batch_size", "16", "8")),
        ({"condition": "n < 299"}, ("recipe", CONDITION, "n < 299")),
    ],
)
def test_a_difference_is_dated_and_explained(
    folder: Path,
    run: tfstream.Run,
    tmp_path: Path,
    changes: dict[str, Any],
    reason: tuple[str, str, str],
) -> None:
    """The first step is the first whose rows, in order, are others; the reason is what was asked."""
    other = fit(folder, tmp_path / "other", epochs=1, **changes)
    found = run.difference(other)
    unequal = [
        step
        for step in other.steps["step"].to_pylist()
        if not run.rows(step=step)["row_id"].equals(other.rows(step=step)["row_id"])
    ]
    assert found.step == unequal[0]
    assert reason in found.reasons


def test_runs_on_two_data_sets_are_compared_by_their_sources(
    folder: Path, run: tfstream.Run, tmp_path: Path
) -> None:
    """Other block sizes make another data set; its rows come in another order, and it says so."""
    shutil.copy(folder / "source.parquet", tmp_path / "source.parquet")
    options = tfstream.ConvertOptions(block_rows=32)
    tfstream.convert(
        tmp_path / "source.parquet", tmp_path / "shards", group_by=["g"], options=options
    )
    other = fit(tmp_path, tmp_path / "run", epochs=1)
    found = run.difference(other)
    assert found.step == 0
    assert "dataset" in [name for name, _, _ in found.reasons]


def test_what_was_trained_beyond_a_resume_is_not_seen(folder: Path, tmp_path: Path) -> None:
    """The last attempt's steps count from where it began, the earlier ones' below it."""
    stream = (
        tfstream.open(folder / "shards")
        .where(CONDITION)
        .stream(batch_size=BATCH, features=["x"], label="x > 0", seed=5)
    )
    for initial, epochs in ((0, 2), (1, 3)):
        inputs = {"x": keras.Input((1,), name="x")}
        model = keras.Model(inputs, keras.layers.Dense(1)(inputs["x"]))
        model.compile("sgd", "mse", jit_compile=False)
        model.fit(
            stream.dataset(),
            initial_epoch=initial,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=[tfstream.LineageCallback(tmp_path / "run", stream)],
        )
    found = tfstream.open_run(tmp_path / "run")
    assert found.steps.num_rows == 4 * 19
    assert found.seen["step"].to_pylist() == list(range(3 * 19))
    assert found.seen["attempt"].to_pylist() == [0] * 19 + [1] * 38
    assert set(found.coverage()["seen"].to_pylist()) == {3}


def test_the_command_line_answers(folder: Path, run: tfstream.Run, tmp_path: Path) -> None:
    """Trace of a range, find by a condition, coverage, composition and diff print their tables."""

    def call(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "tfstream.cli", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    where = str(run.folder)
    code, text = call("trace", where, "--step", "17:19", "--format", "csv")
    assert code == 0
    assert len(text.splitlines()) == 1 + run.rows(step=range(17, 19)).num_rows
    code, text = call("trace", where, "--step", "3", "--values", "--format", "csv")
    assert code == 0
    assert text.splitlines()[0] == '"row_id","source","source_row","n","g","x","word","list"'
    assert text.splitlines()[-1] == f"{BATCH} of {BATCH} rows equal their sources"
    code, text = call("find", where, "--where", "n in (7, 8)", "--count")
    assert code == 0
    assert text.splitlines()[0].split() == ["attempt", "epoch", "rows", "steps"]
    assert [line.split() for line in text.splitlines()[1:3]] == [
        ["0", "0", "2", "2"],
        ["0", "1", "2", "2"],
    ]
    code, text = call("coverage", where)
    assert (code, len(text.splitlines())) == (0, 1 + run.coverage().num_rows)
    code, text = call("composition", where, "--step", "0", "--by", "word")
    assert (code, text.split()[:3]) == (0, ["step", "word", "rows"])
    fit(folder, tmp_path / "other", epochs=1, seed=6)
    code, text = call("diff", where, str(tmp_path / "other"))
    assert code == 1
    assert f"seed: 5 in {where}, 6 in {tmp_path / 'other'}" in text
    assert "step 0 is the first of 19 that saw other rows" in text
    code, text = call("trace", where, "--step", "x")
    assert (code, "--step x: expected a step such as 12, or 10:20 for 10 to 19" in text) == (
        2,
        True,
    )
