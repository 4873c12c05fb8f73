"""The rows that a run's log leads to are the rows that the model saw, however it was trained."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import tfstream
from tfstream.errors import CorruptionError, DataError, ResumeError, UsageError
from tfstream.lineage import log
from tfstream.lineage.records import Steps
from tfstream.lineage.tally import Piece
from tfstream.pipeline import decode

ROWS, BATCH = 290, 16
STEPS = -(-ROWS // BATCH)
"""19, the last one of two rows: neither 3 nor 4 divides it."""

pytestmark = pytest.mark.filterwarnings("ignore:Your input ran out of data")


class Recording:
    """Half a model: it keeps the ids of every batch that it is trained on."""

    seen: list[tuple[int, list[int]]]

    def train_step(self, data: Any) -> Any:
        """Record, then train."""
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        tf.py_function(self.record, [replica, tf.reshape(data[0]["id"], [-1])], [])
        return super().train_step(data)

    def record(self, replica: Any, ids: Any) -> None:
        """Keep the ids of one batch."""
        self.seen.append((int(replica), [int(i) for i in ids.numpy()]))

    def batches(self) -> list[list[int]]:
        """The ids of each step."""
        by_replica: dict[int, list[list[int]]] = {}
        for replica, ids in self.seen:
            by_replica.setdefault(replica, []).append(ids)
        return [
            sum(parts, [])
            for parts in zip(*(by_replica[r] for r in sorted(by_replica)), strict=True)
        ]


class Spy(Recording, keras.Model):
    """A model of known inputs."""


class Unbuilt(Recording, keras.Model):
    """A model whose layers are made when the first batch comes."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, inputs: Any) -> Any:
        """A linear model of x."""
        return self.dense(tf.reshape(inputs["x"], [-1, 1]))


def spy(*, built: bool = True, steps_per_execution: int = 1) -> Any:
    """A compiled model."""
    if built:
        inputs = {
            "id": keras.Input((1,), dtype="int64", name="id"),
            "x": keras.Input((1,), dtype="float32", name="x"),
        }
        model = Spy(inputs, keras.layers.Dense(1)(inputs["x"]))
    else:
        model = Unbuilt()
    model.seen = []
    model.compile("sgd", "mse", steps_per_execution=steps_per_execution, jit_compile=False)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of seven groups in small blocks, whose column `id` numbers the rows of the source."""
    folder = tmp_path_factory.mktemp("lineage")
    rng = np.random.default_rng(1)
    table = pa.table(
        {
            "id": np.arange(400) * 1_000_003,
            "g": rng.integers(0, 7, 400),
            "x": rng.normal(size=400).astype(np.float32),
            "y": rng.normal(size=400),
            "at": pa.array(rng.integers(0, 2**40, 400), pa.timestamp("us")),
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


def stream_of(
    folder: Path, condition: str = f"id < {ROWS * 1_000_003}", **changes: Any
) -> tfstream.Stream:
    """A stream with several windows an epoch."""
    arguments = {"batch_size": BATCH, "features": ["id", "x"], "label": "y > 0", "seed": 5}
    options = tfstream.StreamOptions(window_rows=4 * BATCH, stretches=4)
    shards = tfstream.open(folder / "shards").where(condition)
    return shards.stream(**{"options": options} | arguments | changes)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy of the data set that a test may damage."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def trained(folder: Path, run: Path, **fit: Any) -> tuple[Any, tfstream.Stream]:
    """A model trained with the callback."""
    stream, model = stream_of(folder), spy()
    callback = tfstream.LineageCallback(run, stream)
    model.fit(stream.dataset(), verbose=0, callbacks=[callback], **fit)
    return model, stream


def logged(run: tfstream.Run, attempt: int = 0) -> list[list[int]]:
    """The ids of each logged step of an attempt, by way of the run's rows, the shards and their column `id`."""
    lines = run.steps.filter(pa.compute.equal(run.steps["attempt"], attempt))
    shards = tfstream.open(run.catalog.folder)
    steps = lines["step"].to_pylist()
    assert steps == list(range(steps[0], steps[-1] + 1))
    rows = [run.rows(step=step, attempt=attempt) for step in steps]
    assert [table.num_rows for table in rows] == lines["rows"].to_pylist()
    for table in rows:
        assert (np.array(table["source_row"]) * 1_000_003).tolist() == ids_of(shards, table)
    return [ids_of(shards, table) for table in rows]


def ids_of(shards: tfstream.Shards, rows: pa.Table) -> list[int]:
    """The values of `id` of some rows."""
    return shards.take(rows["row_id"].to_numpy(), ["id"])["id"].to_pylist()


class StopAt(keras.callbacks.Callback):
    """Stops training after some batch of some epoch, politely or not."""

    def __init__(self, epoch: int, batch: int, error: type[BaseException] | None = None) -> None:
        super().__init__()
        self._epoch, self._batch, self._error, self._now = epoch, batch, error, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Remember the epoch."""
        self._now = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Stop if it is time."""
        if (self._now, batch) == (self._epoch, self._batch):
            if self._error:
                raise self._error
            self.model.stop_training = True


FITS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "three epochs": ({}, {"epochs": 3}, 3 * STEPS),
    "not built before": ({"built": False}, {"epochs": 2}, 2 * STEPS),
    "groups of 3 steps": ({"steps_per_execution": 3}, {"epochs": 3}, 3 * STEPS),
    "groups of 40 steps": ({"steps_per_execution": 40}, {"epochs": 2}, 2 * STEPS),
    "an epoch of 4 steps": ({}, {"epochs": 4, "steps_per_epoch": 4}, 16),
    "an epoch of 4 steps, beyond the stream's": (
        {},
        {"epochs": 7, "steps_per_epoch": 4},
        19 + 2 * 4,
    ),
    "an epoch of 4 steps in groups of 3": (
        {"steps_per_execution": 3},
        {"epochs": 4, "steps_per_epoch": 4},
        19,
    ),
    "an epoch of all steps": ({}, {"epochs": 3, "steps_per_epoch": STEPS}, 3 * STEPS),
    "a later epoch first": ({}, {"epochs": 3, "initial_epoch": 1}, 2 * STEPS),
    "stopped early": ({}, {"epochs": 3, "callbacks": [StopAt(1, 6)]}, STEPS + 7),
    "stopped early in groups": (
        {"steps_per_execution": 3},
        {"epochs": 3, "callbacks": [StopAt(1, 8)]},
        STEPS + 9,
    ),
}


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("flush_steps", [1, 256])
def test_the_logged_rows_are_those_the_model_saw(
    folder: Path, tmp_path: Path, name: str, flush_steps: int
) -> None:
    """Step by step, in order, to the last one and no further; and the run proves it by itself."""
    model_arguments, fit, steps = FITS[name]
    stream, model = stream_of(folder), spy(**model_arguments)
    callback = tfstream.LineageCallback(tmp_path / "run", stream, flush_steps=flush_steps)
    callbacks = [callback, *fit.get("callbacks", [])]
    model.fit(stream.dataset(), verbose=0, **fit | {"callbacks": callbacks})
    run = tfstream.open_run(tmp_path / "run")
    assert logged(run) == model.batches()
    assert run.steps.num_rows == steps
    assert run.steps["step"][0].as_py() == fit.get("initial_epoch", 0) * STEPS
    assert run.verify(deep=True) == []
    epochs = run.steps["epoch"].to_pylist()
    assert epochs == [step // STEPS for step in run.steps["step"].to_pylist()]


@pytest.mark.parametrize("same_stream", [True, False])
def test_validation_leaves_no_trace_in_the_log(
    folder: Path, tmp_path: Path, same_stream: bool
) -> None:
    """Neither with a stream of its own nor with the training stream."""
    stream, model = stream_of(folder), spy()
    validation = stream if same_stream else stream_of(folder, f"id >= {ROWS * 1_000_003}")
    callback = tfstream.LineageCallback(tmp_path / "run", stream, validation)
    model.fit(
        stream.dataset(),
        epochs=3,
        validation_data=validation.dataset(),
        verbose=0,
        callbacks=[callback],
    )
    run = tfstream.open_run(tmp_path / "run")
    assert logged(run) == model.batches()
    assert run.verify(deep=True) == []
    assert run.description.validation is not None


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_in_fit_loses_no_step(
    folder: Path, tmp_path: Path, error: type[BaseException]
) -> None:
    """`close` writes what was consumed, and the next attempt is logged beside it."""
    stream, model = stream_of(folder), spy()
    callback = tfstream.LineageCallback(tmp_path / "run", stream)
    with pytest.raises(error):
        model.fit(stream.dataset(), epochs=3, verbose=0, callbacks=[callback, StopAt(1, 6, error)])
    callback.close()
    callback.close()
    run = tfstream.open_run(tmp_path / "run")
    assert logged(run) == model.batches()
    assert run.steps.num_rows == STEPS + 7
    assert run.verify() == []
    first = model.batches()
    model.seen.clear()
    model.fit(stream.dataset(), epochs=1, verbose=0, callbacks=[callback])
    again = tfstream.open_run(tmp_path / "run")
    assert logged(again, 0) == first
    assert logged(again, 1) == model.batches()
    assert again.attempt_of(3) == 1
    assert again.attempt_of(STEPS + 3) == 0
    assert again.rows(step=3).equals(again.rows(step=3, attempt=0))
    assert again.verify(deep=True) == []


def test_a_second_fit_without_close_still_ends_the_first_log(folder: Path, tmp_path: Path) -> None:
    """The callback writes what is left of the attempt before when the next begins."""
    stream, model = stream_of(folder), spy()
    callback = tfstream.LineageCallback(tmp_path / "run", stream)
    with pytest.raises(RuntimeError):
        model.fit(
            stream.dataset(), epochs=1, verbose=0, callbacks=[callback, StopAt(0, 6, RuntimeError)]
        )
    first = model.batches()
    model.fit(stream.dataset(), epochs=1, verbose=0, callbacks=[callback])
    run = tfstream.open_run(tmp_path / "run")
    assert logged(run, 0) == first
    assert run.verify() == []


def test_epochs_differ_and_each_is_a_permutation(folder: Path, tmp_path: Path) -> None:
    """Every row of the subset once an epoch, in another order."""
    model, _ = trained(folder, tmp_path / "run", epochs=2)
    ids = np.concatenate(model.batches()).reshape(2, ROWS)
    assert (np.sort(ids, axis=1) == np.arange(ROWS) * 1_000_003).all()
    assert (ids[0] != ids[1]).mean() > 0.9


def test_the_steps_of_a_row_are_those_that_saw_it(folder: Path, tmp_path: Path) -> None:
    """Asked by source row and by row id; a row outside the subset was seen by none."""
    model, _ = trained(folder, tmp_path / "run", epochs=3)
    run = tfstream.open_run(tmp_path / "run")
    batches = model.batches()
    for source_row in (0, 17, ROWS - 1):
        found = run.steps_of(source="source.parquet", source_row=source_row)
        assert found["step"].to_pylist() == [
            step for step, ids in enumerate(batches) if source_row * 1_000_003 in ids
        ]
        row_id = found["row_id"][0].as_py()
        assert run.steps_of(row_ids=[row_id]).equals(found)
        assert found["epoch"].to_pylist() == [0, 1, 2]
    assert run.steps_of(source="source.parquet", source_row=ROWS).num_rows == 0
    assert run.steps_of(row_ids=np.arange(400)).num_rows == 3 * ROWS


def test_a_question_that_has_no_answer_is_refused(folder: Path, tmp_path: Path) -> None:
    """Steps, attempts, rows and sources that are not there."""
    trained(folder, tmp_path / "run", epochs=1)
    run = tfstream.open_run(tmp_path / "run")
    with pytest.raises(
        UsageError, match=f"has step 19; the steps logged lie from 0 to {STEPS - 1}"
    ):
        run.rows(step=STEPS)
    with pytest.raises(
        UsageError, match="attempt 1 of .* has no step 0; there are no steps in its log"
    ):
        run.rows(step=0, attempt=1)
    with pytest.raises(UsageError, match="give either source and source_row, or row_ids"):
        run.steps_of(source="source.parquet")
    with pytest.raises(UsageError, match="row ids go from 0 to 399, there is no row 400"):
        run.steps_of(row_ids=[400])
    with pytest.raises(UsageError, match="there is no run in"):
        tfstream.open_run(tmp_path)


@pytest.mark.parametrize("label", ["y", "x", "at", "g", "g in (1, 2) or y <= 0.5"])
def test_a_label_of_any_type_is_proven(folder: Path, tmp_path: Path, label: str) -> None:
    """The labels read from the shards have the fingerprints of those that the model got."""
    stream = stream_of(folder, label=label)
    model = spy()
    model.compile(loss=lambda y, p: keras.ops.mean(p), jit_compile=False)
    model.fit(
        stream.dataset(), verbose=0, callbacks=[tfstream.LineageCallback(tmp_path / "run", stream)]
    )
    assert tfstream.open_run(tmp_path / "run").verify(deep=True) == []


def flip(path: Path, place: int) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_flipped_byte_of_the_log_is_found(folder: Path, tmp_path: Path) -> None:
    """Verify names the log; asking for steps refuses."""
    trained(folder, tmp_path / "run", epochs=1)
    flip(tmp_path / "run" / "attempt-000.log", -100)
    run = tfstream.open_run(tmp_path / "run")
    assert "attempt-000.log" in {finding.where for finding in run.verify()}
    with pytest.raises(CorruptionError, match="is not what was written"):
        _ = run.steps


def test_a_torn_log_loses_only_the_last_flush(folder: Path, tmp_path: Path) -> None:
    """As a crash leaves it; the steps before are still traced and proven."""
    stream, model = stream_of(folder), spy()
    callback = tfstream.LineageCallback(tmp_path / "run", stream, flush_steps=4)
    with pytest.raises(RuntimeError):
        model.fit(
            stream.dataset(), epochs=1, verbose=0, callbacks=[callback, StopAt(0, 9, RuntimeError)]
        )
    callback.close()
    path = tmp_path / "run" / "attempt-000.log"
    path.write_bytes(path.read_bytes()[:-5])
    run = tfstream.open_run(tmp_path / "run")
    assert logged(run) == model.batches()[:8]
    assert ["the last record is torn" in str(finding) for finding in run.verify()] == [True]


def test_a_log_that_lies_is_found(folder: Path, tmp_path: Path) -> None:
    """A log with valid frames whose fingerprints are not those of the rows and labels."""
    trained(folder, tmp_path / "run", epochs=1)
    path = tmp_path / "run" / "attempt-000.log"
    found = log.read(path)
    path.unlink()
    writer = log.Writer(path, found.attempt)
    rows, labels = (
        found.consumed[name].to_numpy().copy() for name in ("row_fingerprint", "label_fingerprint")
    )
    rows[3] += 1
    labels[5] += 1
    piece = Piece(first_step=0, generation=1, row_fingerprints=rows, label_fingerprints=labels)
    writer.append([*found.windows, Steps(piece=piece, time_s=0.0)])
    run = tfstream.open_run(tmp_path / "run")
    assert [f.where for f in run.verify()] == ["attempt-000.log, step 3"]
    assert [f.where for f in run.verify(deep=True)] == [
        "attempt-000.log, step 3",
        "attempt-000.log, step 5",
    ]


def test_labels_gathered_by_a_wrong_permutation_are_caught(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream whose row ids are right, while each row has its neighbour's label."""
    right = decode.label

    def wrong(*arguments: Any) -> Any:
        return tuple(tf.roll(values, 1, axis=1) for values in right(*arguments))

    monkeypatch.setattr(decode, "label", wrong)
    trained(folder, tmp_path / "run", epochs=1)
    run = tfstream.open_run(tmp_path / "run")
    assert run.verify() == []
    found = run.verify(deep=True)
    assert len(found) == run.steps.num_rows
    assert {finding.what for finding in found} == {
        "the labels that came are not those of its rows in the shards"
    }


def test_a_changed_shard_or_source_is_found(copied: Path, tmp_path: Path) -> None:
    """Each by its name."""
    trained(copied, tmp_path / "run", epochs=1)
    shard = sorted((copied / "shards" / "shards").rglob("*.tfrecord"))[0]
    flip(shard, -30)
    findings = tfstream.open_run(tmp_path / "run").verify(deep=True)
    assert {str(shard.relative_to(copied / "shards"))} <= {finding.where for finding in findings}
    assert any("is not what was written" in finding.what for finding in findings)
    flip(shard, -30)
    assert tfstream.open_run(tmp_path / "run").verify() == []


def test_a_run_and_its_data_may_move_together(folder: Path, tmp_path: Path) -> None:
    """The way from one to the other is kept; apart, the data set's folder can be given."""
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(folder, old / "data")
    trained(old / "data", old / "run", epochs=1)
    expected = tfstream.open_run(old / "run").rows(step=7)
    old.rename(new)
    assert tfstream.open_run(new / "run").rows(step=7).equals(expected)
    assert tfstream.open_run(new / "run").verify() == []
    (new / "data").rename(tmp_path / "elsewhere")
    run = tfstream.open_run(new / "run")
    assert run.steps.num_rows == STEPS
    with pytest.raises(UsageError, match="open_run"):
        run.rows(step=7)
    assert len(run.verify()) == 1
    moved = tfstream.open_run(new / "run", shards=tmp_path / "elsewhere" / "shards")
    assert moved.rows(step=7).equals(expected)


def test_a_folder_of_something_else_is_refused(folder: Path, tmp_path: Path) -> None:
    """A run on another stream, and a folder with other files; both stay as they are."""
    trained(folder, tmp_path / "run", epochs=1)
    stream, model = stream_of(folder, seed=6), spy()
    callback = tfstream.LineageCallback(tmp_path / "run", stream)
    with pytest.raises(ResumeError, match="holds a run on other streams .spec: "):
        model.fit(stream.dataset(), verbose=0, callbacks=[callback])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("precious")
    callback = tfstream.LineageCallback(tmp_path / "other", stream)
    with pytest.raises(ResumeError, match="holds something else than a run"):
        model.fit(stream.dataset(), verbose=0, callbacks=[callback])
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["file"]
    with pytest.raises(UsageError, match="flush_steps must be at least 1, got 0"):
        tfstream.LineageCallback(tmp_path / "run", stream, flush_steps=0)


def test_a_dataset_of_another_stream_is_refused(folder: Path, tmp_path: Path) -> None:
    """Training on what the callback does not watch ends with what to do, not with an empty log."""
    model = spy()
    callback = tfstream.LineageCallback(tmp_path / "run", stream_of(folder))
    with pytest.raises(UsageError, match="did not come from the stream of this callback; give fit"):
        model.fit(stream_of(folder).dataset(), verbose=0, callbacks=[callback])


def test_a_wrong_description_is_refused_with_its_field(folder: Path, tmp_path: Path) -> None:
    """Types and values are checked, and the error carries the path."""
    trained(folder, tmp_path / "run", epochs=1)
    path = tmp_path / "run" / "run.json"
    good = path.read_text()
    cases = {
        '"batch_size": 16': (
            '"batch_size": "16"',
            r"expected an integer, found '16'.*training\.spec\.batch_size",
        ),
        '"shuffle": "global"': (
            '"shuffle": "some"',
            r"expected 'global' or 'shards' or 'none', found 'some'",
        ),
        '"format": 1': ('"format": 7', "expected format 1, found 7"),
        '"stretches": 4': ('"stretches": 5', "stretches must divide batch_size"),
        '"label": ': ('"label": 3, "x": ', r"expected a string, found 3. Where: .*training\.label"),
    }
    for old, (new, message) in cases.items():
        assert old in good
        path.write_text(good.replace(old, new, 1))
        with pytest.raises(DataError, match=message):
            tfstream.open_run(tmp_path / "run")
    path.write_text("{")
    with pytest.raises(DataError, match="the run's description is not JSON"):
        tfstream.open_run(tmp_path / "run")


def mirrored(folder: Path, run: Path) -> None:
    """Train under MirroredStrategy on two virtual CPUs; run in a process of its own."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for built in (True, False):
        stream = stream_of(folder)
        with strategy.scope():
            model = spy(built=built)
        callback = tfstream.LineageCallback(run / str(built), stream)
        model.fit(stream.dataset(), epochs=3, verbose=0, callbacks=[callback])
        opened = tfstream.open_run(run / str(built))
        assert opened.verify(deep=True) == []
        assert [sorted(ids) for ids in logged(opened)] == [sorted(i) for i in model.batches()]
        assert opened.steps.num_rows == 3 * STEPS


def test_under_a_strategy_on_two_devices(folder: Path, tmp_path: Path) -> None:
    """Keras pulls a batch, throws it away and starts over; the log has each step once.

    Without steps_per_execution: Keras 3.15 cannot do it under this strategy, whatever the dataset.
    """
    code = (
        "import sys; from pathlib import Path; from tests.integration.test_lineage import mirrored; "
        "mirrored(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(tmp_path)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
