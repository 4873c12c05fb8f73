"""A stream: the plan of the batches of a subset, and the dataset that follows it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from tfstream.errors import DataError, UsageError
from tfstream.format import expressions
from tfstream.format.places import Places
from tfstream.format.schema import Schema
from tfstream.format.subset import Subset
from tfstream.order import Spec
from tfstream.pipeline import features as feature_plans
from tfstream.pipeline.features import Feature, Nulls

if TYPE_CHECKING:
    import tensorflow as tf

    from tfstream.pipeline.control import Control

WINDOW_ROWS = 1 << 19
"""Rows of a window by default: with blocks of 512 rows its quality at batch 1,024 is below 1.5."""
WINDOW_BYTES = 256 << 20
"""Bytes that the blocks of a window may have by default, where rows are wide."""
STRETCHES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """How a stream shuffles, delivers and runs."""

    packed: bool = False
    """One float32 tensor (rows, features) in place of a dict by column."""
    shuffle: Literal["global", "none"] = "global"
    """"none": the order of the data set, in every epoch."""
    window_rows: int | None = None
    """Rows that are in memory together to be shuffled; a multiple of the batch size is made of it."""
    stretches: int | None = None
    """Parts of the epoch that are open at the same time; divides the batch size."""
    remainder: Literal["keep", "drop"] = "keep"
    """Whether the last rows of an epoch, fewer than a batch, come as a shorter batch."""
    null_label: Literal["error", "drop"] = "error"
    """What to do where rows have no label."""
    nulls: Mapping[str, Nulls] = field(default_factory=dict)
    """By column: "nan", "mask" (0, and a feature `<name>_missing`), or a number. By default NaN for floats and in a
    packed tensor, a mask for all other numbers."""
    parallelism: int | None = None
    """Windows that are prepared at the same time; 2 if None. Does not change the order."""
    prefetch: int = 16
    """Batches that wait ready. Does not change the order."""

    def __post_init__(self) -> None:
        """Refuse what no stream can be."""
        for name, allowed in {
            "shuffle": ("global", "none"),
            "remainder": ("keep", "drop"),
            "null_label": ("error", "drop"),
        }.items():
            if getattr(self, name) not in allowed:
                one, other = allowed
                raise UsageError(f'{name} is "{one}" or "{other}", not {getattr(self, name)!r}')
        for name in ("window_rows", "stretches", "parallelism", "prefetch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}")


class Stream:
    """Batches of a subset. Made by `Shards.stream`."""

    def __init__(
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
        """Plan the batches; reads blocks only where a label may be null."""
        schema = subset.catalog.schema
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {batch_size}")
        self.label_text, self.weight_text, self.options = label, weight, options
        self.label = expressions.parse(label) if label is not None else None
        used = () if self.label is None else expressions.columns(self.label)
        for name in (*used, *((weight,) if weight is not None else ())):
            _ = schema[name]
        if weight is not None and (schema[weight].is_text or schema[weight].nullable):
            raise UsageError(f"the weight {weight!r} must be a number without nulls")
        if self.label is not None:
            subset = _with_label(subset, str(label), used, options.null_label)
        if features is None:
            features = [name for name in schema.names if name not in (*used, weight)]
        self.subset = subset
        self.plan: tuple[Feature, ...] = feature_plans.plan(
            schema, features, options.nulls, packed=options.packed
        )
        self.spec = _spec(subset, batch_size, seed, options)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the feature columns."""
        return tuple(feature.name for feature in self.plan)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return self.spec.steps_per_epoch

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the spec, in hex: what is equal for two streams of the same order."""
        text = json.dumps(asdict(self.spec), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def row_ids(self, epoch: int, step: int) -> NDArray[Any]:
        """The rows of a step, in the order of the batch, computed without reading a shard.

        Args:
            epoch: 0-based.
            step: within the epoch.

        Returns:
            (rows,) int64.

        Raises:
            UsageError: if the epoch has no such step.
        """
        return self._places.rows_of(epoch, step)

    def dataset(self, *, epochs: range | None = None) -> tf.data.Dataset:
        """Batches as (features, label[, weight]), or features alone without a label.

        Each new iterator takes the next epoch, or the place where a `LineageCallback` says that training stands.

        Args:
            epochs: these epochs one after the other, from every iterator: a dataset without any state.

        Raises:
            UsageError: if the epochs are not a range of consecutive ones.
        """
        from tfstream.pipeline.graph import build  # noqa: PLC0415 - TensorFlow loads here

        if epochs is not None and (epochs.step != 1 or epochs.start < 0 or not len(epochs)):
            raise UsageError(f"epochs must be consecutive and from 0 on, such as range(3), got {epochs}")
        return build(self, epochs)

    def keras_inputs(self) -> tuple[Any, Any]:
        """Keras inputs for the features, and their encoding from the statistics of this subset.

        Numbers are normalised, with an indicator where they can be missing; strings are embedded, those that the
        subset has not as unseen. Plain Keras layers: a saved model loads without tfstream.

        Returns:
            The inputs (a dict by feature, or one where packed) and a KerasTensor (batch, width) float32.
        """
        from tfstream.pipeline.inputs import keras_inputs  # noqa: PLC0415 - Keras loads here

        return keras_inputs(self)

    @cached_property
    def control(self) -> Control:
        """What a callback steers the datasets of this stream with."""
        from tfstream.pipeline.control import Control  # noqa: PLC0415 - TensorFlow loads here

        return Control(self.steps_per_epoch)

    @cached_property
    def schema(self) -> Schema:
        """The columns of the data set."""
        return self.subset.catalog.schema

    @cached_property
    def _places(self) -> Places:
        return Places(self.subset, self.spec)


def _with_label(
    subset: Subset, label: str, used: Sequence[str], null_label: Literal["error", "drop"]
) -> Subset:
    """The rows that have a label."""
    schema = subset.catalog.schema
    if not any(schema[name].nullable or schema[name].coded for name in used):
        return subset
    kept = subset.where(f"({label}) is not null")
    nulls = subset.rows - kept.rows
    if not nulls:
        return subset
    if null_label == "error":
        raise DataError(
            f'the label {label} is null in {nulls} of {subset.rows} rows; use null_label="drop" to leave '
            "them out, or a condition that keeps the others"
        )
    return kept


def _spec(subset: Subset, batch_size: int, seed: int, options: StreamOptions) -> Spec:
    stretches = options.stretches
    if stretches is None:
        stretches = 1 if options.shuffle == "none" else math.gcd(STRETCHES, batch_size)
    full_steps = max(subset.rows // batch_size, 1)
    if options.window_rows is not None:
        steps = max(options.window_rows // batch_size, 1)
    else:
        catalog = subset.catalog
        read = int(catalog.block_size[subset.blocks].sum())
        # Blocks are read whole, so what counts for memory is the rows read, not those kept.
        share = subset.rows / max(int(catalog.block_rows[subset.blocks].sum()), 1)
        rows = min(WINDOW_ROWS * share, WINDOW_BYTES * subset.rows / max(read, 1))
        most = max(int(rows) // batch_size, 1)
        # Windows of nearly equal length, rather than a short one at the end that mixes little.
        steps = -(-full_steps // -(-full_steps // most))
    return Spec(
        subset=subset.digest,
        rows=subset.rows,
        blocks=len(subset.blocks),
        batch_size=batch_size,
        remainder=options.remainder,
        shuffle=options.shuffle,
        window_steps=min(steps, full_steps),
        stretches=stretches,
        seed=int(seed),
    )
