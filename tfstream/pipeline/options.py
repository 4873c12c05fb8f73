"""How a stream delivers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from tfstream.errors import UsageError
from tfstream.pipeline.features import NullPolicy, StringForm
from tfstream.pipeline.padding import Padded
from tfstream.skips import Skips

_Shuffle = Literal["global", "shards", "none"]
_Batches = Literal["mixed", "group"]
_Remainder = Literal["keep", "drop"]
_NullLabel = Literal["error", "drop"]
_Storage = Literal["auto", "cache", "direct"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """How a stream delivers. `packed`, and from `nulls` on, all leave each step its rows."""

    packed: bool | Sequence[str] = False
    """True: the features are one tensor (batch, k) float32 instead of a dict by column. Columns:
    these are such a tensor, the feature "packed" of the dict, and the others are beside it."""
    shuffle: _Shuffle = "global"
    """"global": blocks are permuted, and rows in windows. "shards": shards are, and the blocks of a
    shard are read one after the other, for storage that is slow at random; as many shards are open
    as there are stretches. "none": in the order of the data set."""
    batches: _Batches = "mixed"
    """"group": all rows of a batch are of one group. The last rows of each group are a shorter
    batch at the end of the epoch, or dropped, by `remainder`."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """How often an epoch has the rows of a group that fulfils a condition over keys, the first one
    that it fulfils; else once. 2.4: twice, and 0.4 of the rows once more, others each epoch."""
    window_rows: int | None = None
    """Rows that are permuted together; by default 2^20, or what takes 256 MiB if that is less."""
    window_bytes: int | None = None
    """The same in bytes as they are stored, in place of `window_rows`."""
    stretches: int | None = None
    """Equal parts of the epoch that are open at the same time; divides the batch size. By default
    the greatest common divisor of 8 and the batch size."""
    remainder: _Remainder = "keep"
    """Whether the last rows of an epoch, fewer than a batch, are a batch."""
    null_label: _NullLabel = "error"
    """Whether rows without a label are refused or left out."""
    nulls: Mapping[str, NullPolicy] = field(default_factory=dict)
    """For a feature: "nan" (becomes float), "mask" (0 and a feature <name>_missing), a number."""
    padded: Mapping[str, Padded] = field(default_factory=dict)
    """For a list: how it becomes a tensor; others are ragged."""
    strings: Mapping[str, StringForm] = field(default_factory=dict)
    """For a text with codes: "text" delivers it as `tf.string`."""
    parallelism: int | None = None
    """Windows that are made at the same time; by default the number of cores, from 2 to 4."""
    prefetch: int = 16
    """Batches that are ready ahead of training."""
    storage: _Storage = "auto"
    """How a data set behind a URL is read. "cache": its blocks are fetched ahead into a folder on
    this machine, checked and kept. "direct": TensorFlow reads them in place, anew each epoch, with
    the extra `io`. "auto": the first, unless the folder cannot be had; a log line says which."""
    cache: str | os.PathLike[str] | None = None
    """Folder on this machine into which the blocks of a data set behind a URL are fetched, shared
    by all processes; by default TFSTREAM_CACHE, or `tfstream` in the user's folder for caches."""
    cache_bytes: int = 32 << 30
    """Bytes of blocks that the folder keeps; the least recently used go first. The windows that are
    being read come on top."""
    skip_steps: Sequence[int | range] = ()
    """Steps of the run that are left out, by number or range. The others keep their numbers and
    rows, so an epoch has fewer batches, and cursors from before hold."""

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            UsageError: with the name of the option.
        """
        choices = {
            "shuffle": _Shuffle,
            "batches": _Batches,
            "remainder": _Remainder,
            "null_label": _NullLabel,
            "storage": _Storage,
        }
        for name, allowed in choices.items():
            if (value := getattr(self, name)) not in get_args(allowed):
                raise UsageError(f"{name} must be one of {get_args(allowed)}, got {value!r}")
        for name in (
            "window_rows",
            "window_bytes",
            "stretches",
            "parallelism",
            "prefetch",
            "cache_bytes",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}")
        if self.window_rows is not None and self.window_bytes is not None:
            raise UsageError("give window_rows or window_bytes, not both")
        Skips.of(self.skip_steps)
        if self.shuffle == "none" and self.stretches not in (None, 1):
            raise UsageError('shuffle="none" keeps one order, so stretches must be 1; leave it out')
        if self.batches == "group" and self.stretches not in (None, 1):
            raise UsageError('batches="group" has no stretches; leave them out')
