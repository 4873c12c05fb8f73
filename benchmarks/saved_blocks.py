"""`Dataset.save` of decoded blocks of rows, loaded shard by shard and permuted in windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from benchmarks import data
from benchmarks.workload import SEED, Task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.contenders import Contender

_SHARDS = 16
_BLOCK_ROWS = 4_096


def prepare(place: Path, task: Task, contender: Contender) -> None:  # noqa: ARG001 - one signature for all
    """Save blocks of (n, 32) float32 and (n,) int8, dealt out to shards in turn."""

    def blocks() -> Iterator[tuple[Any, Any]]:
        for ids, features in data.chunks(contender.rows):
            for start in range(0, len(ids), _BLOCK_ROWS):
                stop = start + _BLOCK_ROWS
                yield features[start:stop], data.labels_of(ids[start:stop])

    signature = (
        tf.TensorSpec((None, len(data.FEATURES)), tf.float32),
        tf.TensorSpec((None,), tf.int8),
    )
    dataset = tf.data.Dataset.from_generator(blocks, output_signature=signature).enumerate()
    dataset.save(str(place / "blocks"), shard_func=lambda number, _: number % _SHARDS)


class SavedBlocks:
    """The saved blocks, their shards shuffled, their rows permuted inside windows."""

    def __init__(self, place: Path, task: Task) -> None:
        """Over windows of as many rows as tfstream's."""
        tf.random.set_seed(SEED)
        self._dataset = (
            tf.data.Dataset.load(str(place / "blocks"), reader_func=_interleaved)
            .map(lambda _, block: block)
            .ragged_batch(max(task.workload.window // _BLOCK_ROWS, 1))
            .map(_permuted, num_parallel_calls=tf.data.AUTOTUNE)
            .rebatch(task.workload.batch)
            .prefetch(tf.data.AUTOTUNE)
        )

    def epoch(self) -> Iterator[tuple[Any, Any]]:
        """One pass, newly shuffled: eager tensors."""
        return iter(self._dataset)

    def fit_arguments(self) -> dict[str, Any]:
        """The dataset."""
        return {"x": self._dataset}


def _interleaved(shards: tf.data.Dataset) -> tf.data.Dataset:
    return shards.shuffle(_SHARDS, reshuffle_each_iteration=True).interleave(
        lambda shard: shard, cycle_length=_SHARDS, num_parallel_calls=tf.data.AUTOTUNE
    )


def _permuted(features: tf.RaggedTensor, labels: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
    order = tf.random.shuffle(tf.range(tf.size(labels.flat_values)))
    matrix = tf.gather(features.values, order)
    return matrix, tf.gather(labels.flat_values, order)


def open_source(place: Path, task: Task, contender: Contender) -> SavedBlocks:  # noqa: ARG001 - one signature for all
    """Open the blocks."""
    return SavedBlocks(place, task)
