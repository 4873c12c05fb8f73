"""The dataset that Keras gets: it knows the length of a whole epoch."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfstream.pipeline import allocator
from tfstream.pipeline.iterator import StreamIterator


class StreamDataset(tf.data.Dataset):  # type: ignore[misc]
    """A dataset whose `cardinality` is that of a whole epoch, though a resumed one ends early.

    Keras takes its length from the first epoch; `assert_cardinality` would refuse a shorter one.
    """

    def __init__(self, dataset: tf.data.Dataset, length: int, kept: object) -> None:
        """Wrap a dataset.

        Args:
            dataset: the batches.
            length: batches of a whole pass.
            kept: what lives as long as the dataset, since the graph only borrows it.
        """
        self._dataset, self._length, self._kept = dataset, length, kept
        super().__init__(dataset._variant_tensor)  # noqa: SLF001 - what a subclass of Dataset is made of

    def __iter__(self) -> Any:  # noqa: ANN401 - TensorFlow's iterator
        """An iterator over the batches, a faster one where Python asks for them one by one."""
        allocator.trim()
        return StreamIterator(self) if tf.executing_eagerly() else super().__iter__()

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._dataset]

    @property
    def element_spec(self) -> Any:  # noqa: ANN401 - as TensorFlow has it
        """What a batch looks like."""
        return self._dataset.element_spec

    def cardinality(self) -> tf.Tensor:
        """Batches of a whole pass."""
        return tf.constant(self._length, tf.int64)


def unsharded(dataset: StreamDataset) -> tf.data.Dataset:
    """The same batches, which TensorFlow must not shard once more."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)
