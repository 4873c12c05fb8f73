"""The records of blocks, read at their byte offsets and checked against the plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import tensorflow as tf

from tfstream.format import block

if TYPE_CHECKING:
    from tfstream.pipeline.graph import Plan

Tensor = Any

_REQUESTS = 16
"""Of a window at the same time, where a store is read in place."""

_as_is = tf.autograph.experimental.do_not_convert


def read(
    plan: Plan, blocks: Tensor, folder: Tensor | None = None
) -> tuple[dict[int, Tensor], Tensor]:
    """What `plan` needs of some blocks, checked.

    Args:
        plan: where they lie.
        blocks: (reads,) int64, places in the subset.
        folder: where a gate handed them out, each a file so called; None if they are read in place.

    Returns:
        By record of a block, those of all blocks, (blocks,) string; and the first row ids that
        their headers tell, (blocks,) int64.
    """
    found: dict[int, Tensor] = {}
    for first, count in _runs(plan.records):
        lines = _read(plan, blocks, (first, count), folder)
        # A slice would copy the only record of narrow rows.
        alone = count == 1
        found |= {first + i: lines if alone else lines[i::count] for i in range(count)}
    firsts = [_checked(plan, blocks, index, found[index]) for index in found]
    with tf.control_dependencies(firsts):
        return {index: tf.identity(records) for index, records in found.items()}, firsts[0]


def _runs(records: Sequence[int]) -> list[tuple[int, int]]:
    """The numbers, which ascend, as (first, count) of those that follow each other."""
    runs: list[tuple[int, int]] = []
    for index in records:
        if runs and sum(runs[-1]) == index:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((index, 1))
    return runs


def _read(plan: Plan, blocks: Tensor, run: tuple[int, int], folder: Tensor | None) -> Tensor:
    """Some records that follow each other, of block after block, (blocks · each,) string."""
    first, each = run
    begin, width = block.layout(plan.subset.catalog.schema).records[first]
    if folder is None:
        paths = tf.gather(plan.paths, tf.gather(plan.shard, blocks))
        offsets = tf.gather(plan.offset, blocks) + begin
    else:
        names = tf.strings.as_string(plan.ordinal(blocks))
        paths = tf.strings.join([folder, names], separator="/")
        offsets = tf.fill(tf.shape(blocks), tf.constant(begin, tf.int64))
    if width:
        offsets += width * plan.rows(blocks)
    count = tf.size(blocks, tf.int64)
    places = _Places(paths, offsets, each, plan.request_bytes)
    records = _records(places)
    is_whole = tf.size(records, tf.int64) == count * each
    # TensorFlow's own error names no file: once there is one, it is looked for block by block.
    absent = tf.cond(is_whole, lambda: count, lambda: _first_unreadable(places))
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
        return tf.identity(records)


def _checked(plan: Plan, blocks: Tensor, index: int, records: Tensor) -> Tensor:
    """The first row ids in the headers of one record of each block, once all are as planned."""
    start = block.layout(plan.subset.catalog.schema).header
    first, rows, token = (
        tf.io.decode_raw(tf.strings.substr(records, start + skip, size), dtype)[:, 0]
        for skip, size, dtype in ((0, 8, tf.int64), (8, 4, tf.int32), (12, 8, tf.int64))
    )
    right = (
        (first == tf.gather(plan.first, blocks))
        & (tf.cast(rows, tf.int64) == plan.rows(blocks))
        & (token == tf.gather(plan.tokens, tf.gather(plan.shard, blocks)) + index)
    )
    here = _at(plan, blocks, tf.argmin(tf.cast(right, tf.int32)))
    expected = tf.debugging.Assert(
        tf.reduce_all(right),
        [tf.strings.join([here, " holds other rows, of another block or conversion", _ADVICE])],
    )
    with tf.control_dependencies([expected]):
        return tf.identity(first)


class _Places(NamedTuple):
    """Where records are."""

    paths: Tensor
    """(places,) string."""
    offsets: Tensor
    """(places,) int64."""
    each: int
    """Records that follow each other at a place."""
    request_bytes: int
    """Bytes to ask a store for at once; 0 for a disk, which is read as records need it."""


def _records(places: _Places) -> Tensor:
    """The records of all places, (places · each,); fewer if one is unreadable."""
    found = tf.data.Dataset.from_tensor_slices(
        (places.paths[:, tf.newaxis], places.offsets[:, tf.newaxis])
    )

    def from_place(path: Tensor, offset: Tensor) -> tf.data.Dataset:
        return _from(path, offset, places)

    def read(_: Tensor) -> Tensor:
        if places.request_bytes:
            # Each place has `each` records, so they stay in order.
            records = found.interleave(
                _as_is(from_place),
                cycle_length=_REQUESTS,
                block_length=places.each,
                num_parallel_calls=_REQUESTS,
                deterministic=True,
            )
        else:
            records = _by_one_thread(found.flat_map(_as_is(from_place)))
        return records.batch(tf.size(places.paths, tf.int64) * places.each).get_single_element()

    nothing = tf.data.Dataset.from_tensors(tf.zeros([0], tf.string))
    found = tf.data.Dataset.range(1).map(_as_is(read)).ignore_errors(log_warning=True)
    return found.concatenate(nothing).take(1).get_single_element()


def _first_unreadable(places: _Places) -> Tensor:
    """Index of the first place where not all can be read; their number, if all can be now."""
    count, each = tf.size(places.paths, tf.int64), places.each
    found = tf.data.Dataset.from_tensor_slices(
        (tf.range(count), places.paths[:, tf.newaxis], places.offsets[:, tf.newaxis])
    )

    def index_of(index: Tensor, path: Tensor, offset: Tensor) -> Tensor:
        records = _from(path, offset, places).batch(each, drop_remainder=True).get_single_element()
        with tf.control_dependencies([records]):
            return tf.identity(index)

    readable = found.map(_as_is(index_of)).ignore_errors()
    return readable.reduce(
        tf.zeros([], tf.int64), lambda first, index: first + tf.cast(first == index, tf.int64)
    )


def _from(path: Tensor, offset: Tensor, places: _Places) -> tf.data.Dataset:
    """The records of a file, (1,) string, at a byte offset, (1,) int64.

    Only to be called in a function: at the top level TensorFlow forgets the offset when it
    serialises the dataset.
    """
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=path,
        compression_type="",
        buffer_size=tf.constant(places.request_bytes, tf.int64),
        byte_offsets=offset,
    )
    records = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))
    return records.take(places.each)


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
