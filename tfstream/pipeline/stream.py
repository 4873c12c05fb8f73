"""A stream: batches of a subset in an order that is a function of a few numbers."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from tfstream.errors import CorruptionError, StorageError, UsageError
from tfstream.format import expressions
from tfstream.format.places import Places
from tfstream.format.subset import Subset
from tfstream.order import Spec
from tfstream.pipeline import allocator
from tfstream.pipeline import features as featuring
from tfstream.pipeline import label as labelling
from tfstream.pipeline.features import NullPolicy

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from tfstream.pipeline.control import Control

_WINDOW_ROWS = 1 << 19
_WINDOW_BYTES = 256 << 20
_ORDERED_WINDOW_ROWS = 1 << 16
"""Without a shuffle nothing is gained by more, but the first batch waits for it."""
_STRETCHES = 8
_PARALLELISM = 4
"""Windows that are made at the same time by default, at most: each is in memory."""

_Shuffle = Literal["global", "none"]
_Remainder = Literal["keep", "drop"]
_NullLabel = Literal["error", "drop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """How a stream delivers. `packed`, `nulls` and the last two leave the rows of a step alone."""

    packed: bool = False
    """Whether the features are one tensor (batch, k) float32 instead of a dict by column."""
    shuffle: _Shuffle = "global"
    """"none": in the order of the data set."""
    window_rows: int | None = None
    """Rows that are permuted together; by default 2^19, or what takes 256 MiB if that is less."""
    stretches: int | None = None
    """Equal parts of the epoch that are open at the same time; divides the batch size. By default
    the greatest common divisor of 8 and the batch size."""
    remainder: _Remainder = "keep"
    """Whether the last rows of an epoch, fewer than a batch, are a batch."""
    null_label: _NullLabel = "error"
    """Whether rows without a label are refused or left out."""
    nulls: Mapping[str, NullPolicy] = field(default_factory=dict)
    """For a feature: "nan" (becomes float), "mask" (0 and a feature <name>_missing), a number."""
    parallelism: int | None = None
    """Windows that are made at the same time; by default the number of cores, from 2 to 4."""
    prefetch: int = 16
    """Batches that are ready ahead of training."""

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            UsageError: with the name of the option.
        """
        choices = {"shuffle": _Shuffle, "remainder": _Remainder, "null_label": _NullLabel}
        for name, allowed in choices.items():
            if (value := getattr(self, name)) not in get_args(allowed):
                raise UsageError(f"{name} must be one of {get_args(allowed)}, got {value!r}")
        for name in ("window_rows", "stretches", "parallelism", "prefetch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}")
        if self.shuffle == "none" and self.stretches not in (None, 1):
            raise UsageError('shuffle="none" keeps one order, so stretches must be 1; leave it out')


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
        self.plan = featuring.plan(catalog, self.features, options.nulls, packed=options.packed)
        self.label_text, self.weight_text, self.options = label, weight, options
        if label is not None:
            subset = labelling.without_nulls(subset, label, options.null_label)
        if weight is not None:
            labelling.check_weights(subset, weight)
        self.subset = subset
        self.spec = _spec(subset, batch_size, seed, options)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return self.spec.steps_per_epoch

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the spec, in hex: with the same, the same rows are in the same steps."""
        text = json.dumps(asdict(self.spec), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def row_ids(self, epoch: int, step: int) -> np.ndarray:
        """Row ids of a step of an epoch, in the order of the batch; (rows,) int64. No TensorFlow.

        Raises:
            UsageError: if the epoch has no such step.
        """
        return self._places.rows_of(epoch, step)

    @cached_property
    def control(self) -> Control:
        """What the callback and the datasets of this stream share."""
        made: Control = importlib.import_module("tfstream.pipeline.control").Control(
            self.steps_per_epoch
        )
        return made

    def dataset(self, *, epochs: range | None = None) -> tf.data.Dataset:
        """The batches: (features, label[, weight]), or features alone without a label.

        Without `epochs` each new iterator takes the next epoch, or goes on where the
        `LineageCallback` of a fit says that training stands.

        Args:
            epochs: these epochs, one after the other, in a dataset without any state.

        Raises:
            UsageError: if `epochs` has a negative number or none.
            CorruptionError: if a shard is not as long as it was written.
            StorageError: if a shard is not there.
        """
        if epochs is not None and (not len(epochs) or min(epochs) < 0):
            raise UsageError(
                f"epochs must be a range of at least one epoch from 0 on, got {epochs}"
            )
        self._check_shards()
        allocator.keep_buffers()
        graph = importlib.import_module("tfstream.pipeline.graph")
        wrapped = importlib.import_module("tfstream.pipeline.dataset").StreamDataset
        elements = graph.Elements(
            features=self.plan,
            packed=self.options.packed,
            label=self._label,
            weight=self._weight,
        )
        cores = os.cpu_count() or 2
        parallelism = self.options.parallelism or max(2, min(cores, _PARALLELISM))
        plan = graph.Plan(self.subset, self.spec, elements)
        if epochs is None:
            made = graph.batches(plan, self.control, parallelism=parallelism)
            control, passes = self.control, 1
        else:
            made = graph.stateless_batches(plan, epochs, parallelism=parallelism)
            control, passes = None, len(epochs)
        made = made.prefetch(self.options.prefetch)
        return wrapped(made, passes * self.steps_per_epoch, control)

    def keras_inputs(self) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Keras inputs as a dict by name, and all features encoded by statistics, (batch, k).

        The statistics are those of this subset's groups. Numbers are normalised, with 0 and an
        indicator where a value is missing; codes are embedded; values that the subset's groups do
        not have share the embedding of the unseen.
        Packed features are one input, which stands in place of the dict.

        Raises:
            UsageError: if a feature is uncoded text.
        """
        made: tuple[keras.KerasTensor, keras.KerasTensor] = importlib.import_module(
            "tfstream.pipeline.inputs"
        ).keras_inputs(self.subset, self.plan, packed=self.options.packed)
        return made

    @cached_property
    def _places(self) -> Places:
        return Places(self.subset, self.spec)

    def _check_shards(self) -> None:
        """Refuse shards that are missing or have another length, before training starts."""
        catalog = self.subset.catalog
        sizes = catalog.shards["size_bytes"].to_numpy()
        for shard in np.unique(catalog.block_shard[self.subset.blocks]):
            path = catalog.shard_path(int(shard))
            try:
                found = path.stat().st_size
            except OSError as error:
                raise StorageError(
                    f"cannot read the shard {path}: {error.strerror or error}; "
                    "restore it or convert again"
                ) from error
            if found != sizes[shard]:
                raise CorruptionError(
                    f"the shard {path} has {found} bytes, expected {sizes[shard]}; "
                    "restore it or convert again"
                )


def _spec(subset: Subset, batch_size: int, seed: int, options: StreamOptions) -> Spec:
    """The order, with its defaults filled in."""
    global_ = options.shuffle == "global"
    stretches = options.stretches or (math.gcd(_STRETCHES, batch_size) if global_ else 1)
    return Spec(
        subset=subset.digest,
        rows=subset.rows,
        blocks=len(subset.blocks),
        batch_size=batch_size,
        remainder=options.remainder,
        shuffle=options.shuffle,
        window_steps=window_steps(
            subset.rows // batch_size,
            batch_size,
            options.window_rows or _window_rows(subset, options),
        ),
        stretches=stretches,
        seed=seed,
    )


def window_steps(full_steps: int, batch_size: int, rows: int) -> int:
    """Steps of a window of at most `rows` rows, for windows of an epoch that are about equal."""
    most = max(1, rows // batch_size)
    return math.ceil(full_steps / math.ceil(full_steps / most)) if full_steps else 1


def _window_rows(subset: Subset, options: StreamOptions) -> int:
    """Rows of a window by default: what its blocks take in memory is bounded."""
    catalog = subset.catalog
    read = int(catalog.block_rows[subset.blocks].sum())
    if not read:
        return 1
    row_bytes = max(1, int(catalog.block_size[subset.blocks].sum()) // read)
    most = _WINDOW_ROWS if options.shuffle == "global" else _ORDERED_WINDOW_ROWS
    return min(most, _WINDOW_BYTES // row_bytes) * subset.rows // read
