"""The records of blocks, read at their byte offsets and checked against the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tfstream.format import block

if TYPE_CHECKING:
    from tfstream.pipeline.graph import Plan

Tensor = Any

_as_is = tf.autograph.experimental.do_not_convert


def read(plan: Plan, blocks: Tensor, handed: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The records of some blocks, checked, and the first row ids that their headers tell.

    Args:
        plan: where they lie.
        blocks: (reads,) int64, places in the subset.
        handed: pass and window for which a gate, if there is one, handed them out.
    """
    shards, offsets = tf.gather(plan.shard, blocks), tf.gather(plan.offset, blocks)
    paths, count = tf.gather(plan.paths, shards), tf.size(blocks, tf.int64)
    if plan.gate is not None:
        number, window, name = map(tf.strings.as_string, (*handed, plan.ordinal(blocks)))
        folder = tf.strings.join([plan.gate.folder, "/", number, "-", window, "/"])
        paths, offsets = tf.strings.join([folder, name]), tf.zeros_like(offsets)

    records = _records(paths, offsets)
    is_whole = tf.size(records, tf.int64) == count
    # TensorFlow's own error names no file: once there is one, it is looked for block by block.
    absent = tf.cond(is_whole, lambda: count, lambda: _first_unreadable(paths, offsets))
    here = _at(plan, blocks, tf.minimum(absent, count - 1))
    complete = tf.debugging.Assert(
        is_whole,
        [
            tf.strings.join(
                [here, " cannot be read: it is missing, cut off or has a wrong CRC", _ADVICE]
            )
        ],
    )
    with tf.control_dependencies([complete]):
        records = tf.identity(records)
    start = block.layout(plan.subset.catalog.schema).header
    first, rows, token = (
        tf.io.decode_raw(tf.strings.substr(records, start + skip, size), dtype)[:, 0]
        for skip, size, dtype in ((0, 8, tf.int64), (8, 4, tf.int32), (12, 8, tf.int64))
    )
    right = (
        (first == tf.gather(plan.first, blocks))
        & (tf.cast(rows, tf.int64) == plan.rows(blocks))
        & (token == tf.gather(plan.tokens, shards))
    )
    here = _at(plan, blocks, tf.argmin(tf.cast(right, tf.int32)))
    expected = tf.debugging.Assert(
        tf.reduce_all(right),
        [tf.strings.join([here, " holds other rows, of another block or conversion", _ADVICE])],
    )
    with tf.control_dependencies([expected]):
        return tf.identity(records), tf.identity(first)


def _records(paths: Tensor, offsets: Tensor) -> Tensor:
    """The records at these places, (places,) string; fewer if one cannot be read."""
    places = tf.data.Dataset.from_tensor_slices((paths[:, tf.newaxis], offsets[:, tf.newaxis]))

    def read(_: Tensor) -> Tensor:
        records = _by_one_thread(places.flat_map(_as_is(_record)))
        return records.batch(tf.size(paths, tf.int64)).get_single_element()

    nothing = tf.data.Dataset.from_tensors(tf.zeros([0], tf.string))
    found = tf.data.Dataset.range(1).map(_as_is(read)).ignore_errors(log_warning=True)
    return found.concatenate(nothing).take(1).get_single_element()


def _first_unreadable(paths: Tensor, offsets: Tensor) -> Tensor:
    """Index of the first place where no record can be read; their number, if all can be now."""
    count = tf.size(paths, tf.int64)
    places = tf.data.Dataset.from_tensor_slices(
        (tf.range(count), paths[:, tf.newaxis], offsets[:, tf.newaxis])
    )

    def index_of(index: Tensor, path: Tensor, offset: Tensor) -> Tensor:
        record = _record(path, offset).get_single_element()
        with tf.control_dependencies([record]):
            return tf.identity(index)

    readable = places.map(_as_is(index_of)).ignore_errors()
    return readable.reduce(
        tf.zeros([], tf.int64), lambda first, index: first + tf.cast(first == index, tf.int64)
    )


def _record(path: Tensor, offset: Tensor) -> tf.data.Dataset:
    """The record of a file, (1,) string, at a byte offset, (1,) int64.

    Only to be called in a function: at the top level TensorFlow forgets the offset when it
    serialises the dataset.
    """
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=path,
        compression_type="",
        buffer_size=tf.constant(0, tf.int64),
        byte_offsets=offset,
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string)).take(1)


def _by_one_thread(records: tf.data.Dataset) -> tf.data.Dataset:
    """The same strings, whose functions run on a thread of their own.

    A function a block is so short that the threads of a pool spend more time in looking for it than
    in running it.
    """
    variant = tf.raw_ops.PrivateThreadPoolDataset(
        input_dataset=tf.data.experimental.to_variant(records),
        num_threads=tf.constant(1, tf.int64),
        output_types=[tf.string],
        output_shapes=[[]],
    )
    return tf.data.experimental.from_variant(variant, records.element_spec)


_ADVICE = "; `tfstream verify` finds all that is damaged: restore the file or convert again"


def _at(plan: Plan, blocks: Tensor, index: Tensor) -> Tensor:
    """The name of a block in a message."""
    found = blocks[index]
    first, rows, text = plan.first[found], plan.rows(found), tf.strings.as_string
    return tf.strings.join(
        [
            plan.paths[plan.shard[found]],
            tf.strings.join([": block ", text(plan.ordinal(found)), " at byte "]),
            tf.strings.join([text(plan.offset[found]), ", rows ", text(first), " to "]),
            text(first + rows - 1),
        ]
    )
