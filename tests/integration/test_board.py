"""TensorBoard reads of a run what the run's own tables say."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow.compute as pc
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

import tfstream
from tests import streams
from tfstream import remote
from tfstream.errors import StorageError
from tfstream.lineage.board import FOLDER
from tfstream.pipeline.stream import Stream

BATCH = 16


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tfstream.Shards:
    """A small data set."""
    return streams.converted(tmp_path_factory.mktemp("board"), streams.table())


@pytest.fixture
def stream(shards: tfstream.Shards) -> Stream:
    """Several windows an epoch, and a short last batch."""
    options = tfstream.StreamOptions(window_rows=8 * BATCH, stretches=4)
    return shards.stream(batch_size=BATCH, features=["d"], label="y", seed=3, options=options)


def fit(stream: Stream, place: Any, *, initial_epoch: int = 0, **options: Any) -> None:
    """Train up to two epochs in all."""
    inputs = {"d": keras.Input((1,), dtype="float64", name="d")}
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs["d"]))
    model.compile("sgd", "mse", metrics=["mae"], jit_compile=False)
    callback = tfstream.LineageCallback(place, stream, tensorboard=True, **options)
    model.fit(
        stream.dataset(),
        initial_epoch=initial_epoch,
        epochs=2,
        shuffle=False,
        callbacks=[callback],
        verbose=0,
    )


def shown(folder: Path) -> dict[str, tuple[list[int], list[float]]]:
    """The steps and values of each name, as TensorBoard reads them."""
    found = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    found.Reload()
    events = {name: found.Tensors(name) for name in found.Tags()["tensors"]}
    assert all(found.SummaryMetadata(name).plugin_data.plugin_name == "scalars" for name in events)
    return {
        name: (
            [event.step for event in some],
            [float(make_ndarray(event.tensor_proto)) for event in some],
        )
        for name, some in events.items()
    }


@pytest.mark.parametrize("flush_steps", [7, 256])
def test_its_scalars_are_those_of_the_run(stream: Stream, tmp_path: Path, flush_steps: int) -> None:
    """Metrics by step, waits by window, epochs and rates by what was written at once."""
    fit(stream, tmp_path / "run", metrics=["loss", "mae"], flush_steps=flush_steps)
    run = tfstream.open_run(tmp_path / "run")
    (folder,) = (tmp_path / "run" / FOLDER).iterdir()
    assert folder.name == "attempt-000"
    found = shown(folder)
    assert set(found) == {"loss", "mae", "epoch", "input/wait_s", "input/rows_per_s"}
    step = run.steps["step"].to_numpy()
    for name in ("loss", "mae"):
        assert found[name] == (step.tolist(), run.steps[name].to_pylist())
    spec, windows = stream.spec, run.windows.to_pylist()
    assert found["input/wait_s"] == (
        [w["epoch"] * spec.steps_per_epoch + spec.first_step(w["window"]) for w in windows],
        pytest.approx([w["wait_s"] for w in windows]),
    )
    # The steps of a flush have the same time.
    times, rows = run.steps["time_s"].to_numpy(), run.steps["rows"].to_numpy()
    starts = np.flatnonzero(np.diff(times, prepend=-1))
    lasts = np.append(starts[1:], len(step)) - 1
    assert len(lasts) >= 2 * -(-spec.steps_per_epoch // flush_steps)
    assert found["epoch"] == (step[lasts].tolist(), (step[lasts] // spec.steps_per_epoch).tolist())
    rates = np.add.reduceat(rows, starts)[1:] / np.diff(times[lasts])
    assert found["input/rows_per_s"] == (step[lasts][1:].tolist(), pytest.approx(rates.tolist()))


def test_each_attempt_has_a_folder_of_its_own(stream: Stream, tmp_path: Path) -> None:
    """So that steps trained twice do not run into one line; without metrics the rest is shown."""
    fit(stream, tmp_path / "run")
    fit(stream, tmp_path / "run", initial_epoch=1)
    steps = tfstream.open_run(tmp_path / "run").steps
    for number in range(2):
        found = shown(tmp_path / "run" / FOLDER / f"attempt-{number:03d}")
        assert set(found) >= {"epoch", "input/wait_s"}
        mine = steps.filter(pc.equal(steps["attempt"], number))["step"].to_pylist()
        assert found["epoch"][0][-1] == mine[-1]
        assert found["input/wait_s"][0][0] == mine[0]


def test_nothing_is_written_unless_it_is_asked_for(stream: Stream, tmp_path: Path) -> None:
    """A run is its log."""
    callback = tfstream.LineageCallback(tmp_path / "run", stream, flush_steps=5)
    callback.begin()
    for _ in stream.dataset().take(12):
        callback.step()
    callback.close()
    assert not (tmp_path / "run" / FOLDER).exists()


def test_a_run_behind_a_url_has_it_there(stream: Stream, tmp_path: Path) -> None:
    """It is put with the log, and is what it would be in a folder."""
    url = f"memory://{uuid.uuid4().hex}/run"
    fit(stream, url, metrics=["loss"])
    (name,) = (name for name in remote.below(url) if name.startswith(f"{FOLDER}/attempt-000/"))
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / name.split("/")[-1]).write_bytes(remote.read(f"{url}/{name}"))
    run = tfstream.open_run(url)
    assert shown(tmp_path / "copy")["loss"][1] == run.steps["loss"].to_pylist()
    assert run.verify() == []


def test_a_place_that_takes_nothing_is_named(stream: Stream, tmp_path: Path) -> None:
    """A file is in the way; what was logged before is there."""
    (tmp_path / "run").mkdir()
    callback = tfstream.LineageCallback(tmp_path / "run", stream, tensorboard=True)
    callback.begin()
    (tmp_path / "run" / FOLDER).write_text("")
    for _ in stream.dataset().take(3):
        callback.step()
    with pytest.raises(StorageError, match=f"cannot write below .*{FOLDER}"):
        callback.close()
    assert tfstream.open_run(tmp_path / "run").steps.num_rows == 3
