"""Where training stands, and what the queue says of it."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import tfstream
from tests.streams import converted, table
from tfstream.fingerprint import fingerprints
from tfstream.order import NUMPY

BATCH = 20
STEPS = 35


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tfstream.Shards:
    """700 rows."""
    return converted(tmp_path_factory.mktemp("control"), table())


@pytest.fixture
def stream(shards: tfstream.Shards) -> tfstream.Stream:
    """35 steps an epoch, in windows of 4 or 5."""
    return shards.stream(
        batch_size=BATCH,
        features=["id"],
        label="y > 0",
        options=tfstream.StreamOptions(window_rows=5 * BATCH),
    )


def begin(stream: tfstream.Stream, step: int) -> None:
    """As a callback that listens does."""
    stream.control.manage()
    stream.control.listen()
    stream.control.move(step)


def end(stream: tfstream.Stream) -> None:
    """As it does at the end."""
    stream.control.mute()
    stream.control.end()


def ids(dataset: tf.data.Dataset) -> list[list[int]]:
    """The ids of each batch."""
    return [features["id"].numpy().tolist() for features, _ in dataset]


def test_without_a_callback_each_iterator_takes_the_next_epoch(stream: tfstream.Stream) -> None:
    """And nothing is put into the queue."""
    dataset = stream.dataset()
    for epoch in range(3):
        assert ids(dataset) == ids(stream.dataset(epochs=range(epoch, epoch + 1)))
    assert stream.control.pop() is None


@pytest.mark.parametrize("step", [0, 1, 4, 5, 17, 34, 35, 40, 3 * STEPS - 1])
def test_an_iterator_yields_the_rest_of_the_epoch_from_any_step(
    stream: tfstream.Stream, step: int
) -> None:
    """Stop anywhere, go on there; the length told stays that of a whole epoch."""
    dataset, epoch = stream.dataset(), step // STEPS
    begin(stream, step)
    assert ids(dataset) == ids(stream.dataset(epochs=range(epoch, epoch + 1)))[step % STEPS :]
    assert len(dataset) == STEPS
    end(stream)


def test_entries_tell_the_rows_and_labels_of_each_step(stream: tfstream.Stream) -> None:
    """From the middle of a window on; every step once, before its batch is there."""
    begin(stream, STEPS + 7)
    batches = [(f["id"].numpy(), label.numpy()) for f, label in stream.dataset()]
    entries = []
    while (entry := stream.control.pop()) is not None:
        entries.append(entry)
    end(stream)
    steps = [step for entry in entries for step in entry.steps.tolist()]
    assert steps == list(range(STEPS + 7, 2 * STEPS))
    rows = np.concatenate([e.row_fingerprints for e in entries])
    labels = np.concatenate([e.label_fingerprints for e in entries])
    for i, (_, label) in enumerate(batches):
        wanted = stream.row_ids(1, 7 + i).astype(np.uint64)[np.newaxis]
        assert rows[i] == fingerprints(NUMPY, wanted)[0]
        bits = label.view(np.uint32).astype(np.uint64)[np.newaxis]
        assert labels[i] == fingerprints(NUMPY, bits)[0]
    assert {e.epoch for e in entries} == {1}
    for entry in entries:
        catalog = stream.subset.catalog
        read = np.concatenate([stream.subset.row_ids_in(int(b)) for b in entry.blocks])
        window = [stream.row_ids(1, s - STEPS) for s in steps if s // STEPS == entry.epoch]
        assert len(catalog.block_rows) > entry.blocks.max()
        first = int(entry.steps[0]) - STEPS
        assert np.isin(stream.row_ids(1, first), read).all()
        assert window


def test_an_entry_is_there_before_its_first_batch(stream: tfstream.Stream) -> None:
    """Whatever the prefetch does."""
    begin(stream, 0)
    iterator, told = iter(stream.dataset()), 0
    for step in range(STEPS):
        next(iterator)
        while (entry := stream.control.pop()) is not None:
            told = int(entry.steps[-1]) + 1
        assert told > step
    end(stream)


def test_each_iterator_has_its_own_generation(stream: tfstream.Stream) -> None:
    """A later one has a larger number, and starts where the callback moved it."""
    dataset = stream.dataset()
    begin(stream, 0)
    next(iter(dataset))
    stream.control.move(3)
    next(iter(dataset))
    entries = []
    while (entry := stream.control.pop()) is not None:
        entries.append(entry)
    end(stream)
    generations = sorted({e.generation for e in entries})
    assert len(generations) == 2
    starts = [min(e.steps[0] for e in entries if e.generation == g) for g in generations]
    assert starts == [0, 3]


def test_a_dataset_keeps_its_control(shards: tfstream.Shards) -> None:
    """The stream may be gone."""
    dataset = shards.stream(batch_size=BATCH, features=["id"], label="y > 0").dataset()
    assert len(ids(dataset)) == STEPS


def test_under_a_strategy(stream: tfstream.Stream) -> None:
    """A dataset made inside a strategy's scope is the same."""
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        dataset = stream.dataset()
    assert ids(dataset) == ids(stream.dataset(epochs=range(1)))
