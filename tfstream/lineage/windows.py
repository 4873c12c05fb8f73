"""The windows of a training: when each was asked for, and what is to be logged of it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol

import numpy as np

from tfstream.lineage import tally
from tfstream.lineage.records import WindowShards
from tfstream.order import Spec


class Entry(tally.Entry, Protocol):
    """What the pipeline says of one window of one iterator."""

    @property
    def epoch(self) -> int:
        """0-based."""

    @property
    def window(self) -> int:
        """0-based within the epoch."""

    @property
    def blocks(self) -> np.ndarray:
        """(reads,) int64: ordinals of the data set's blocks that were read."""

    @property
    def ready_s(self) -> float:
        """When its batches were there, in seconds since 1970."""


class Windows:
    """Those of one attempt, until they are logged."""

    def __init__(self, spec: Spec, block_shard: np.ndarray) -> None:
        """Nothing is asked for yet.

        Args:
            spec: of the stream.
            block_shard: (blocks,) int64: the ordinal of each block's shard.
        """
        self._spec, self._block_shard = spec, block_shard
        self._asked: dict[tuple[int, int], float] = {}
        self._logged: set[tuple[int, int]] = set()
        self._stop = -1

    def ask(self, step: int, logged: int) -> None:
        """Note when a window is asked for, if this step of the run is the first that wants it.

        Args:
            step: that training wants next.
            logged: steps of the run that are written down; one before them was gone back to.
        """
        if logged <= step < self._stop:
            return
        spec = self._spec
        epoch, in_epoch = divmod(step, spec.steps_per_epoch)
        window, place = spec.window_of(in_epoch)
        self._asked[epoch, window] = time.time()
        is_full = in_epoch < spec.full_steps
        last = (
            min(in_epoch - place + spec.window_steps, spec.full_steps) if is_full else in_epoch + 1
        )
        self._stop = epoch * spec.steps_per_epoch + last

    def take(self, entries: Iterable[Entry], start: int, stop: int) -> list[WindowShards]:
        """The windows with a step from `start` to `stop` that were not taken yet."""
        found = []
        for entry in entries:
            key = (entry.epoch, entry.window)
            is_new = key not in self._logged
            if is_new and entry.steps[0] < stop and entry.steps[-1] >= start:
                self._logged.add(key)
                found.append(
                    WindowShards(
                        epoch=entry.epoch,
                        window=entry.window,
                        shards=np.unique(self._block_shard[entry.blocks]),
                        asked_s=self._asked.pop(key, entry.ready_s),
                        ready_s=entry.ready_s,
                    )
                )
        return found
