"""Training workers as processes of their own: `python -m tests.workers MODE FOLDER OUT ...`.

Each writes what it was given, as JSON: for each element the ids, labels and weights.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

import tfstream

BATCH = 24


def stream_of(folder: str, remainder: str = "keep", **changes: Any) -> tfstream.Stream:
    """Batches of 24 rows in several windows."""
    options = tfstream.StreamOptions(window_rows=5 * BATCH, remainder=remainder, **changes)
    return tfstream.open(folder).stream(
        batch_size=BATCH, features=["id", "g"], label="y > 0.25", seed=9, options=options
    )


def element(features: Any, *rest: Any) -> list[list[Any]]:
    """Ids, labels and weights of a batch."""
    return [tensor.numpy().tolist() for tensor in (features["id"], *rest)]


def plain(folder: str, index: str, count: str, start: str, stop: str) -> list[Any]:
    """One of several workers that know nothing of each other, from one step to another."""
    stream = stream_of(folder).shard(int(index), int(count))
    dataset = stream.dataset(epochs=range(2)).skip(int(start)).take(int(stop) - int(start))
    return [element(*batch) for batch in dataset]


def replicated(strategy: tf.distribute.Strategy, stream: tfstream.Stream) -> Iterator[list[Any]]:
    """What the replicas of this worker are given at each step of two epochs, by a custom loop."""
    dataset = strategy.distribute_datasets_from_function(
        lambda context: stream.dataset_for(context, epochs=range(2))
    )
    total = tf.constant(0.0)
    for batch in dataset:
        sums = strategy.run(lambda *parts: tf.reduce_sum(parts[-1]), args=batch)
        total += strategy.reduce("SUM", sums, axis=None)
        local = [strategy.experimental_local_results(part) for part in (batch[0]["id"], *batch[1:])]
        yield [[part.numpy().tolist() for part in parts] for parts in zip(*local, strict=True)]
    yield [float(total)]


def mirrored(folder: str) -> list[Any]:
    """Two virtual CPUs in one process."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    return list(replicated(strategy, stream_of(folder)))


def multi(folder: str, ports: str, index: str) -> list[Any]:
    """One of two processes under MultiWorkerMirroredStrategy."""
    os.environ["TF_CONFIG"] = _config(ports, index)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    return list(replicated(strategy, stream_of(folder)))


def packed() -> tfstream.StreamOptions:
    """One tensor of features."""
    return tfstream.StreamOptions(window_rows=5 * BATCH, packed=True, remainder="drop")


def fit(folder: str, run: str) -> list[Any]:
    """Two epochs of `fit` with a log, on the backend that KERAS_BACKEND names."""
    import keras

    stream = tfstream.open(folder).stream(
        batch_size=BATCH, features=["d"], label="y > 0.25", options=packed()
    )
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    log = tfstream.LineageCallback(run, stream)
    history = model.fit(stream.dataset(), epochs=2, callbacks=[log], verbose=0)
    model.fit(stream.dataset(epochs=range(1)), epochs=1, verbose=0)
    return [keras.backend.backend(), len(history.history["loss"]), stream.steps_per_epoch]


def fit_share(folder: str, run: str, index: str) -> list[Any]:
    """Two epochs of `fit` on one of two shares, with a log and a validation of the same share."""
    import keras

    options = tfstream.StreamOptions(window_rows=5 * BATCH, packed=True)
    stream, validation = (
        tfstream.open(folder)
        .stream(batch_size=BATCH, features=["d"], label="y > 0.25", options=options)
        .shard(int(index), 2)
        for _ in range(2)
    )
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    log = tfstream.LineageCallback(run, stream, validation=validation)
    history = model.fit(
        stream.dataset(),
        epochs=2,
        validation_data=validation.dataset(),
        callbacks=[log],
        verbose=0,
    )
    losses: list[float] = history.history["loss"]
    return losses


def multi_fit(folder: str, ports: str, index: str) -> list[Any]:
    """What Keras' own `fit` says to the distributed dataset of one of two processes."""
    import keras

    os.environ["TF_CONFIG"] = _config(ports, index)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    stream = tfstream.open(folder).stream(
        batch_size=BATCH, features=["d"], label="y > 0.25", options=packed()
    )
    with strategy.scope():
        model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    dataset = strategy.distribute_datasets_from_function(stream.dataset_for)
    try:
        history = model.fit(dataset, epochs=1, steps_per_epoch=2, verbose=0)
    except ValueError as error:
        return ["refused", str(error)]
    return ["fitted", *history.history["loss"]]


def _config(ports: str, index: str) -> str:
    cluster = {"worker": [f"localhost:{port}" for port in ports.split(",")]}
    return json.dumps({"cluster": cluster, "task": {"type": "worker", "index": int(index)}})


def service(folder: str, out: str) -> list[Any]:
    """A tf.data service: dispatcher and worker, until standard input ends."""
    del folder
    dispatcher = tf.data.experimental.service.DispatchServer()
    address = dispatcher.target.split("://")[1]
    config = tf.data.experimental.service.WorkerConfig(dispatcher_address=address)
    worker = tf.data.experimental.service.WorkerServer(config)
    Path(out).write_text(json.dumps(dispatcher.target), encoding="utf-8")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    del worker
    return []


MODES = {f.__name__: f for f in (plain, mirrored, multi, multi_fit, fit, fit_share)}

if __name__ == "__main__":
    mode, data, out, *arguments = sys.argv[1:]
    if mode == "service":
        service(data, out)
    else:
        Path(out).write_text(json.dumps(MODES[mode](data, *arguments)), encoding="utf-8")
