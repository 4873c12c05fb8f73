"""Metrics, validations, tests, loops of one's own and Parquet files of a run's log."""

import threading
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tfstream
from tfstream.errors import UsageError
from tfstream.lineage import log
from tfstream.lineage.attempts import log_path

BATCH, STEPS = 16, 19
"""290 rows: 18 batches and one of two rows."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tfstream.Shards:
    """A data set whose column `id` numbers the rows of the source."""
    folder = tmp_path_factory.mktemp("phases")
    rng = np.random.default_rng(1)
    table = pa.table(
        {"id": np.arange(400.0), "g": rng.integers(0, 7, 400), "x": rng.normal(size=400)}
    )
    pq.write_table(table, folder / "source.parquet")
    options = tfstream.ConvertOptions(block_rows=16)
    return tfstream.convert(
        folder / "source.parquet", folder / "out", group_by=["g"], options=options
    )


def streams(shards: tfstream.Shards) -> tuple[tfstream.Stream, tfstream.Stream]:
    """For training and for validation."""
    options = tfstream.StreamOptions(window_rows=4 * BATCH, stretches=4)
    train = shards.where("id < 290").stream(
        batch_size=BATCH, features=["x"], label="id", seed=5, options=options
    )
    return train, shards.where("id >= 290").stream(batch_size=BATCH, features=["x"], label="id")


class Spy(keras.Model):
    """Keeps the labels of each batch of a test, and the loss of each batch of training."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.tested: list[list[float]] = []

    def call(self, inputs: Any) -> Any:
        """A linear model of x."""
        return self.dense(inputs["x"][:, None])

    def test_step(self, data: Any) -> Any:
        """Record, then test."""
        self.tested.append(data[1].numpy().tolist())
        return super().test_step(data)


def model() -> Spy:
    """Run eagerly, so that it sees what it tests."""
    made = Spy()
    made.compile("sgd", "mse", metrics=["mae"], run_eagerly=True)
    return made


def test_validations_are_phases_of_their_own(shards: tfstream.Shards, tmp_path: Path) -> None:
    """Each pass of each fit, with the training step it came after; the rows are what was seen."""
    train, validation = streams(shards)
    spy = model()
    callback = tfstream.LineageCallback(tmp_path / "run", train, validation)
    spy.fit(
        train.dataset(),
        epochs=2,
        validation_data=validation.dataset(),
        callbacks=[callback],
        shuffle=False,
        verbose=0,
    )
    run = tfstream.open_run(tmp_path / "run")
    assert run.verify(deep=True) == []
    tests = run.tests
    passes = validation.steps_per_epoch
    assert tests["phase"].to_pylist() == ["validation"] * (2 * passes)
    assert tests["at_step"].to_pylist() == [STEPS] * passes + [2 * STEPS] * passes
    ids = shards.take(np.arange(shards.rows), ["id"])["id"].to_numpy()
    for step, seen in zip(tests["step"].to_pylist(), spy.tested, strict=True):
        assert ids[run.test_rows(step=step)["row_id"].to_numpy()].tolist() == seen
    assert run.steps.num_rows == 2 * STEPS


def test_an_evaluation_is_a_test(shards: tfstream.Shards, tmp_path: Path) -> None:
    """Outside of fit, as an attempt without training; it takes nothing back."""
    train, validation = streams(shards)
    spy = model()
    callback = tfstream.LineageCallback(tmp_path / "run", train, validation)
    spy.fit(train.dataset(), epochs=1, callbacks=[callback], shuffle=False, verbose=0)
    spy.tested.clear()
    spy.evaluate(validation.dataset(), callbacks=[callback], verbose=0)
    run = tfstream.open_run(tmp_path / "run")
    assert run.verify(deep=True) == []
    assert set(run.tests["phase"].to_pylist()) == {"test"}
    assert run.tests.num_rows == len(spy.tested)
    assert run.seen.num_rows == STEPS
    # The stream is free again: each new iterator takes an epoch, and nobody fills the queue.
    assert len(list(validation.dataset())) == validation.steps_per_epoch
    assert validation.control.pop() is None
    spy.evaluate(validation.dataset(), callbacks=[callback], verbose=0)
    again = tfstream.open_run(tmp_path / "run")
    assert again.verify(deep=True) == []
    assert (
        again.tests["attempt"].to_pylist()
        == [1] * validation.steps_per_epoch + [2] * validation.steps_per_epoch
    )


def test_a_validation_of_something_else_is_refused(shards: tfstream.Shards, tmp_path: Path) -> None:
    """What did not come from the stream cannot be logged as if it had."""
    train, validation = streams(shards)
    callback = tfstream.LineageCallback(tmp_path / "run", train, validation)
    other = validation.dataset(epochs=range(1))
    with pytest.raises(UsageError, match="of the validation did not come from its stream"):
        model().fit(
            train.dataset(), validation_data=other, callbacks=[callback], shuffle=False, verbose=0
        )
    callback.close()


@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_the_loss_of_a_step_is_its_own(
    shards: tfstream.Shards, tmp_path: Path, steps_per_execution: int
) -> None:
    """Not the mean over the epoch so far; of several steps an execution the mean over those."""
    train, _ = streams(shards)
    inputs = {"x": keras.Input((1,), name="x")}
    made = keras.Model(inputs, 0 * keras.layers.Dense(1)(inputs["x"]))
    made.compile("sgd", "mse", steps_per_execution=steps_per_execution, jit_compile=False)
    callback = tfstream.LineageCallback(tmp_path / "run", train, metrics=["loss", "nothing"])
    made.fit(train.dataset(), epochs=2, callbacks=[callback], shuffle=False, verbose=0)
    steps = tfstream.open_run(tmp_path / "run").steps
    assert steps["nothing"].null_count == steps.num_rows
    ids = shards.take(np.arange(shards.rows), ["id"])["id"].to_numpy()
    found, squares, rows = steps["loss"].to_pylist(), 0.0, 0
    for step in range(2 * STEPS):
        label = ids[train.row_ids(*divmod(step, STEPS))]
        squares, rows = squares + float((label**2).sum()), rows + len(label)
        if (step % STEPS + 1) % steps_per_execution == 0 or step % STEPS == STEPS - 1:
            assert found[step] == pytest.approx(squares / rows, rel=1e-3)
            squares, rows = 0.0, 0
        else:
            assert found[step] is None


def test_steps_are_parquet_that_others_read(shards: tfstream.Shards, tmp_path: Path) -> None:
    """When training has ended the steps are in Parquet alone; pandas reads what `steps` says."""
    train, _ = streams(shards)
    callback = tfstream.LineageCallback(tmp_path / "run", train, metrics=["loss"])
    model().fit(train.dataset(), epochs=2, callbacks=[callback], shuffle=False, verbose=0)
    run = tfstream.open_run(tmp_path / "run")
    assert log.read(log_path(run.folder, 0)).is_moved
    read = pd.read_parquet(run.folder / "attempt-000.parquet")
    shown = run.steps.drop_columns(["rolled_back"]).to_pandas()
    pd.testing.assert_frame_equal(read[shown.columns], shown, check_dtype=False)
    assert (run.windows["wait_s"].to_numpy() >= 0).all()
    assert run.windows.num_rows == 2 * train.spec.windows_per_epoch


def test_a_loop_of_one_s_own_is_logged(shards: tfstream.Shards, tmp_path: Path) -> None:
    """Two epochs, stopped in the second and begun anew where it stood."""
    train, _ = streams(shards)
    callback = tfstream.LineageCallback(tmp_path / "run", train, metrics=["loss"], flush_steps=5)
    callback.begin()
    seen = []
    for count in (STEPS, 7, STEPS - 7):
        for i, (_, label) in enumerate(train.dataset()):
            seen.append(label.numpy().tolist())
            callback.step(loss=float(len(seen)))
            if i + 1 == count:
                break
    callback.close()
    run = tfstream.open_run(tmp_path / "run")
    assert run.verify(deep=True) == []
    assert run.steps["step"].to_pylist() == list(range(2 * STEPS))
    assert run.steps["loss"].to_pylist() == [float(i + 1) for i in range(2 * STEPS)]
    ids = shards.take(np.arange(shards.rows), ["id"])["id"].to_numpy()
    for step, labels in enumerate(seen):
        assert ids[run.rows(step=step)["row_id"].to_numpy()].tolist() == labels
    with pytest.raises(UsageError, match="begin"):
        callback.step()


def test_a_second_fit_of_the_same_model_goes_on(shards: tfstream.Shards, tmp_path: Path) -> None:
    """Its weights have seen both fits; another model at the first step has seen its own alone."""
    train, _ = streams(shards)
    callback = tfstream.LineageCallback(tmp_path / "run", train)
    first = model()
    for _ in range(2):
        first.fit(train.dataset(), epochs=1, callbacks=[callback], shuffle=False, verbose=0)
    run = tfstream.open_run(tmp_path / "run")
    assert run.steps["rolled_back"].to_pylist() == [False] * (2 * STEPS)
    assert run.seen.num_rows == 2 * STEPS
    other = tfstream.LineageCallback(tmp_path / "run", train)
    model().fit(train.dataset(), epochs=1, callbacks=[other], shuffle=False, verbose=0)
    again = tfstream.open_run(tmp_path / "run")
    assert again.steps["rolled_back"].to_pylist() == [True] * (2 * STEPS) + [False] * STEPS


def test_two_fits_at_once_are_refused(shards: tfstream.Shards, tmp_path: Path) -> None:
    """A stream stands at one place; the second fit is told so, and the first goes on."""
    train, _ = streams(shards)
    told: list[BaseException] = []
    holds, goes = threading.Event(), threading.Event()

    class Pause(keras.callbacks.Callback):
        """Holds the first fit."""

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            """Until the other has tried."""
            holds.set()
            goes.wait(60)

    def first() -> None:
        callbacks = [tfstream.LineageCallback(tmp_path / "a", train), Pause()]
        try:
            model().fit(train.dataset(), callbacks=callbacks, shuffle=False, verbose=0)
        except BaseException as error:  # noqa: BLE001 - told to the test
            told.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    assert holds.wait(60)
    second = tfstream.LineageCallback(tmp_path / "b", train)
    with pytest.raises(UsageError, match="another fit of this stream runs in the thread"):
        model().fit(train.dataset(), callbacks=[second], shuffle=False, verbose=0)
    goes.set()
    thread.join()
    assert told == []
    assert tfstream.open_run(tmp_path / "a").verify() == []
