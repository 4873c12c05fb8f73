"""The graph: windows in, batches out, and no Python in between.

One element of the outer dataset is a window. A single parallel map makes all its batches: the plan
of the window by `order`, its blocks read at their byte offsets, checked against the plan, cut,
decoded and gathered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfstream import order
from tfstream.fingerprint import fingerprints
from tfstream.format import block, expressions
from tfstream.format.subset import Subset
from tfstream.order import Spec
from tfstream.pipeline import decode
from tfstream.pipeline.arrays import TENSORFLOW
from tfstream.pipeline.columns import WindowColumns
from tfstream.pipeline.control import Control
from tfstream.pipeline.features import Feature
from tfstream.skips import Skips

Tensor = Any

_as_is = tf.autograph.experimental.do_not_convert
"""There is no Python control flow over tensors, and what AutoGraph rewrites is slow to trace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Elements:
    """What a batch is made of."""

    features: tuple[Feature, ...]
    packed: bool
    """Whether the features are one tensor."""
    label: expressions.Node | None
    weight: str | None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a window is in training; scalars."""

    epoch: Tensor
    window: Tensor
    start: Tensor
    """Step of the epoch at which the iterator starts."""
    stop: Tensor
    """Step of the epoch before which it ends."""
    generation: Tensor
    tap: Tensor


class Plan:
    """A subset as tensors that the graph captures, its order, and what a batch is made of."""

    def __init__(self, subset: Subset, spec: Spec, elements: Elements, skips: Skips) -> None:
        """Take over what the graph needs of the manifest."""
        catalog, blocks = subset.catalog, subset.blocks
        self.subset, self.spec, self.elements = subset, spec, elements
        self.skipped = tf.constant(skips.ranges, tf.int64) if skips else None
        self.kept = tf.constant(subset.kept, tf.int64)
        self.ordinal = tf.constant(blocks, tf.int64)
        self.rows = tf.constant(catalog.block_rows[blocks], tf.int64)
        self.first = tf.constant(catalog.block_first[blocks], tf.int64)
        self.offset = tf.constant(catalog.block_offset[blocks], tf.int64)
        self.shard = tf.constant(catalog.block_shard[blocks], tf.int32)
        self.tokens = tf.constant(catalog.shard_tokens.view(np.int64), tf.int64)
        self.paths = tf.constant(
            [str(catalog.folder / path) for path in catalog.shards["path"].to_pylist()]
        )
        self.bitmaps = _bitmaps(subset)


def batches(plan: Plan, control: Control, *, parallelism: int) -> tf.data.Dataset:
    """The steps from where training stands when an iterator is made to where it is to end."""
    steps = plan.spec.steps_per_epoch

    def begin(_: Tensor) -> tuple[Tensor, ...]:
        first, stop, generation, tap = control.start()
        epoch, start = first // steps, first % steps
        return epoch, start, stop - epoch * steps, generation, tap

    epochs = tf.data.Dataset.range(1).map(_as_is(begin))
    made = _windows(plan, epochs, parallelism=parallelism, fingerprinted=True)

    def tapped(batch: Any, entry: Any, tap: Tensor) -> Any:  # noqa: ANN401 - nested tensors
        def put() -> Tensor:
            with tf.control_dependencies([control.put(*entry)]):
                return tf.constant(value=True)

        done = tf.cond(tap, put, lambda: tf.constant(value=False))
        with tf.control_dependencies([done]):
            return tf.nest.map_structure(tf.identity, batch)

    return made.map(_as_is(tapped)).unbatch()


def stateless_batches(
    plan: Plan, epochs: range, first_step: int, *, parallelism: int
) -> tf.data.Dataset:
    """The batches of some epochs, one after the other, from a step of the first on; no state."""
    steps = plan.spec.steps_per_epoch

    def begin(epoch: Tensor) -> tuple[Tensor, ...]:
        start = tf.where(epoch == epochs.start, tf.constant(first_step, tf.int64), 0)
        zero = tf.zeros([], tf.int64)
        return epoch, start, tf.constant(steps, tf.int64), zero, tf.constant(value=False)

    source = tf.data.Dataset.range(epochs.start, epochs.stop, epochs.step).map(_as_is(begin))
    made = _windows(plan, source, parallelism=parallelism, fingerprinted=False)
    # TensorFlow takes the reading of blocks for a state, and would refuse checkpoints.
    options = tf.data.Options()
    options.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
    return made.unbatch().with_options(options)


def _windows(
    plan: Plan, epochs: tf.data.Dataset, *, parallelism: int, fingerprinted: bool
) -> tf.data.Dataset:
    """Every window's batches, from (epoch, start and stop in it, generation, tap); in order."""
    spec = plan.spec

    def windows_of(
        epoch: Tensor, start: Tensor, stop: Tensor, generation: Tensor, tap: Tensor
    ) -> tf.data.Dataset:
        sequence = order.epoch_of(TENSORFLOW, spec, plan.kept, epoch)
        windows = tf.data.Dataset.range(_window_with(spec, start), _window_with(spec, stop - 1) + 1)
        if plan.skipped is not None:
            windows = windows.filter(
                _as_is(
                    lambda window: tf.reduce_any(
                        _wanted(plan, _Place(epoch, window, start, stop, generation, tap))[1]
                    )
                )
            )
        return windows.map(
            _as_is(
                lambda window: (
                    *(epoch, window, start, stop, generation, tap),
                    *(sequence.blocks, sequence.ends),
                )
            )
        )

    def make(*values: Tensor) -> Any:  # noqa: ANN401 - nested tensors
        place, sequence = _Place(*values[:6]), order.Epoch(*values[6:])
        return _window(plan, place, sequence, fingerprinted=fingerprinted)

    return epochs.flat_map(_as_is(windows_of)).map(
        _as_is(make), num_parallel_calls=parallelism, deterministic=True
    )


def _window_with(spec: Spec, step: Tensor) -> Tensor:
    """The window that has a step of an epoch."""
    return tf.where(step < spec.full_steps, step // spec.window_steps, spec.full_windows)


def _wanted(plan: Plan, place: _Place) -> tuple[Tensor, Tensor]:
    """The steps of a window, counted over the run, and which of them the iterator delivers."""
    spec = plan.spec
    first = tf.minimum(place.window * spec.window_steps, spec.full_steps)
    steps = tf.where(
        place.window < spec.full_windows, tf.minimum(spec.full_steps - first, spec.window_steps), 1
    )
    in_epoch = first + tf.range(steps)
    run_steps = place.epoch * spec.steps_per_epoch + in_epoch
    wanted = (in_epoch >= place.start) & (in_epoch < place.stop)
    if plan.skipped is not None:
        starts, stops = plan.skipped[:, 0], plan.skipped[:, 1]
        index = tf.searchsorted(starts, run_steps, side="right", out_type=tf.int64)
        is_after = tf.gather(tf.concat([tf.zeros([1], tf.int64), stops], 0), index) <= run_steps
        wanted &= is_after
    return run_steps, wanted


def _window(plan: Plan, place: _Place, sequence: order.Epoch, *, fingerprinted: bool) -> Any:  # noqa: ANN401
    """The batches of a window; with fingerprints, (batches, entry of the queue, tap)."""
    spec = plan.spec
    found = order.window_of(TENSORFLOW, spec, sequence, place.epoch, place.window)
    run_steps, wanted = _wanted(plan, place)
    picks = tf.boolean_mask(found.picks, wanted)
    records, headers = _read(plan, found.blocks)
    rows = tf.gather(plan.rows, found.blocks)
    longest = tf.reduce_max(rows)
    mask = tf.range(longest)[tf.newaxis] < rows[:, tf.newaxis]
    if plan.bitmaps is not None:
        line, lines = plan.bitmaps
        mask &= _bits(tf.gather(lines, tf.gather(line, found.blocks)), longest)
    table = tf.where(tf.reshape(mask, [-1]))[:, 0]
    places = tf.gather(table, picks)
    places.set_shape([None, None if spec.tail_rows else spec.batch_size])
    columns = WindowColumns(
        schema=plan.subset.catalog.schema,
        records=records,
        rows=rows,
        places=places,
    )
    batch, bits = _batch(plan, columns)
    if not fingerprinted:
        return batch
    steps = tf.shape(picks)[0]
    row_prints = _if(
        place.tap, steps, lambda: tf.gather(headers, places // longest) + places % longest
    )
    label_prints = _if(place.tap, steps, None if bits is None else lambda: bits)
    where = tf.stack([place.generation, place.epoch, place.window])
    run_steps = tf.boolean_mask(run_steps, wanted)
    entry = where, run_steps, row_prints, label_prints, tf.gather(plan.ordinal, found.blocks)
    return batch, entry, place.tap


def _batch(plan: Plan, columns: WindowColumns) -> tuple[Any, Tensor | None]:
    elements = plan.elements
    make = decode.packed if elements.packed else decode.by_column
    parts: list[Any] = [make(columns, elements.features)]
    bits = None
    if elements.label is not None:
        values, bits = decode.label(columns, plan.subset.catalog, elements.label)
        parts.append(values)
    if elements.weight is not None:
        parts.append(decode.weight(columns, elements.weight))
    return (parts[0] if len(parts) == 1 else tuple(parts)), bits


def _if(tap: Tensor, steps: Tensor, values: Callable[[], Tensor] | None) -> Tensor:
    """The fingerprints, (steps,) uint64, of values that are computed only while wanted."""
    if values is None:
        return tf.zeros([steps], tf.uint64)
    return tf.cond(
        tap,
        lambda: fingerprints(TENSORFLOW, tf.cast(values(), tf.uint64)),
        lambda: tf.zeros([steps], tf.uint64),
    )


def _bits(lines: Tensor, width: Tensor) -> Tensor:
    """The first `width` bits of each line, lowest bit first; (lines, width) bool."""
    shifts = tf.constant(np.arange(8), tf.uint8)
    bits = tf.bitwise.bitwise_and(tf.bitwise.right_shift(lines[:, :, tf.newaxis], shifts), 1)
    return tf.reshape(bits, [tf.shape(lines)[0], -1])[:, :width] > 0


def _read(plan: Plan, blocks: Tensor) -> tuple[Tensor, Tensor]:
    """The records of some blocks, checked, and the first row ids that their headers tell."""
    shards, offsets = tf.gather(plan.shard, blocks), tf.gather(plan.offset, blocks)
    paths, count = tf.gather(plan.paths, shards), tf.size(blocks, tf.int64)

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
        & (tf.cast(rows, tf.int64) == tf.gather(plan.rows, blocks))
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
        records = places.flat_map(_as_is(_record))
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


_ADVICE = "; `tfstream verify` finds all that is damaged: restore the file or convert again"


def _at(plan: Plan, blocks: Tensor, index: Tensor) -> Tensor:
    """The name of a block in a message."""
    found = blocks[index]
    first, rows, text = plan.first[found], plan.rows[found], tf.strings.as_string
    return tf.strings.join(
        [
            plan.paths[plan.shard[found]],
            tf.strings.join([": block ", text(plan.ordinal[found]), " at byte "]),
            tf.strings.join([text(plan.offset[found]), ", rows ", text(first), " to "]),
            text(first + rows - 1),
        ]
    )


def _bitmaps(subset: Subset) -> tuple[Tensor, Tensor] | None:
    """For each block its line in a matrix that tells which rows are kept; None if all are.

    The last line, for the blocks that are kept whole, has all bits set.
    """
    if not subset.bitmaps:
        return None
    partly = sorted(subset.bitmaps)
    longest = int(subset.catalog.block_rows[subset.blocks].max())
    lines = np.zeros((len(partly) + 1, -(-longest // 8)), np.uint8)
    for i, ordinal in enumerate(partly):
        packed = np.packbits(subset.bitmaps[ordinal], bitorder="little")
        lines[i, : len(packed)] = packed
    lines[-1] = 255
    line = np.full(len(subset.blocks), len(partly), np.int32)
    line[np.searchsorted(subset.blocks, partly)] = np.arange(len(partly))
    return tf.constant(line), tf.constant(lines)
