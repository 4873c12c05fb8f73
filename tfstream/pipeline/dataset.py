"""A dataset that tells Keras the length of a whole epoch, even where an iterator starts inside one."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


class EpochDataset(tf.data.Dataset):  # type: ignore[misc] - TensorFlow has no types
    """The batches of one epoch.

    `assert_cardinality` would raise where a resumed epoch ends early, and with an unknown cardinality Keras takes the
    first epoch's length for all.
    """

    def __init__(self, dataset: tf.data.Dataset, length: int, held: Any) -> None:  # noqa: ANN401
        """Wrap a dataset.

        Args:
            dataset: the batches.
            length: batches of a whole epoch.
            held: what must live as long as the dataset does.
        """
        self._dataset, self._length, self._held = dataset, length, held
        super().__init__(dataset._variant_tensor)  # noqa: SLF001 - what a Dataset is made of

    @property
    def element_spec(self) -> Any:  # noqa: ANN401
        """The types of the batches."""
        return self._dataset.element_spec

    def cardinality(self) -> tf.Tensor:
        """Batches of a whole epoch, int64."""
        return tf.constant(self._length, tf.int64)

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._dataset]
