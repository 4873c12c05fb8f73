"""Runs behind URLs answer as those in a folder, whatever the store did while they were written."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path
from typing import Any

import keras
import pytest

import tfstream
from tests import streams
from tfstream import remote, storage
from tfstream.cli import main
from tfstream.errors import ResumeError, StorageError
from tfstream.lineage import spool
from tfstream.pipeline.stream import Stream

BATCH = 50
STEPS = streams.ROWS // BATCH


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tfstream.Shards:
    """A small data set."""
    return streams.converted(tmp_path_factory.mktemp("runs"), streams.table())


@pytest.fixture
def memory() -> str:
    """A URL below which there is nothing, in this process."""
    return f"memory://{uuid.uuid4().hex}/runs/1"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def stream_of(shards: tfstream.Shards, seed: int = 3) -> Stream:
    """Batches of one column."""
    return shards.stream(batch_size=BATCH, features=["d"], label="y", seed=seed)


def fit(shards: tfstream.Shards, place: str | Path, *, seed: int = 3, **options: Any) -> None:
    """Train for two epochs, the log in this place."""
    stream = stream_of(shards, seed)
    inputs = {"d": keras.Input((1,), dtype="float64", name="d")}
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs["d"]))
    model.compile("sgd", "mse")
    callback = tfstream.LineageCallback(place, stream, **options)
    model.fit(stream.dataset(), epochs=2, shuffle=False, callbacks=[callback], verbose=0)


def upload(folder: Path, url: str) -> None:
    """Put all files of a folder."""
    for name in storage.below(folder):
        remote.put_file(remote.join(url, name), folder / name)


@pytest.fixture(scope="module")
def local(shards: tfstream.Shards, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two attempts on this machine."""
    folder = tmp_path_factory.mktemp("local") / "run"
    for _ in range(2):
        fit(shards, folder)
    return folder


def test_a_run_by_url_answers_as_a_local_one(
    shards: tfstream.Shards, local: Path, bucket: str, temporary: Path
) -> None:
    """Two attempts of it; nothing stays here."""
    url = f"{bucket}/runs/1"
    for _ in range(2):
        fit(shards, url)
    assert list(temporary.iterdir()) == []
    here, there = tfstream.open_run(local), tfstream.open_run(url)
    assert there.verify(deep=True) == []
    assert there.steps.drop_columns("time_s").equals(here.steps.drop_columns("time_s"))
    assert there.rows(step=2 * STEPS - 1).equals(here.rows(step=2 * STEPS - 1))
    assert sorted(remote.below(url)) == sorted(path.name for path in local.iterdir())
    with pytest.raises(ResumeError, match=f"^{url} holds a run on other streams"):
        fit(shards, url, seed=4)


def test_the_command_line_asks_a_run_by_url(
    local: Path, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`trace` and `verify`."""
    upload(local, f"{bucket}/run")
    assert main(["trace", f"{bucket}/run", "--step", "3", "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + BATCH
    assert main(["verify", f"{bucket}/run"]) == 0


def test_a_run_moves_to_a_store_with_its_data(
    shards: tfstream.Shards, local: Path, bucket: str
) -> None:
    """Then it finds its data set beside it."""
    folder = Path(str(shards.subset.catalog.folder))
    way = tfstream.open_run(local).description.training.relative_folder
    home = f"{bucket}/a/b/c/d/e/f/g/run"
    upload(local, home)
    place = tfstream.open_run(home).folder / way
    upload(folder, str(place))
    hidden = folder.rename(folder.with_name("hidden"))
    try:
        assert str(tfstream.open_run(home).catalog.folder) == str(place)
        assert tfstream.open_run(home).verify() == []
    finally:
        hidden.rename(folder)


def test_a_store_that_fails_stops_no_training(
    shards: tfstream.Shards,
    memory: str,
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What it did not take is put later; at the end it is an error that says where the run lies."""
    inner, left = remote.put, [0]

    def failing(place: str, data: bytes, *, if_absent: bool = False) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise StorageError(f"cannot write {place}: 503")
        inner(place, data, if_absent=if_absent)

    monkeypatch.setattr(remote, "put", failing)
    with pytest.raises(StorageError, match="503; the run lies in") as caught:
        fit(shards, memory, flush_steps=1)
    assert "is not where it belongs yet" in caplog.text
    (folder,) = temporary.iterdir()
    assert str(folder) in str(caught.value)
    assert tfstream.open_run(folder).steps.num_rows == 2 * STEPS
    for name in [path.name for path in folder.iterdir()]:
        inner(remote.join(memory, name), (folder / name).read_bytes())
    assert tfstream.open_run(memory).verify() == []


def test_what_was_put_is_a_run(
    shards: tfstream.Shards, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed leaves all steps but those since the last time."""
    monkeypatch.setattr(spool, "_PUT_S", 0.0)
    stream = stream_of(shards)
    callback = tfstream.LineageCallback(memory, stream, flush_steps=1)
    callback.begin()
    for steps, _ in enumerate(stream.dataset().take(4), start=1):
        callback.step()
        assert tfstream.open_run(memory).steps.num_rows == steps
    assert tfstream.open_run(memory).verify() == []
    other = tfstream.LineageCallback(memory, stream_of(shards))
    other.begin()
    callback.close()
    other.close()
    assert sorted(tfstream.open_run(memory).logs) == [0, 1]


def test_two_attempts_at_once_are_refused(shards: tfstream.Shards, memory: str) -> None:
    """The later one of those that saw the same logs."""
    first, second = (tfstream.LineageCallback(memory, stream_of(shards)) for _ in range(2))
    first._spool.open(first._describe())
    second._spool.open(second._describe())
    first._begin(0, goes_on=False)
    with pytest.raises(ResumeError, match="has begun at the same time"):
        second._begin(0, goes_on=False)


def test_something_else_is_not_written_over(
    shards: tfstream.Shards, memory: str, temporary: Path
) -> None:
    """And nothing stays here."""
    remote.put(remote.join(memory, "mine"), b"")
    with pytest.raises(ResumeError, match=r"holds something else than a run \(mine\)"):
        tfstream.LineageCallback(memory, stream_of(shards)).begin()
    assert list(temporary.iterdir()) == []


def test_a_run_keeps_no_credentials(shards: tfstream.Shards) -> None:
    """Those of its own URL."""
    url = f"memory://me:secret@{uuid.uuid4().hex}/run"
    fit(shards, url)
    files = remote.below(url)
    assert len(files) == 3
    assert not any(b"secret" in remote.read(remote.join(url, name)) for name in files)
    assert "secret" not in str(tfstream.open_run(url).folder)
