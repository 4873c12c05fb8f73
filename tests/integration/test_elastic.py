"""Several workers: the same global batches, whatever their number, in processes of their own."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import tfstream
from tests.streams import converted, table
from tests.workers import BATCH, element, stream_of
from tfstream.errors import UsageError

HOME = Path(__file__).parents[2]
WAIT_S = 300
SHARED = [(2, "global", "keep"), (8, "global", "drop"), (2, "none", "keep"), (4, "none", "drop")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """700 rows in seven groups: 29 full batches and 4 rows."""
    shards = converted(tmp_path_factory.mktemp("elastic"), table())
    return str(shards.subset.catalog.folder)


def start(mode: str, folder: str, out: Path, *arguments: object, **env: str) -> Any:
    """A worker."""
    command = [sys.executable, "-m", "tests.workers", mode, folder, str(out), *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=HOME,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"} | env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(*workers: Any) -> list[str]:
    """What workers said, all of which must have ended well; none is left behind."""
    try:
        said = [worker.communicate(timeout=WAIT_S)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0] * len(workers), "\n".join(said)
    return said


def result(out: Path) -> Any:
    """What a worker wrote."""
    return json.loads(out.read_text(encoding="utf-8"))


def free_ports(count: int) -> str:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("localhost", 0))
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ",".join(ports)


def whole_epochs(folder: str, count: int = 2) -> list[tuple[list[int], list[float]]]:
    """Ids and labels of the batches that one worker alone is given."""
    batches = [element(*batch) for batch in stream_of(folder).dataset(epochs=range(count))]
    return [(ids, labels) for ids, labels in batches]


def joined(parts: list[list[list[Any]]]) -> tuple[list[int], list[float]]:
    """Parts of a batch, (ids, labels, weights) each, side by side without the filling."""
    ids, labels, weights = (sum((part[i] for part in parts), []) for i in range(3))
    assert set(weights) <= {0, 1}
    real = [i for i, weight in enumerate(weights) if weight]
    return [ids[i] for i in real], [labels[i] for i in real]


@pytest.mark.parametrize(("count", "shuffle", "remainder"), SHARED)
def test_parts_of_a_dataset_are_its_batches(
    folder: str, count: int, shuffle: str, remainder: str
) -> None:
    """With equal lengths and shapes for all workers, one digest, and the rows that are told."""
    stream = stream_of(folder, remainder, shuffle=shuffle)
    shards = tfstream.open(folder)
    parts = [stream.shard(i, count) for i in range(count)]
    assert {(part.digest, part.steps_per_epoch) for part in parts} == {
        (stream.digest, stream.steps_per_epoch)
    }
    datasets = [part.dataset(epochs=range(1)) for part in parts]
    made = [[element(*batch) for batch in dataset] for dataset in datasets]
    assert {len(batches) for batches in made} == {len(datasets[0])} == {stream.steps_per_epoch}
    for step, batch in enumerate(stream.dataset(epochs=range(1))):
        mine = [batches[step] for batches in made]
        assert len({len(part[0]) for part in mine}) == 1
        if remainder == "drop":
            assert [sum((p[i] for p in mine), []) for i in range(2)] == element(*batch)
        else:
            assert list(joined(mine)) == element(*batch)
        told = [part.row_ids(0, step) for part in parts]
        assert np.concatenate(told).tolist() == stream.row_ids(0, step).tolist()
        for (ids, *_), rows in zip(mine, told, strict=True):
            assert ids[: len(rows)] == shards.take(rows, ["id"])["id"].to_pylist()


def test_weights_of_a_column_are_kept(folder: str) -> None:
    """Those of the filling are 0."""
    stream = tfstream.open(folder).stream(batch_size=BATCH, features=["id"], label="y", weight="d")
    parts = [list(stream.shard(i, 8).dataset(epochs=range(1)))[-1] for i in range(8)]
    whole = list(stream.dataset(epochs=range(1)))[-1]
    weights = np.concatenate([part[2] for part in parts])
    assert weights.tolist() == whole[2].numpy().tolist() + [0] * 4
    assert {features["id"].shape for features, *_ in parts} == {(1,)}


def test_what_cannot_be_shared_is_refused(folder: str) -> None:
    """The whole text."""
    stream = tfstream.open(folder).stream(batch_size=BATCH)
    for call, message in (
        (
            lambda: stream.shard(0, 2),
            (
                "several workers fill the last batch up with rows of weight 0, which need a label; "
                'name a label or set remainder="drop"'
            ),
        ),
        (
            lambda: stream_of(folder).shard(0, 2).shard(0, 2),
            "this stream is a share already; share the whole stream instead",
        ),
    ):
        with pytest.raises(UsageError) as caught:
            call()
        assert str(caught.value) == message


def test_a_run_stops_on_four_workers_and_goes_on_on_two(folder: str, tmp_path: Path) -> None:
    """Two epochs, changed in the middle of the first: the batches are those of one worker."""
    whole, change = whole_epochs(folder), 13
    steps = []
    for count, first, stop in ((4, 0, change), (2, change, len(whole))):
        outs = [tmp_path / f"{count}-{i}" for i in range(count)]
        # Two at a time: they need nothing of each other.
        for pair in (range(i, i + 2) for i in range(0, count, 2)):
            ended(*(start("plain", folder, outs[i], i, count, first, stop) for i in pair))
        steps += [joined(list(parts)) for parts in zip(*map(result, outs), strict=True)]
    assert steps == whole


def test_two_replicas_of_one_process(folder: str, tmp_path: Path) -> None:
    """MirroredStrategy on two virtual CPUs, in a custom loop."""
    ended(start("mirrored", folder, tmp_path / "out"))
    *steps, (total,) = result(tmp_path / "out")
    whole = whole_epochs(folder)
    assert [joined(step) for step in steps] == whole
    assert total == sum(len(ids) for ids, _ in whole)


def test_two_processes_of_one_strategy(folder: str, tmp_path: Path) -> None:
    """MultiWorkerMirroredStrategy in a custom loop; it ends, and its sums are those of all."""
    ports, outs = free_ports(2), [tmp_path / "0", tmp_path / "1"]
    ended(*(start("multi", folder, out, ports, i) for i, out in enumerate(outs)))
    first, second = map(result, outs)
    whole = whole_epochs(folder)
    steps = zip(first[:-1], second[:-1], strict=True)
    assert [joined(a + b) for a, b in steps] == whole
    assert first[-1] == second[-1] == [sum(len(ids) for ids, _ in whole)]


def test_what_fit_says_to_a_distributed_dataset(folder: str, tmp_path: Path) -> None:
    """A finding about Keras: 3.15 takes no replicas' values; a Keras that does fits alike."""
    ports, outs = free_ports(2), [tmp_path / "0", tmp_path / "1"]
    ended(*(start("multi_fit", folder, out, ports, i) for i, out in enumerate(outs)))
    first, second = map(result, outs)
    if first[0] == "refused":
        assert "PerReplica" in first[1]
        assert second[0] == "refused"
    else:
        assert first == second


def test_fits_of_two_processes_write_one_run(folder: str, tmp_path: Path) -> None:
    """At the same time, each on its share, with a validation: one attempt, proven."""
    run, outs = tmp_path / "run", [tmp_path / "0", tmp_path / "1"]
    ended(*(start("fit_share", folder, out, run, i) for i, out in enumerate(outs)))
    logged = tfstream.open_run(run)
    assert {n: len(found) for n, found in logged.workers.items()} == {0: 2}
    assert logged.steps["step"].to_pylist() == list(range(2 * 30))
    assert logged.tests.num_rows == 2 * 30
    assert logged.verify(deep=True) == []


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_keras_fits_on_another_backend(folder: str, tmp_path: Path, backend: str) -> None:
    """With a log that proves the rows."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    out, run = tmp_path / "out", tmp_path / "run"
    ended(start("fit", folder, out, run, KERAS_BACKEND=backend, JAX_PLATFORMS="cpu"))
    assert result(out) == [backend, 2, 29]
    logged = tfstream.open_run(run)
    assert logged.steps.num_rows == 2 * 29
    assert logged.verify(deep=True) == []


def graph_of(dataset: tf.data.Dataset) -> bytes:
    """A dataset as a serialised graph; TensorFlow takes reading a file for a state."""
    graph: bytes = tf.raw_ops.DatasetToGraphV2(
        input_dataset=dataset._variant_tensor,
        external_state_policy=1,
    ).numpy()
    return graph


def test_a_graph_has_no_python_variable_or_queue(folder: str) -> None:
    """And what is made of its bytes gives the same batches."""
    for stream in (stream_of(folder), stream_of(folder).shard(1, 2)):
        dataset = stream.dataset(epochs=range(3))
        data = graph_of(dataset)
        graph = tf.compat.v1.GraphDef.FromString(data)
        nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
        held = {node.op for node in nodes}
        assert "TFRecordDatasetV2" in held
        assert not {op for op in held if "PyFunc" in op or "Queue" in op or "VarHandle" in op}
        variant = tf.raw_ops.DatasetFromGraph(graph_def=data)
        again = tf.data.experimental.from_variant(variant, dataset.element_spec)
        assert [element(*b) for b in again] == [element(*b) for b in dataset]


def test_python_in_a_graph_is_seen() -> None:
    """The test above can fail."""
    dataset = tf.data.Dataset.range(1).map(lambda x: tf.py_function(lambda y: y, [x], tf.int64))
    assert b"EagerPyFunc" in graph_of(dataset)


def test_a_dataset_is_saved_and_loaded(folder: str, tmp_path: Path) -> None:
    """By TensorFlow's own format."""
    dataset = stream_of(folder).dataset(epochs=range(2))
    dataset.save(str(tmp_path / "saved"))
    loaded = tf.data.Dataset.load(str(tmp_path / "saved"))
    assert [tuple(element(*b)) for b in loaded] == whole_epochs(folder)


def test_a_dataset_runs_in_a_service(folder: str, tmp_path: Path) -> None:
    """In a dispatcher and a worker of another process."""
    out = tmp_path / "target"
    served = start("service", folder, out)
    try:
        assert "ready\n" in iter(served.stdout.readline, "")  # after what TensorFlow warns of
        dataset = stream_of(folder).dataset(epochs=range(2))
        remote = dataset.apply(
            tf.data.experimental.service.distribute(
                tf.data.experimental.service.ShardingPolicy.OFF, result(out)
            )
        )
        assert [tuple(element(*b)) for b in remote] == whole_epochs(folder)
    finally:
        served.kill()
        served.communicate()
