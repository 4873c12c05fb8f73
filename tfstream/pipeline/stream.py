"""A stream: batches of a subset in an order that is a function of a few numbers."""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tfstream import storage
from tfstream.cursor import Cursor
from tfstream.errors import CorruptionError, StorageError, UsageError
from tfstream.format import expressions, quality
from tfstream.format.index_files import refuse_links
from tfstream.format.layout import layout_of
from tfstream.format.places import Places
from tfstream.format.subset import Subset
from tfstream.pipeline import allocator, padding
from tfstream.pipeline import features as featuring
from tfstream.pipeline import label as labelling
from tfstream.pipeline.features import Forms
from tfstream.pipeline.options import StreamOptions
from tfstream.pipeline.ordering import spec_of
from tfstream.share import WHOLE, Share
from tfstream.skips import Skips

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from tfstream.pipeline.control import Control
    from tfstream.pipeline.graph import Plan
    from tfstream.pipeline.position import Position
    from tfstream.pipeline.serving import Preprocessor
    from tfstream.pipeline.stages import Speed

_PARALLELISM = 4
"""Windows that are made at the same time by default, at most: each is in memory."""


class Stream:
    """Batches (features, label[, weight]) of a subset; only datasets load TensorFlow."""

    def __init__(  # noqa: PLR0913 - the arguments of `Shards.stream`
        self,
        subset: Subset,
        *,
        batch_size: int,
        features: Sequence[str] | None,
        label: str | None,
        weight: str | None,
        seed: int,
        options: StreamOptions,
    ) -> None:
        """As `Shards.stream` says."""
        catalog = subset.catalog
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {batch_size}")
        if label is None and weight is not None:
            raise UsageError(f"there is the weight {weight!r} but no label; name a label")
        self._label = None if label is None else labelling.parse_label(catalog, label)
        self._weight = None if weight is None else labelling.parse_weight(catalog, weight)
        taken = () if self._label is None else expressions.columns(self._label)
        self.features = featuring.choose(catalog.schema, features, (*taken, weight))
        forms = Forms(
            packed=options.packed,
            nulls=options.nulls,
            padded=options.padded,
            strings=options.strings,
        )
        self.plan = featuring.plan(catalog, self.features, forms)
        self.label_text, self.weight_text, self.options = label, weight, options
        self.skips = Skips.of(options.skip_steps)
        if label is not None:
            subset = labelling.without_nulls(subset, label, options.null_label)
        if weight is not None:
            labelling.check_weights(subset, weight)
        for feature in self.plan:
            if feature.padded:
                padding.check_lengths(subset, feature.name, feature.padded)
        self.subset = subset
        self.layout = layout_of(
            subset,
            shuffle=options.shuffle,
            batches=options.batches,
            weights=tuple(options.weights.items()),
            cut=(batch_size, options.remainder),
        )
        self.spec = spec_of(subset, self.layout, batch_size, seed, options)
        self.share = WHOLE

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return self.spec.steps_per_epoch

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the spec, in hex: with the same, the same rows are in the same steps."""
        text = json.dumps(asdict(self.spec), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def shard(self, index: int, count: int) -> Stream:
        """The part of one of several data-parallel workers: same spec, digest and steps.

        Side by side, the parts of a step are its batch, for any count that divides the stretches
        (with shuffle="none" the batch size: a part is a slice, and each worker reads all blocks).
        With remainder="keep" elements are (features, label, weight), weight float32: the shorter
        batch is filled up to equal parts with rows of weight 0.

        Args:
            index: 0 to `count` - 1.
            count: workers.

        Raises:
            UsageError: if there are no such parts, or rows must be filled up without a label.
        """
        return self._part(Share(index=index, count=count))

    def row_ids(self, epoch: int, step: int) -> np.ndarray:
        """Row ids of a step of an epoch, in the order of the batch; (rows,) int64. No TensorFlow.

        Of a shard, its own rows; those that fill its last batch up are left out.

        Raises:
            UsageError: if the epoch has no such step.
        """
        return self._places.rows_of(epoch, step)

    def shuffle_quality(self, epoch: int = 0) -> float:
        """How well batches mix the groups; 1 is as good as uniform draws, more is worse.

        The standard deviation over an epoch's batches of the batch mean of a group effect, divided
        by the same under uniform draws of a batch from the epoch's rows. It is the expectation over
        random effects and over the permutations inside the windows; the blocks are permuted as they
        are in this epoch. Shorter batches at the end do not count. Nothing is read.
        """
        return quality.quality_of(self.subset, self.spec, self.layout, epoch)

    def cursor(self, step: int) -> Cursor:
        """The place of a step that is counted over the run, with what it belongs to.

        Raises:
            UsageError: if the step is negative.
        """
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        return Cursor(
            epoch=epoch, step=step_in_epoch, dataset=self.subset.catalog.digest, spec=self.spec
        )

    def step_of(self, cursor: Cursor) -> int:
        """The step of a cursor, counted over the run.

        Raises:
            ResumeError: if the cursor belongs to another stream, with each field that differs.
            UsageError: if an epoch has no such step.
        """
        return cursor.in_run(self.subset.catalog.digest, self.spec)

    @cached_property
    def position(self) -> Position:
        """Where the fit at hand stands, for all callbacks of this stream."""
        made: Position = importlib.import_module("tfstream.pipeline.position").Position(
            self.control, self.steps_per_epoch, self.skips
        )
        return made

    @cached_property
    def control(self) -> Control:
        """What the callbacks and the datasets of this stream share."""
        made: Control = importlib.import_module("tfstream.pipeline.control").Control(
            self.steps_per_epoch
        )
        return made

    def dataset(
        self,
        *,
        epochs: range | None = None,
        start: Cursor | None = None,
        map: Callable[..., Any] | None = None,  # noqa: A002 - as tf.data calls it
    ) -> tf.data.Dataset:
        """The batches: (features, label[, weight]), or features alone without a label.

        Without `epochs` each new iterator takes the next epoch, or goes on where the callbacks of a
        fit say that training stands.

        Args:
            epochs: these epochs, one after the other, in a dataset without any state.
            start: where the next iterator, or the next fit with a callback of this stream, begins;
                the epochs after it are whole. With `epochs`, what of them comes before is left out.
                Nothing that comes before is read.
            map: a function of (features, label[, weight]), or of the features alone without a
                label, that gives what the model gets in place of a batch. It runs in the graph, on
                several batches at the same time, in their order. Length, position and lineage stay
                those of the stream: fingerprints are taken before it.

        Raises:
            UsageError: if `epochs` has a negative number or none, or not the epoch of `start`.
            ResumeError: if `start` belongs to another stream, with each field that differs.
            CorruptionError: if a shard is not as long as it was written.
            StorageError: if a shard is not there.
        """
        if epochs is not None and (not epochs or min(epochs[0], epochs[-1]) < 0):
            raise UsageError(
                f"epochs must be a range of at least one epoch from 0 on, got {epochs}"
            )
        first_step = 0 if start is None else self.step_of(start)
        if start is not None and epochs is not None:
            if start.epoch not in epochs:
                raise UsageError(f"start is in epoch {start.epoch}, which is not in {epochs}")
            epochs = epochs[epochs.index(start.epoch) :]
        graph = importlib.import_module("tfstream.pipeline.graph")
        wrapped = importlib.import_module("tfstream.pipeline.dataset").StreamDataset
        plan, parallelism = self.prepared(), self.parallelism
        steps = self.steps_per_epoch
        if epochs is None:
            if start is not None:
                self.control.start_at(first_step)
            made = graph.batches(plan, self.control, parallelism=parallelism)
            control, length = self.control, steps
        else:
            before = first_step % steps
            made = graph.stateless_batches(plan, epochs, before, parallelism=parallelism)
            skipped = 0
            if self.skips:
                skipped = sum(self.skips.count(e * steps, (e + 1) * steps) for e in epochs)
                skipped -= self.skips.count(first_step - before, first_step)
            control, length = None, len(epochs) * steps - before - skipped
        for change in (self._finish, map):
            if change is not None:
                made = made.map(change, num_parallel_calls=parallelism, deterministic=True)
        made = made.prefetch(self.options.prefetch)
        return wrapped(made, length * self.share.replicas, (control, plan.gate))

    @property
    def parallelism(self) -> int:
        """Windows that are made at the same time."""
        return self.options.parallelism or max(2, min(os.cpu_count() or 2, _PARALLELISM))

    def prepared(self) -> Plan:
        """What the graph captures, once the shards are there and the allocator is set.

        Raises:
            CorruptionError: if a shard is not as long as it was written.
            StorageError: if a shard is not there.
        """
        self._check_shards()
        allocator.keep_buffers()
        graph = importlib.import_module("tfstream.pipeline.graph")
        elements = graph.Elements(
            features=self.plan,
            packed=self.options.packed is True,
            label=self._label,
            weight=self._weight,
            padded=self._is_padded,
        )
        plan: Plan = graph.Plan(
            self.subset,
            self.spec,
            elements,
            layout=self.layout,
            skips=self.skips,
            share=self.share,
            gate=importlib.import_module("tfstream.pipeline.gate").gate_of(self),
        )
        return plan

    def speed(self, *, rows: int = 2_000_000) -> Speed:
        """Measure how fast batches come, and which stage takes the time.

        Args:
            rows: about how many rows each of the five measurements reads, twice.
        """
        made: Speed = importlib.import_module("tfstream.pipeline.stages").measure(self, rows)
        return made

    def dataset_for(
        self, context: tf.distribute.InputContext, *, epochs: range | None = None
    ) -> tf.data.Dataset:
        """This worker's batches for `strategy.distribute_datasets_from_function`.

        A step has one element for each replica of the worker, one after the other. TensorFlow's
        own sharding is off.

        Args:
            context: which worker it is, and how many replicas there are.
            epochs: as in `dataset`.

        Raises:
            UsageError: as `shard` and `dataset`.
        """
        pipelines = context.num_input_pipelines
        share = Share(
            index=context.input_pipeline_id,
            count=pipelines,
            replicas=context.num_replicas_in_sync // pipelines,
        )
        return importlib.import_module("tfstream.pipeline.dataset").unsharded(
            self._part(share).dataset(epochs=epochs)
        )

    def keras_inputs(self) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Keras inputs as a dict by name, and all features encoded by statistics, (batch, k).

        The statistics are those of this subset's rows; of items of lists and tensors, those of 16
        of its blocks. Numbers are normalised, with 0 and an indicator where a value is missing;
        codes and text are embedded, and values that the subset does not have share the embedding
        of the unseen; text without codes is hashed into as many bins as it has values, at most
        2^18. Of a list there is the mean of its items, so encoded, and how many there are.
        Where all features are packed, one input stands in place of the dict.

        Raises:
            UsageError: if a coded text cannot be kept by a Keras layer.
        """
        made: tuple[keras.KerasTensor, keras.KerasTensor] = importlib.import_module(
            "tfstream.pipeline.inputs"
        ).keras_inputs(self.subset, self.plan, packed=self.options.packed is True)
        return made

    def preprocessor(self) -> Preprocessor:
        """What this stream makes of its source's rows, to be a part of a model for serving.

        Raises:
            UsageError: if a coded text cannot be kept by a Keras layer.
        """
        made: Preprocessor = importlib.import_module("tfstream.pipeline.serving").preprocessor(
            self.subset.catalog, self.plan, packed=self.options.packed is True
        )
        return made

    @property
    def _finish(self) -> Callable[..., Any] | None:
        """What can only be done to a batch by itself; None if there is nothing."""
        if not any(f.padded and f.padded.length is None for f in self.plan):
            return None
        finished = importlib.import_module("tfstream.pipeline.lists").finished

        def finish(features: dict[str, Any], *others: Any) -> Any:  # noqa: ANN401 - tensors
            made = finished(features, self.plan)
            return (made, *others) if others else made

        return finish

    @cached_property
    def _places(self) -> Places:
        return Places(self.subset, self.spec, self.share)

    @property
    def _is_padded(self) -> bool:
        is_shared = self.share.count * self.share.replicas > 1
        return is_shared and self.options.remainder == "keep"

    def _part(self, share: Share) -> Stream:
        """The same stream, with a share of its own."""
        if self.share != WHOLE:
            raise UsageError("this stream is a share already; share the whole stream instead")
        share.check(self.spec)
        part = copy.copy(self)
        part.share = share
        for name in ("control", "position", "_places"):
            part.__dict__.pop(name, None)
        if part._is_padded and self._label is None:  # noqa: SLF001 - a stream as well
            raise UsageError(
                "several workers fill the last batch up with rows of weight 0, which need a label; "
                'name a label or set remainder="drop"'
            )
        return part

    def _check_shards(self) -> None:
        """Refuse shards that are missing or have another length, before training starts."""
        catalog = self.subset.catalog
        shards = np.unique(catalog.block_shard[self.subset.blocks])
        table = catalog.shards.select(["path", "size_bytes"]).take(shards).to_pydict()
        for name in table["path"]:
            refuse_links(catalog.folder, catalog.folder / name)
        try:
            sizes = storage.sizes(catalog.folder, table["path"])
        except StorageError as error:
            raise StorageError(f"{error}; restore the shard or convert again") from error
        for name, size, expected in zip(table["path"], sizes, table["size_bytes"], strict=True):
            if size != expected:
                raise CorruptionError(
                    f"the shard {catalog.folder / name} has {size} bytes, expected {expected}; "
                    "restore it or convert again"
                )
