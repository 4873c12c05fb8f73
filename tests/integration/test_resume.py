"""A training goes on where it stood, and a stream starts anywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfstream
from tests.streams import converted, table
from tfstream.errors import CorruptionError, ResumeError, UsageError
from tfstream.format.places import Places
from tfstream.pipeline.checkpoint import NAME
from tfstream.pipeline.training_state import TrainingState, Variable
from tfstream.skips import Skips

BATCH, STEPS = 20, 35
OPTIONS = {"window_rows": 5 * BATCH, "stretches": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """700 rows, in a folder that a test may damage."""
    folder = tmp_path / "data"
    folder.mkdir()
    converted(folder, table())
    return folder


def stream_of(folder: Path, seed: int = 3, **options: Any) -> tfstream.Stream:
    """35 steps an epoch, in windows of 5."""
    return tfstream.open(folder / "shards").stream(
        batch_size=BATCH,
        features=["d"],
        label="y",
        seed=seed,
        options=tfstream.StreamOptions(**OPTIONS, **options),
    )


def batches(dataset: Any) -> list[list[float]]:
    """The labels of each batch; no two rows have the same."""
    return [label.numpy().tolist() for _, label in dataset]


def damage_all_but(stream: tfstream.Stream, windows: list[tuple[int, int]]) -> int:
    """Flip a byte in every block that none of these windows (epoch, window) reads."""
    places, catalog = Places(stream.subset, stream.spec), stream.subset.catalog
    kept = {int(block) for window in windows for block in places.reads(*window)}
    damaged = [b for b in range(len(catalog.block_shard)) if b not in kept]
    for block in damaged:
        path = catalog.shard_path(int(catalog.block_shard[block]))
        data = bytearray(path.read_bytes())
        data[int(catalog.block_offset[block]) + 30] ^= 1
        path.write_bytes(data)
    return len(damaged)


@pytest.mark.parametrize(("epoch", "step"), [(1, 12), (0, 34), (2, 0)])
def test_a_start_reads_nothing_of_the_windows_before(folder: Path, epoch: int, step: int) -> None:
    """All that later windows do not read is damaged after the dataset was made."""
    stream = stream_of(folder)
    expected = batches(stream.dataset(epochs=range(epoch, epoch + 1)))[step:]
    windows = [(epoch, window) for window in range(step // 5, 7)]
    start = stream.cursor(epoch * STEPS + step)
    assert start == tfstream.Cursor.from_json(start.to_json())
    stateful = stream.dataset(start=start)
    stateless = stream.dataset(epochs=range(epoch + 1), start=start)
    damaged = damage_all_but(stream, windows)
    assert bool(damaged) == (step >= 5)
    assert batches(stateful) == expected
    assert batches(stateless) == expected
    assert (len(stateful), len(stateless)) == (STEPS, len(expected))


def test_the_epochs_after_a_start_are_whole(folder: Path) -> None:
    """With and without state."""
    stream = stream_of(folder)
    start = tfstream.Cursor(epoch=1, step=30)
    dataset = stream.dataset(start=start)
    both = [batches(dataset), batches(dataset)]
    expected = batches(stream.dataset(epochs=range(1, 3)))[30:]
    assert both == [expected[:5], expected[5:]]
    assert batches(stream.dataset(epochs=range(3), start=start)) == expected
    with pytest.raises(UsageError, match=r"start is in epoch 1, which is not in range\(2, 3\)"):
        stream.dataset(epochs=range(2, 3), start=start)


def test_a_cursor_of_another_stream_is_refused(folder: Path) -> None:
    """With each field that differs."""
    cursor = stream_of(folder).cursor(3)
    with pytest.raises(ResumeError, match="another stream: seed is 3 there and 4 here; make"):
        stream_of(folder, seed=4).dataset(start=cursor)


@pytest.mark.parametrize("skips", [(0, 34), (range(3, 11), 36, range(60, 90)), (range(5, 15),)])
def test_steps_are_left_out_and_the_others_stay(folder: Path, skips: tuple[Any, ...]) -> None:
    """The rest has its rows, and a window that is left out as a whole is not read."""
    whole, stream = stream_of(folder), stream_of(folder, skip_steps=skips)
    assert stream.digest == whole.digest
    out = {step for item in skips for step in (item if isinstance(item, range) else [item])}
    expected = batches(whole.dataset(epochs=range(3)))
    kept = [step for step in range(3 * STEPS) if step not in out]
    dataset = stream.dataset(epochs=range(3))
    assert len(dataset) == len(kept)
    assert batches(dataset) == [expected[step] for step in kept]
    stateful = stream.dataset()
    assert sum((batches(stateful) for _ in range(3)), []) == [expected[step] for step in kept]


def test_a_window_that_is_left_out_as_a_whole_is_not_read(folder: Path) -> None:
    """Its blocks are damaged, but for those on its borders, which others read too."""
    stream = stream_of(folder, skip_steps=[range(4, 16)])
    dataset, whole = stream.dataset(epochs=range(1)), stream_of(folder).dataset(epochs=range(1))
    expected = batches(whole)
    assert damage_all_but(stream, [(0, window) for window in (0, 3, 4, 5, 6)])
    assert batches(dataset) == expected[:4] + expected[16:]
    with pytest.raises(tf.errors.OpError, match="cannot be read"):
        batches(whole)


class Fail(keras.callbacks.Callback):
    """Fails at the begin of the n-th batch."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self._left = left

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Count, and fail."""
        self._left -= 1
        if self._left < 0:
            raise RuntimeError("as asked")


def model_of(width: int = 2) -> keras.Model:
    """A small one."""
    keras.utils.set_random_seed(1)
    inputs = {"d": keras.Input((1,), name="d")}
    hidden = keras.layers.Dense(width, activation="tanh")(inputs["d"])
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    model.compile("adam", "mse", metrics=["mae"], jit_compile=False)
    return model


def trained(
    folder: Path, place: Path, *callbacks: Any, epochs: int = 2, model: Any = None, **options: Any
) -> tuple[Any, tfstream.Stream, Any]:
    """A model after a fit with both callbacks."""
    stream, model = stream_of(folder, **options), model or model_of()
    ours = [
        tfstream.LineageCallback(place / "run", stream),
        tfstream.CheckpointCallback(place / "state", stream, every_steps=10),
    ]
    history = model.fit(
        stream.dataset(), epochs=epochs, verbose=0, shuffle=False, callbacks=[*ours, *callbacks]
    )
    return model, stream, history


def test_a_training_goes_on_without_a_warning_and_is_told_so(folder: Path, tmp_path: Path) -> None:
    """Metrics of the interrupted epoch too; more epochs go on at the end; the log has it all."""
    whole, _, expected = trained(folder, tmp_path / "whole", epochs=3)
    with pytest.raises(RuntimeError, match="as asked"):
        trained(folder, tmp_path, Fail(27))
    callback = tfstream.CheckpointCallback(tmp_path / "state", stream_of(folder))
    assert (callback.cursor.epoch, callback.cursor.step) == (0, 20)
    _, _, first = trained(folder, tmp_path)
    assert (callback.cursor.epoch, callback.cursor.step) == (2, 0)
    model, stream, again = trained(folder, tmp_path, epochs=3)
    for name, values in expected.history.items():
        assert first.history[name] + again.history[name] == values
    for a, b in zip(model.get_weights(), whole.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()
    _, _, nothing = trained(folder, tmp_path, epochs=3)
    assert nothing.history == {}
    run = tfstream.open_run(tmp_path / "run")
    assert run.verify(deep=True) == []
    assert [log.attempt.first_step for log in run.logs.values()] == [0, 20, 2 * STEPS]
    assert len(set(run.steps["step"].to_pylist())) == 3 * STEPS
    assert stream.control.pop() is None


def test_what_does_not_belong_together_is_refused(folder: Path, tmp_path: Path) -> None:
    """Another stream, another model, a model without variables, other weights, a flipped bit."""
    trained(folder, tmp_path, epochs=1)
    with pytest.raises(ResumeError, match=f"seed is 3 there and 4 here.*Where: .*{NAME}"):
        _restored(folder, tmp_path, seed=4)
    with pytest.raises(ResumeError, match=r"another model: .*kernel float32\[1, 2\] there and .*"):
        _restored(folder, tmp_path, model=model_of(width=3))
    unbuilt = keras.Sequential([keras.layers.Dense(1)])
    unbuilt.compile("adam", "mse")
    with pytest.raises(UsageError, match="call the model on a batch before fit"):
        _restored(folder, tmp_path, model=unbuilt)
    path = tmp_path / "state" / NAME
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(CorruptionError, match="is not what was written"):
        _restored(folder, tmp_path)


def _restored(folder: Path, place: Path, *, model: Any = None, seed: int = 3) -> None:
    stream, model = stream_of(folder, seed), model or model_of()
    callback = tfstream.CheckpointCallback(place / "state", stream)
    model.fit(stream.dataset(), verbose=0, shuffle=False, callbacks=[callback])


def test_keras_own_checkpoint_of_a_model_tells_its_step(folder: Path, tmp_path: Path) -> None:
    """A model that `ModelCheckpoint` stored goes on at the cursor of its optimizer's step."""
    whole, _, _ = trained(folder, tmp_path / "whole")
    path = tmp_path / "model.keras"
    store = keras.callbacks.ModelCheckpoint(path, save_freq=16)
    with pytest.raises(RuntimeError, match="as asked"):
        trained(folder, tmp_path / "other", store, Fail(41))
    model, stream = keras.models.load_model(path), stream_of(folder)
    start = stream.cursor(int(model.optimizer.iterations))
    assert (start.epoch, start.step) == (0, 32)
    model.fit(
        stream.dataset(start=start),
        epochs=2,
        initial_epoch=start.epoch,
        verbose=0,
        shuffle=False,
        callbacks=[tfstream.LineageCallback(tmp_path / "run", stream)],
    )
    for a, b in zip(model.get_weights(), whole.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()
    assert tfstream.open_run(tmp_path / "run").steps["step"].to_pylist() == [*range(32, 2 * STEPS)]


def test_skipped_steps_are_in_the_log_and_lack_nothing(folder: Path, tmp_path: Path) -> None:
    """No line, no finding, no warning; a log that does not name them has a finding."""
    trained(folder, tmp_path, skip_steps=(2, range(30, 40)))
    run = tfstream.open_run(tmp_path / "run")
    assert run.steps["step"].to_pylist() == [0, 1, *range(3, 30), *range(40, 2 * STEPS)]
    assert run.verify(deep=True) == []
    assert run.logs[0].attempt.skips.ranges == ((2, 3), (30, 40))
    object.__setattr__(run.logs[0].attempt, "skips", Skips())
    assert [finding.what for finding in run.verify()] == [
        "the steps 2 to 2 are missing",
        "the steps 30 to 39 are missing",
    ]


def test_a_state_survives_its_file_and_no_bit_of_it_may_change(tmp_path: Path) -> None:
    """Every dtype; and each flipped bit is seen."""
    types = ["float32", "bfloat16", "float16", "int64", "uint32", "bool", "float64", "int8"]
    values = [np.arange(6).reshape(2, 3).astype(name) for name in types]
    values.append(np.float32(3.5).reshape(()))
    variables = [Variable(path=f"v{i}", value=value) for i, value in enumerate(values)]
    state = TrainingState(
        cursor=tfstream.Cursor(epoch=1, step=2), parts={"a": variables, "b": [], "c": variables[:1]}
    )
    path = tmp_path / "state"
    state.write(path)
    found = TrainingState.read(path)
    assert found.cursor == state.cursor
    assert list(found.parts) == ["a", "b", "c"]
    for a, b in zip(found.parts["a"], variables, strict=True):
        assert (a.path, a.value.dtype, a.value.tolist()) == (
            b.path,
            b.value.dtype,
            b.value.tolist(),
        )
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        with pytest.raises(CorruptionError, match="is not what was written"):
            TrainingState.read(path)


@pytest.mark.slow
def test_killed_trainings_come_to_the_same_weights() -> None:
    """Real kills, in a process of its own; the long way is `python -m tests.faults.resume_loop`."""
    found = subprocess.run(
        [sys.executable, "-m", "tests.faults.resume_loop", "--short"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert found.returncode == 0, found.stdout + found.stderr[-2000:]
