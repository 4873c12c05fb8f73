"""The tf.data graph: windows in order, each read, checked, decoded and gathered in one parallel map.

No Python runs in it and no state is in it, but for the control's variable and queue, which a dataset of given epochs
lacks. The plan enters as captured tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfstream import order
from tfstream.fingerprint import fingerprints
from tfstream.format import block
from tfstream.format.subset import Subset
from tfstream.pipeline import conditions
from tfstream.pipeline.arrays import TENSORFLOW
from tfstream.pipeline.columns import WindowColumns
from tfstream.pipeline.dataset import EpochDataset
from tfstream.pipeline.elements import features_of, label_of, weight_of

if TYPE_CHECKING:
    from tfstream.pipeline.stream import Stream

Tensor = Any

_PARALLELISM = 2


def build(stream: Stream, epochs: range | None) -> tf.data.Dataset:
    """The dataset of a stream.

    Args:
        stream: the plan.
        epochs: None for one epoch an iterator, steered by the stream's control.
    """
    if stream.label is not None:
        conditions.check(stream.label, stream.subset.catalog)
    plan, steps = _Plan.of(stream.subset), stream.steps_per_epoch
    control = None if epochs is not None else stream.control
    if control is None:
        assert epochs is not None
        starts = tf.data.Dataset.range(epochs.start, epochs.stop).map(
            lambda epoch: (epoch * steps, tf.zeros((), tf.int64), tf.constant(False))
        )
    else:
        starts = tf.data.Dataset.from_tensors(0).map(lambda _: control.start())

    def windows(first: Tensor, generation: Tensor, tap: Tensor) -> tf.data.Dataset:
        epoch, step = first // steps, first % steps
        sequence = order.epoch_of(TENSORFLOW, stream.spec, plan.kept, epoch)
        full = stream.spec.full_steps
        start = tf.where(step < full, step // stream.spec.window_steps, stream.spec.full_windows)
        made = tf.data.Dataset.range(start, stream.spec.windows_per_epoch).map(
            lambda window: _window(stream, plan, sequence, epoch, step, window),
            num_parallel_calls=stream.options.parallelism or _PARALLELISM,
            deterministic=True,
        )
        if control is None:
            return made.map(lambda element, *_: element)

        def put(element: Tensor, place: Tensor, *entry: Tensor) -> Tensor:
            place = tf.concat([generation[tf.newaxis], place], 0)
            done = tf.cond(
                tap,
                lambda: tf.group(control.put(place, *entry)),
                lambda: tf.group(tf.no_op()),
            )
            with tf.control_dependencies([done]):
                return tf.nest.map_structure(tf.identity, element)

        return made.map(put)

    batches = starts.flat_map(windows).unbatch().prefetch(stream.options.prefetch)
    length = steps * (1 if epochs is None else len(epochs))
    return EpochDataset(batches, length, (plan, control))


@dataclass(frozen=True)
class _Plan:
    """The blocks of a subset as tensors, and what checks them."""

    folder: str
    paths: Tensor
    """(shards,) string."""
    tokens: Tensor
    """(shards,) int64: the bits of the tokens."""
    ordinals: Tensor
    shard: Tensor
    offset: Tensor
    rows: Tensor
    first: Tensor
    kept: Tensor
    """(blocks,) int64 each, as all of these."""
    bitmap: Tensor
    """(blocks,) int64: row of `bitmaps`; -1 where all rows are kept."""
    bitmaps: Tensor
    """(partly kept blocks, bytes) uint8, the first row in the lowest bit."""

    @classmethod
    def of(cls, subset: Subset) -> _Plan:
        catalog, chosen = subset.catalog, subset.blocks
        longest = int(catalog.block_rows[chosen].max())
        bitmaps = np.zeros((len(subset.bitmaps), -(-longest // 8)), np.uint8)
        bitmap = np.full(len(chosen), -1, np.int64)
        for i, ordinal in enumerate(sorted(subset.bitmaps)):
            bits = np.packbits(subset.bitmaps[ordinal], bitorder="little")
            bitmaps[i, : len(bits)] = bits
            bitmap[np.searchsorted(chosen, ordinal)] = i
        return cls(
            folder=str(catalog.folder.absolute()),
            paths=tf.constant(catalog.shards["path"].to_pylist()),
            tokens=tf.constant(catalog.shard_tokens.view(np.int64)),
            ordinals=tf.constant(chosen),
            shard=tf.constant(catalog.block_shard[chosen]),
            offset=tf.constant(catalog.block_offset[chosen]),
            rows=tf.constant(catalog.block_rows[chosen]),
            first=tf.constant(catalog.block_first[chosen]),
            kept=tf.constant(subset.kept),
            bitmap=tf.constant(bitmap),
            bitmaps=tf.constant(bitmaps),
        )


def _window(
    stream: Stream, plan: _Plan, sequence: order.Epoch, epoch: Tensor, step: Tensor, window: Tensor
) -> tuple[Tensor, ...]:
    """One window: (element, place, row fingerprints, label fingerprints, blocks), the element by step."""
    spec = stream.spec
    made = order.window_of(TENSORFLOW, spec, sequence, epoch, window)
    first = tf.minimum(window * spec.window_steps, tf.constant(spec.full_steps, tf.int64))
    skipped = tf.maximum(step - first, 0)
    rows = tf.gather(plan.rows, made.blocks)
    records = _read(plan, made.blocks)
    with tf.control_dependencies([_check(stream, plan, made.blocks, records)]):
        records = tf.identity(records)
    padded, dense = _kept_places(plan, made.blocks, rows)
    picks = made.picks[skipped:]
    columns = WindowColumns(
        schema=stream.schema,
        records=records,
        rows=rows,
        places=tf.gather(padded, picks),
        dense_places=tf.gather(dense, picks),
    )
    header = tf.io.decode_raw(
        tf.strings.substr(records, block.layout(stream.schema).header, 8), tf.int64
    )
    ids = tf.reshape(header + tf.range(tf.reduce_max(rows))[tf.newaxis], [-1])
    row_prints = fingerprints(TENSORFLOW, tf.cast(tf.gather(ids, columns.places), tf.uint64))
    element, label_prints = features_of(stream, columns), tf.zeros_like(row_prints)
    if stream.label is not None:
        label = label_of(stream, columns)
        label_prints = fingerprints(TENSORFLOW, _bits(label))
        element = (element, label)
        if stream.weight_text is not None:
            element = (*element, weight_of(stream, columns))
    place = tf.stack([epoch, window, epoch * spec.steps_per_epoch + first + skipped])
    return element, place, row_prints, label_prints, tf.gather(plan.ordinals, made.blocks)


def _read(plan: _Plan, blocks: Tensor) -> Tensor:
    """The records of blocks, (reads,) string, each read at its offset with its CRCs checked."""

    def read(shard: Tensor, offset: Tensor) -> tf.data.Dataset:
        path = tf.strings.join([plan.folder, "/", tf.gather(plan.paths, shard)])
        # Only the raw op takes byte offsets; inside a function they survive serialisation.
        record = tf.raw_ops.TFRecordDatasetV2(
            filenames=path[tf.newaxis],
            compression_type="",
            buffer_size=tf.zeros((), tf.int64),
            byte_offsets=offset[tf.newaxis],
        )
        return tf.data.experimental.from_variant(record, tf.TensorSpec([], tf.string)).take(1)

    places = (tf.gather(plan.shard, blocks), tf.gather(plan.offset, blocks))
    records = tf.data.Dataset.from_tensor_slices(places).flat_map(read)
    return records.batch(tf.size(blocks, tf.int64)).get_single_element()


def _check(stream: Stream, plan: _Plan, blocks: Tensor, records: Tensor) -> Any:  # noqa: ANN401
    """The operation that refuses a record whose header is not the one planned, before a row leaves."""
    shard, first, rows = (
        tf.gather(values, blocks) for values in (plan.shard, plan.first, plan.rows)
    )
    start = block.layout(stream.schema).header
    # A shard that ends where a block should begin gives no record: the others would move up.
    count = tf.size(records, tf.int64)
    complete = tf.debugging.Assert(
        tf.equal(count, tf.size(blocks, tf.int64)),
        ["tfstream: a shard ends before a block that the manifest names; run tfstream verify"],
    )
    with tf.control_dependencies([complete]):
        header = tf.strings.substr(records, start, block.HEADER_BYTES)
    found_first = tf.io.decode_raw(tf.strings.substr(header, 0, 8), tf.int64)[:, 0]
    found_rows = tf.io.decode_raw(tf.strings.substr(header, 8, 4), tf.int32)[:, 0]
    found_token = tf.io.decode_raw(tf.strings.substr(header, 12, 8), tf.int64)[:, 0]
    good = tf.logical_and(
        tf.logical_and(tf.equal(found_first, first), tf.equal(tf.cast(found_rows, tf.int64), rows)),
        tf.equal(found_token, tf.gather(plan.tokens, shard)),
    )
    bad = tf.argmin(tf.cast(good, tf.int32))
    message = tf.strings.join(
        [
            "tfstream: block ",
            tf.strings.as_string(tf.gather(plan.ordinals, blocks)[bad]),
            " of ",
            tf.gather(plan.paths, shard[bad]),
            ", rows ",
            tf.strings.as_string(first[bad]),
            " to ",
            tf.strings.as_string(first[bad] + rows[bad] - 1),
            ", is not the one that was written; run tfstream verify",
        ]
    )
    return tf.debugging.Assert(tf.reduce_all(good), [message])


def _kept_places(plan: _Plan, blocks: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """For each kept row of the blocks, its place with all blocks padded to the longest, and without."""
    longest = tf.reduce_max(rows)
    present = tf.range(longest)[tf.newaxis] < rows[:, tf.newaxis]
    dense = tf.cumsum(tf.reshape(tf.cast(present, tf.int64), [-1])) - 1
    if plan.bitmaps.shape[0]:
        bitmap = tf.gather(plan.bitmap, blocks)
        packed = tf.gather(plan.bitmaps, tf.maximum(bitmap, 0))
        shifts = tf.range(8, dtype=tf.int32)
        bits = tf.bitwise.bitwise_and(
            tf.bitwise.right_shift(tf.cast(packed, tf.int32)[..., tf.newaxis], shifts), 1
        )
        kept = tf.cast(tf.reshape(bits, [tf.shape(bits)[0], -1]), tf.bool)[:, :longest]
        present = tf.logical_and(present, tf.logical_or(kept, (bitmap < 0)[:, tf.newaxis]))
    padded = tf.where(tf.reshape(present, [-1]))[:, 0]
    return padded, tf.gather(dense, padded)


def _bits(values: Tensor) -> Tensor:
    """The bits of values as uint64: a float's as they are, an integer's as its two's complement."""
    if values.dtype == tf.string:
        return tf.strings.to_hash_bucket_fast(values, 2**63 - 1)
    if values.dtype.is_floating:
        widths = {2: tf.uint16, 4: tf.uint32, 8: tf.uint64}
        return tf.cast(tf.bitcast(values, widths[values.dtype.size]), tf.uint64)
    return tf.cast(tf.cast(values, tf.int64), tf.uint64)
