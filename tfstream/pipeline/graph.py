"""The graph: windows in, batches out, and no Python in between.

One element of the outer dataset is a window. A parallel map prepares it: the plan of the window by
`order`, its blocks read at their byte offsets, checked against the plan, cut and decoded. A second
one picks its batches out of that, a few steps at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfstream import order
from tfstream.fingerprint import fingerprints
from tfstream.format import expressions
from tfstream.format.subset import Subset
from tfstream.order import Spec
from tfstream.pipeline import decode, records
from tfstream.pipeline.arrays import TENSORFLOW
from tfstream.pipeline.columns import Tables, WindowColumns
from tfstream.pipeline.control import Control
from tfstream.pipeline.features import Feature

Tensor = Any

_PICKED_ROWS = 8_192
"""Rows that are picked at once: what fits a core's cache is soon cut into batches."""

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
    generation: Tensor
    tap: Tensor


class _Prepared(NamedTuple):
    """A window out of which batches are picked."""

    made: dict[str, Tensor]
    """As `Tables` has it."""
    rows: Tensor
    """(reads,) int64: rows of each block."""
    places: Tensor
    """(steps, rows) int64: as `WindowColumns` has it."""


class Plan:
    """A subset as tensors that the graph captures, its order, and what a batch is made of."""

    def __init__(self, subset: Subset, spec: Spec, elements: Elements) -> None:
        """Take over what the graph needs of the manifest."""
        catalog, blocks = subset.catalog, subset.blocks
        self.subset, self.spec, self.elements = subset, spec, elements
        # 32 bytes a block, 28 where blocks are kept whole: it is held once more in the graph.
        rows = catalog.block_rows[blocks]
        self._rows = tf.constant(rows, tf.int32)
        is_whole = np.array_equal(subset.kept, rows)
        self._kept = self._rows if is_whole else tf.constant(subset.kept, tf.int32)
        self._ordinal = tf.constant(blocks, tf.int32)
        self.first = tf.constant(catalog.block_first[blocks], tf.int64)
        self.offset = tf.constant(catalog.block_offset[blocks], tf.int64)
        self.shard = tf.constant(catalog.block_shard[blocks], tf.int32)
        self.tokens = tf.constant(catalog.shard_tokens.view(np.int64), tf.int64)
        self.paths = tf.constant(
            [str(catalog.folder / path) for path in catalog.shards["path"].to_pylist()]
        )
        self.bitmaps = _bitmaps(subset)
        self.needed = _needed(self)

    @property
    def kept(self) -> Tensor:
        """In the graph: (blocks,) int64, kept rows of each block."""
        return tf.cast(self._kept, tf.int64)

    def rows(self, blocks: Tensor) -> Tensor:
        """In the graph: all rows of these blocks, int64."""
        return tf.cast(tf.gather(self._rows, blocks), tf.int64)

    def ordinal(self, blocks: Tensor) -> Tensor:
        """In the graph: which blocks of the data set these are, int64."""
        return tf.cast(tf.gather(self._ordinal, blocks), tf.int64)


def batches(plan: Plan, control: Control, *, parallelism: int) -> tf.data.Dataset:
    """The rest of the epoch in which training stands when an iterator is made."""
    steps = plan.spec.steps_per_epoch

    def begin(_: Tensor) -> tuple[Tensor, ...]:
        first, generation, tap = control.start()
        return first // steps, first % steps, generation, tap

    epochs = tf.data.Dataset.range(1).map(_as_is(begin))
    made = _windows(plan, epochs, parallelism=parallelism, fingerprinted=True)

    def tapped(window: _Prepared, entry: Any, tap: Tensor) -> Any:  # noqa: ANN401 - nested tensors
        def put() -> Tensor:
            with tf.control_dependencies([control.put(*entry)]):
                return tf.constant(value=True)

        done = tf.cond(tap, put, lambda: tf.constant(value=False))
        with tf.control_dependencies([done]):
            return tf.nest.map_structure(tf.identity, window)

    return _picked(plan, made.map(_as_is(tapped)), parallelism=parallelism)


def stateless_batches(plan: Plan, epochs: range, *, parallelism: int) -> tf.data.Dataset:
    """The batches of some epochs, one after the other, without any state."""

    def begin(epoch: Tensor) -> tuple[Tensor, ...]:
        zero = tf.zeros([], tf.int64)
        return epoch, zero, zero, tf.constant(value=False)

    source = tf.data.Dataset.range(epochs.start, epochs.stop, epochs.step).map(_as_is(begin))
    made = _windows(plan, source, parallelism=parallelism, fingerprinted=False)
    # TensorFlow takes the reading of blocks for a state, and would refuse checkpoints.
    options = tf.data.Options()
    options.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
    return _picked(plan, made, parallelism=parallelism).with_options(options)


def _windows(
    plan: Plan, epochs: tf.data.Dataset, *, parallelism: int, fingerprinted: bool
) -> tf.data.Dataset:
    """Every window, prepared, from (epoch, first step in it, generation, tap); in order."""
    spec = plan.spec

    def windows_of(
        epoch: Tensor, start: Tensor, generation: Tensor, tap: Tensor
    ) -> tf.data.Dataset:
        sequence = order.epoch_of(TENSORFLOW, spec, plan.kept, epoch)
        first = tf.where(start < spec.full_steps, start // spec.window_steps, spec.full_windows)
        return tf.data.Dataset.range(first, spec.windows_per_epoch).map(
            _as_is(
                lambda window: (
                    *(epoch, window, start, generation, tap),
                    *(sequence.blocks, sequence.ends),
                )
            )
        )

    def make(*values: Tensor) -> Any:  # noqa: ANN401 - nested tensors
        place, sequence = _Place(*values[:5]), order.Epoch(*values[5:])
        return _window(plan, place, sequence, fingerprinted=fingerprinted)

    return epochs.flat_map(_as_is(windows_of)).map(
        _as_is(make), num_parallel_calls=parallelism, deterministic=True
    )


def _picked(plan: Plan, windows: tf.data.Dataset, *, parallelism: int) -> tf.data.Dataset:
    """The batches of prepared windows, one by one."""
    steps = max(1, _PICKED_ROWS // plan.spec.batch_size)

    def parts_of(window: _Prepared) -> tf.data.Dataset:
        count = -(-tf.shape(window.places, tf.int64)[0] // steps)
        whole = tf.data.Dataset.from_tensors(window).repeat()
        return tf.data.Dataset.zip((tf.data.Dataset.range(count), whole))

    def pick(part: Tensor, window: _Prepared) -> Any:  # noqa: ANN401 - nested tensors
        schema = plan.subset.catalog.schema
        tables = Tables(schema, records=None, rows=window.rows, made=dict(window.made))
        taken = window.places[part * steps : (part + 1) * steps]
        return _batch(plan, WindowColumns(tables, taken))

    parts = windows.flat_map(_as_is(parts_of))
    return parts.map(_as_is(pick), num_parallel_calls=parallelism, deterministic=True).unbatch()


def _needed(plan: Plan) -> tuple[str, ...]:
    """The features of a block that batches are made of: tried out on a graph that never runs."""
    names: list[str] = []

    def look(blocks: Tensor, rows: Tensor, places: Tensor) -> Any:  # noqa: ANN401 - nested tensors
        tables = Tables(plan.subset.catalog.schema, records=blocks, rows=rows)
        batch = _batch(plan, WindowColumns(tables, places))
        names.extend(tables.made)
        return batch

    integers = (tf.TensorSpec(shape, tf.int64) for shape in ([None], [None, None]))
    tf.function(look, autograph=False).get_concrete_function(
        tf.TensorSpec([None], tf.string), *integers
    )
    return tuple(names)


def _window(plan: Plan, place: _Place, sequence: order.Epoch, *, fingerprinted: bool) -> Any:  # noqa: ANN401
    """A window, prepared; with fingerprints, (window, entry of the queue, tap)."""
    spec = plan.spec
    found = order.window_of(TENSORFLOW, spec, sequence, place.epoch, place.window)
    first = tf.minimum(place.window * spec.window_steps, spec.full_steps)
    skipped = tf.maximum(place.start - first, 0)
    picks = found.picks[skipped:]
    blocks, headers = records.read(plan, found.blocks)
    rows = plan.rows(found.blocks)
    longest = tf.reduce_max(rows)
    mask = tf.range(longest)[tf.newaxis] < rows[:, tf.newaxis]
    if plan.bitmaps is not None:
        line, lines = plan.bitmaps
        mask &= _bits(tf.gather(lines, tf.gather(line, found.blocks)), longest)
    table = tf.where(tf.reshape(mask, [-1]))[:, 0]
    places = tf.gather(table, picks)
    places.set_shape([None, None if spec.tail_rows else spec.batch_size])
    tables = Tables(plan.subset.catalog.schema, records=blocks, rows=rows)
    prepared = _Prepared({name: tables.feature(name) for name in plan.needed}, rows, places)
    if not fingerprinted:
        return prepared
    steps = tf.shape(picks)[0]
    row_prints = _if(
        place.tap, steps, lambda: tf.gather(headers, places // longest) + places % longest
    )
    label = plan.elements.label

    def bits_of(tree: expressions.Node) -> Tensor:
        return _label(plan, WindowColumns(tables, places), tree)[1]

    label_prints = _if(place.tap, steps, None if label is None else lambda: bits_of(label))
    run_step = place.epoch * spec.steps_per_epoch + first + skipped
    where = tf.stack([place.generation, place.epoch, place.window, run_step])
    entry = where, row_prints, label_prints, plan.ordinal(found.blocks)
    return prepared, entry, place.tap


def _label(plan: Plan, columns: WindowColumns, tree: expressions.Node) -> tuple[Tensor, Tensor]:
    return decode.label(columns, plan.subset.catalog, tree)


def _batch(plan: Plan, columns: WindowColumns) -> Any:  # noqa: ANN401 - nested tensors
    elements = plan.elements
    make = decode.packed if elements.packed else decode.by_column
    parts: list[Any] = [make(columns, elements.features)]
    if elements.label is not None:
        parts.append(_label(plan, columns, elements.label)[0])
    if elements.weight is not None:
        parts.append(decode.weight(columns, elements.weight))
    return parts[0] if len(parts) == 1 else tuple(parts)


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
