"""Streams with weights, of shards and of one group a batch: what a model gets, and its proof."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tfstream
from tfstream.cursor import parse_spec
from tfstream.errors import DataError, UsageError
from tfstream.spec import Spec

GROUPS = [50, 3, 1, 40, 7, 100, 2, 33]
ROWS = sum(GROUPS)
WEIGHTS = {"g = 0": 2.5, "g < 4": 0.5, "g = 6": 0}
KINDS: dict[str, dict[str, Any]] = {
    "shards": {"shuffle": "shards"},
    "weights": {"weights": WEIGHTS},
    "weighted shards": {"shuffle": "shards", "weights": WEIGHTS},
    "groups": {"batches": "group"},
    "groups, no remainder": {"batches": "group", "remainder": "drop"},
    "weighted groups": {"batches": "group", "weights": WEIGHTS},
    "groups in order": {"batches": "group", "shuffle": "none"},
}

pytestmark = pytest.mark.filterwarnings("ignore:Your input ran out of data")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tfstream.Shards:
    """Groups of some blocks and several groups in a block; `id` is the row id."""
    folder = tmp_path_factory.mktemp("shuffles")
    rng = np.random.default_rng(3)
    table = pa.table(
        {
            "id": np.arange(ROWS),
            "g": np.repeat(np.arange(len(GROUPS)), GROUPS),
            "f": pa.array(rng.normal(size=ROWS), mask=rng.random(ROWS) < 0.2),
            "y": rng.normal(size=ROWS),
        }
    )
    pq.write_table(table, folder / "source.parquet")
    return tfstream.convert(
        folder / "source.parquet",
        folder / "shards",
        group_by=["g"],
        options=tfstream.ConvertOptions(block_rows=8),
    )


def stream_of(
    shards: tfstream.Shards, kind: str, *, partly: bool = False, **changes: Any
) -> tfstream.Stream:
    """A stream with several windows an epoch, of blocks that are kept in part too."""
    options = tfstream.StreamOptions(window_rows=24, **KINDS[kind] | changes)
    subset = shards.where("f is not null") if partly else shards
    return subset.stream(batch_size=8, features=["id", "g"], label="y > 0", seed=5, options=options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("partly", [False, True])
def test_the_batches_are_those_of_the_order(
    shards: tfstream.Shards, kind: str, *, partly: bool
) -> None:
    """Two epochs of the dataset, by four threads, have the rows that `row_ids` tells."""
    stream = stream_of(shards, kind, partly=partly, parallelism=4)
    made = [
        features["id"].ravel()
        for features, _ in stream.dataset(epochs=range(2)).as_numpy_iterator()
    ]
    steps = stream.steps_per_epoch
    assert len(made) == 2 * steps
    for step, ids in enumerate(made):
        assert ids.tolist() == stream.row_ids(*divmod(step, steps)).tolist()
    if "groups" in kind:
        group = np.repeat(np.arange(len(GROUPS)), GROUPS)
        assert all(len(set(group[ids])) == 1 for ids in made)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_proven(shards: tfstream.Shards, tmp_path: Path, kind: str) -> None:
    """After a fit the run's description, steps, rows and verification, deep too, are right."""
    stream = stream_of(shards, kind)
    inputs = {name: keras.Input((1,), dtype="int64", name=name) for name in ("id", "g")}
    value = keras.ops.cast(inputs["g"], "float32")
    model = keras.Model(inputs, keras.layers.Dense(1)(value))
    model.compile("sgd", "mse")
    callback = tfstream.LineageCallback(tmp_path / "run", stream)
    model.fit(stream.dataset(), epochs=2, verbose=0, callbacks=[callback])
    run = tfstream.open_run(tmp_path / "run")
    assert run.description.training.spec == stream.spec
    assert run.verify(deep=True) == []
    steps = stream.steps_per_epoch
    assert run.steps["step"].to_pylist() == list(range(2 * steps))
    rows = [stream.row_ids(*divmod(step, steps)) for step in range(2 * steps)]
    assert run.steps["rows"].to_pylist() == [len(ids) for ids in rows]
    assert run.rows(step=steps)["row_id"].to_pylist() == rows[steps].tolist()
    found = run.steps_of(row_ids=np.arange(ROWS))
    pairs = zip(found["row_id"].to_pylist(), found["step"].to_pylist(), strict=True)
    assert list(pairs) == sorted({(i, s) for s, ids in enumerate(rows) for i in ids.tolist()})


def test_another_weight_is_another_stream(shards: tfstream.Shards) -> None:
    """Shuffle, batches and weights are in the digest."""
    streams = [stream_of(shards, kind) for kind in KINDS]
    assert len({stream.digest for stream in streams}) == len(KINDS)


def test_a_window_in_bytes_is_one_in_rows(shards: tfstream.Shards) -> None:
    """As many rows as take these bytes in the shards."""
    catalog = stream_of(shards, "shards").subset.catalog
    row_bytes = int(catalog.block_size.sum()) // ROWS
    options = [
        tfstream.StreamOptions(window_rows=64),
        tfstream.StreamOptions(window_bytes=64 * row_bytes),
    ]
    one, other = (shards.stream(batch_size=8, seed=5, options=o).spec for o in options)
    assert one == other


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window_rows": 8, "window_bytes": 8}, "give window_rows or window_bytes, not both"),
        ({"batches": "group", "stretches": 2}, 'batches="group" has no stretches; leave them out'),
        ({"batches": "group", "shuffle": "shards"}, 'shuffle="shards" would keep no shard'),
        ({"shuffle": "none", "weights": {"g = 0": 2}}, "weights draw rows, so shuffle="),
        ({"weights": {"y > 0": 2}}, "weights: 'y > 0' is about 'y', but weights are those of"),
    ],
)
def test_options_that_contradict_are_refused(
    shards: tfstream.Shards, changes: dict[str, Any], message: str
) -> None:
    """What is wrong, and what to do."""
    with pytest.raises(UsageError) as refused:
        shards.stream(batch_size=8, options=tfstream.StreamOptions(**changes))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("weights", [["g = 0"]], "expected 2 values, found ['g = 0']"),
        ("weights", [["g = 0", "2"]], "expected a number, found '2'"),
        ("tails", [1, "2"], "expected an integer, found '2'"),
        ("tails", 3, "expected a list, found 3"),
        ("batches", "each", "expected 'mixed' or 'group', found 'each'"),
    ],
)
def test_a_wrong_spec_is_refused_with_its_field(field: str, value: Any, message: str) -> None:
    """The path leads to the value."""
    values = {"subset": "s", "rows": 9, "blocks": 2, "batch_size": 4, "remainder": "keep", "shuffle": "global",
              "window_steps": 1, "stretches": 1, "seed": 0}  # fmt: skip
    assert parse_spec(values, "spec") == Spec(**values)
    with pytest.raises(DataError) as refused:
        parse_spec(values | {field: value}, "spec")
    assert message in str(refused.value)
    assert f"spec.{field}" in str(refused.value)
