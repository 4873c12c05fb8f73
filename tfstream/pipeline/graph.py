"""The graph: windows in, batches out, and no Python in between.

One element of the outer dataset is a window. A parallel map prepares it: the plan of the window by
`order`, its blocks read at their byte offsets, checked against the plan, cut and decoded. A second
one picks its batches out of that, a few steps at a time.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow as tf

from tfstream import order
from tfstream.fingerprint import fingerprints
from tfstream.format import block, expressions
from tfstream.format.subset import Subset
from tfstream.order import Spec
from tfstream.pipeline import bitmaps, decode, direct, records
from tfstream.pipeline.arrays import TENSORFLOW
from tfstream.pipeline.columns import Tables, WindowColumns
from tfstream.pipeline.control import Control
from tfstream.pipeline.features import Feature
from tfstream.pipeline.gate import Gate
from tfstream.share import WHOLE, Share
from tfstream.skips import Skips

Tensor = Any

_PICKED_ROWS = 8_192
"""Rows that are picked at once: what fits a core's cache is soon cut into batches."""

Part = Literal["order", "reading", "decoding"]
"""How far a window is made; each includes those before it."""

_as_is = tf.autograph.experimental.do_not_convert
"""There is no Python control flow over tensors, and what AutoGraph rewrites is slow to trace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Elements:
    """What a batch is made of."""

    features: tuple[Feature, ...]
    packed: bool
    """Whether the features are one tensor and nothing beside it."""
    label: expressions.Node | None
    weight: str | None
    padded: bool = False
    """Whether rows that fill a share up have the weight 0, all others 1 (times `weight`)."""


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
    number: Tensor | None = None
    """Of the pass, where there is a gate."""


class _Prepared(NamedTuple):
    """A window out of which batches are picked."""

    made: dict[str, Tensor]
    """As `Tables` has it."""
    rows: Tensor
    """(reads,) int64: rows of each block."""
    places: Tensor
    """(steps, rows) int64: as `WindowColumns` has it."""
    others: dict[str, Tensor]
    """Labels and weights, (steps, rows) each."""


class Plan:
    """A subset as tensors that the graph captures, its order, and what a batch is made of."""

    def __init__(  # noqa: PLR0913 - rows, their order, and what becomes of them
        self,
        subset: Subset,
        spec: Spec,
        elements: Elements,
        *,
        layout: order.Layout | None,
        skips: Skips,
        share: Share = WHOLE,
        gate: Gate | None = None,
    ) -> None:
        """Take over what the graph needs of the manifest."""
        self.gate = gate
        catalog, blocks = subset.catalog, subset.blocks
        self.subset, self.spec, self.elements, self.share = subset, spec, elements, share
        self.skipped = tf.constant(skips.ranges, tf.int64) if skips else None
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
        paths, self.request_bytes = direct.places_of(subset, has_gate=gate is not None)
        self.paths = tf.constant(paths)
        self.bitmaps = bitmaps.bitmaps_of(subset)
        self.layout = None if layout is None else layout.mapped(tf.constant)
        self.needed, self.records = _needed(self)

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
    """The steps from where training stands when an iterator is made to where it is to end."""
    steps = plan.spec.steps_per_epoch

    def begin(_: Tensor) -> tuple[Tensor, ...]:
        first, stop, generation, tap = control.start()
        epoch, start = first // steps, first % steps
        return epoch, start, stop - epoch * steps, generation, tap

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


def stateless_batches(
    plan: Plan, epochs: range, first_step: int, *, parallelism: int
) -> tf.data.Dataset:
    """The batches of some epochs, one after the other, from a step of the first on; no state."""
    made = stateless_windows(plan, epochs, first_step, parallelism=parallelism)
    # TensorFlow takes the reading of blocks for a state, and would refuse checkpoints.
    options = tf.data.Options()
    options.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
    return _picked(plan, made, parallelism=parallelism).with_options(options)


def stateless_windows(
    plan: Plan, epochs: range, first_step: int, *, parallelism: int, until: Part = "decoding"
) -> tf.data.Dataset:
    """The windows that they are picked from, or what there is of them after an earlier part."""
    steps = plan.spec.steps_per_epoch

    def begin(epoch: Tensor) -> tuple[Tensor, ...]:
        start = tf.where(epoch == epochs.start, tf.constant(first_step, tf.int64), 0)
        zero = tf.zeros([], tf.int64)
        return epoch, start, tf.constant(steps, tf.int64), zero, tf.constant(value=False)

    source = tf.data.Dataset.range(epochs.start, epochs.stop, epochs.step).map(_as_is(begin))
    return _windows(plan, source, parallelism=parallelism, fingerprinted=False, until=until)


def _windows(
    plan: Plan,
    epochs: tf.data.Dataset,
    *,
    parallelism: int,
    fingerprinted: bool,
    until: Part = "decoding",
) -> tf.data.Dataset:
    """Every window, prepared, from (epoch, start and stop in it, generation, tap); in order."""
    spec = plan.spec

    def windows_of(
        epoch: Tensor, start: Tensor, stop: Tensor, generation: Tensor, tap: Tensor
    ) -> tf.data.Dataset:
        sequence = order.epoch_of(TENSORFLOW, spec, plan.kept, epoch, layout=plan.layout)
        low, high = (order.window_with(TENSORFLOW, spec, step) for step in (start, stop - 1))
        number: tuple[Tensor, ...] = ()
        windows = tf.data.Dataset.range(low, high + 1)
        if plan.gate is not None:
            number = (plan.gate.ask(epoch, low, high),)
            windows = windows.map(_as_is(functools.partial(plan.gate.wait, *number)))
        if plan.skipped is not None:
            windows = windows.filter(
                _as_is(
                    lambda window: tf.reduce_any(
                        _wanted(plan, _Place(epoch, window, start, stop, generation, tap))[1]
                    )
                )
            )
        others = (start, stop, generation, tap, *number, *sequence.arrays)
        return windows.map(_as_is(lambda window: (epoch, window, *others)))

    fields = 6 if plan.gate is None else 7

    def make(*values: Tensor) -> Any:  # noqa: ANN401 - nested tensors
        place, sequence = _Place(*values[:fields]), order.Epoch(*values[fields:])
        return _window(plan, place, sequence, fingerprinted=fingerprinted, until=until)

    return epochs.flat_map(_as_is(windows_of)).map(
        _as_is(make), num_parallel_calls=parallelism, deterministic=True
    )


def _wanted(plan: Plan, place: _Place) -> tuple[Tensor, Tensor]:
    """The steps of a window, counted over the run, and which of them the iterator delivers."""
    spec = plan.spec
    first = order.first_step_of(TENSORFLOW, spec, place.window)
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


def _picked(plan: Plan, windows: tf.data.Dataset, *, parallelism: int) -> tf.data.Dataset:
    """The batches of prepared windows, one by one."""
    columns = [feature.column for feature in plan.elements.features]
    # Items of lists are cut for all rows of a window at once.
    is_whole = any(column.is_list or column.null_items for column in columns)
    steps = max(1, sys.maxsize if is_whole else _PICKED_ROWS // plan.spec.batch_size)

    def parts_of(window: _Prepared) -> tf.data.Dataset:
        count = -(-tf.shape(window.places, tf.int64)[0] // steps)
        whole = tf.data.Dataset.from_tensors(window).repeat()
        return tf.data.Dataset.zip((tf.data.Dataset.range(count), whole))

    def pick(part: Tensor, window: _Prepared) -> Any:  # noqa: ANN401 - nested tensors
        schema = plan.subset.catalog.schema
        tables = Tables(schema, records={}, rows=window.rows, made=dict(window.made))
        lines = slice(part * steps, (part + 1) * steps)
        others = {name: values[lines] for name, values in window.others.items()}
        return _batch(plan, WindowColumns(tables, window.places[lines]), others)

    parts = windows.flat_map(_as_is(parts_of))
    return parts.map(_as_is(pick), num_parallel_calls=parallelism, deterministic=True).unbatch()


def _needed(plan: Plan) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The features that batches are picked from, and the records with these, label and weight.

    Tried out on a graph that never runs.
    """
    names: list[str] = []
    records: set[int] = set()

    def look(blocks: Tensor, rows: Tensor, places: Tensor) -> Any:  # noqa: ANN401 - nested tensors
        schema = plan.subset.catalog.schema
        same = dict.fromkeys(range(len(schema.records)), blocks)
        tables = Tables(schema, records=same, rows=rows)
        batch = _features(plan, WindowColumns(tables, places))
        names.extend(tables.made)
        others = _others(plan, WindowColumns(tables, places), None)[0]
        records.update(map(block.layout(schema).record_of, tables.made))
        return batch, others

    integers = (tf.TensorSpec(shape, tf.int64) for shape in ([None], [None, None]))
    tf.function(look, autograph=False).get_concrete_function(
        tf.TensorSpec([None], tf.string), *integers
    )
    # Without any feature, the headers are still read.
    return tuple(names), tuple(sorted(records)) or (0,)


def _window(
    plan: Plan, place: _Place, sequence: order.Epoch, *, fingerprinted: bool, until: Part
) -> Any:  # noqa: ANN401 - nested tensors
    """A window, prepared; with fingerprints, (window, entry of the queue, tap).

    Or what there is after an earlier part, for measurements.
    """
    spec = plan.spec
    share, layout = plan.share, plan.layout
    found = order.window_of(
        TENSORFLOW, spec, sequence, place.epoch, place.window, layout=layout, share=share
    )
    run_steps, wanted = _wanted(plan, place)
    picks = tf.boolean_mask(found.picks, wanted)
    if until == "order":
        return found.blocks, picks
    folder = None if plan.gate is None else plan.gate.folder_of(place.number, place.window)
    blocks, headers = records.read(plan, found.blocks, folder)
    if until == "reading":
        return picks, list(blocks.values())
    rows = plan.rows(found.blocks)
    longest = tf.reduce_max(rows)
    mask = tf.range(longest)[tf.newaxis] < rows[:, tf.newaxis]
    if plan.bitmaps is not None:
        line, lines = plan.bitmaps
        mask &= bitmaps.bits(tf.gather(lines, tf.gather(line, found.blocks)), longest)
    table = tf.where(tf.reshape(mask, [-1]))[:, 0]
    steps = tf.shape(picks)[0]
    width = share.width(spec) // share.replicas
    # Each replica of a worker takes the next element, so a step is as many of them.
    places = tf.reshape(tf.gather(table, picks), [steps * share.replicas, -1])
    places.set_shape([None, None if spec.tail_steps else width])
    tables = Tables(plan.subset.catalog.schema, records=blocks, rows=rows)
    columns = WindowColumns(tables, places)
    is_tail = place.window >= spec.full_windows
    others, bits = _others(plan, columns, _filling(plan, picks, is_tail, tf.shape(places)))
    made = {name: tables.feature(name) for name in plan.needed}
    prepared = _Prepared(made, rows, places, others)
    if not fingerprinted:
        return prepared

    def row_ids() -> Tensor:
        ids = tf.gather(headers, places // longest) + places % longest
        return tf.reshape(ids, tf.shape(picks))

    row_prints = _if(place.tap, steps, row_ids)
    label_prints = _if(
        place.tap, steps, None if bits is None else lambda: tf.reshape(bits, tf.shape(picks))
    )
    where = tf.stack([place.generation, place.epoch, place.window])
    run_steps = tf.boolean_mask(run_steps, wanted)
    entry = where, run_steps, row_prints, label_prints, plan.ordinal(found.blocks)
    return prepared, entry, place.tap


def _filling(plan: Plan, picks: Tensor, is_tail: Tensor, shape: Tensor) -> Tensor | None:
    """1 for rows, 0 for those that fill a share up, of this shape; None where nothing may be."""
    if not plan.elements.padded:
        return None
    width = tf.shape(picks)[1]
    real = tf.where(is_tail, plan.share.tail_rows(plan.spec), width)
    line = tf.cast(tf.range(width) < real, tf.float32)
    return tf.reshape(tf.broadcast_to(line, tf.shape(picks)), shape)


def _others(
    plan: Plan, columns: WindowColumns, filling: Tensor | None
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Labels and weights of a window, (steps, rows) each, and the labels' bits.

    What is delivered is cut out of these, so that the fingerprint speaks for what the model gets.
    """
    elements, found, bits = plan.elements, {}, None
    if elements.label is not None:
        found["label"], bits = decode.label(columns, plan.subset.catalog, elements.label)
    if elements.weight is not None:
        stored = decode.weight(columns, elements.weight)
        # Not a product: a filling row's weight is 0 even if the stored one is infinite.
        found["weight"] = stored if filling is None else tf.where(filling > 0, stored, filling)
    elif filling is not None:
        found["weight"] = filling
    return found, bits


def _batch(plan: Plan, columns: WindowColumns, others: dict[str, Tensor]) -> Any:  # noqa: ANN401
    parts = [_features(plan, columns), *(others[n] for n in ("label", "weight") if n in others)]
    return parts[0] if len(parts) == 1 else tuple(parts)


def _features(plan: Plan, columns: WindowColumns) -> Any:  # noqa: ANN401 - nested tensors
    if plan.elements.packed:
        return decode.packed(columns, plan.elements.features)
    return decode.features(columns, plan.subset.catalog, plan.elements.features)


def _if(tap: Tensor, steps: Tensor, values: Callable[[], Tensor] | None) -> Tensor:
    """The fingerprints, (steps,) uint64, of values that are computed only while wanted."""
    if values is None:
        return tf.zeros([steps], tf.uint64)
    return tf.cond(
        tap,
        lambda: fingerprints(TENSORFLOW, tf.cast(values(), tf.uint64)),
        lambda: tf.zeros([steps], tf.uint64),
    )
