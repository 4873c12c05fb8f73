"""The gate before the windows of a remote data set: each waits until its blocks are here.

The graph says which windows of an epoch it is going to read; a thread has their blocks fetched in
that order and puts an entry a window into a queue of that pass. There is no Python in the graph.
"""

from __future__ import annotations

import atexit
import logging
import threading
import uuid
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfstream import order
from tfstream.errors import StorageError
from tfstream.format.block_cache import BlockCache, default_folder
from tfstream.format.places import Places
from tfstream.order import Spec
from tfstream.pipeline import direct
from tfstream.remote_path import RemotePath
from tfstream.skips import Skips

if TYPE_CHECKING:
    from tfstream.pipeline.stream import Stream

Tensor = Any
_log = logging.getLogger(__name__)

_SLOTS = 8
"""Passes that may go on at the same time; of more, the oldest is an error."""
_READY = 2
"""Windows that are ready and not taken; one more is being fetched."""
_POLL_S = 0.01
_FAILED = -1
_NAME = (
    "a dataset over a data set behind a URL is read by the process that made it and holds it, not "
    "by a tf.data service; copy the data set to a disk that all workers have"
)
"""Of the queue that a pass asks first: TensorFlow tells it where the queue is not found."""


class Gate:
    """One for a graph; its passes are numbered from 0 on."""

    def __init__(
        self,
        places: Places,
        cache: BlockCache,
        *,
        is_skipped: Callable[[int, int], bool],
        parallelism: int,
    ) -> None:
        """Begin to listen.

        Args:
            places: which blocks a window reads.
            cache: where they come from; closed some time after the gate is gone.
            is_skipped: whether all steps of an epoch's window are left out, so that it is not read.
            parallelism: windows that the graph makes at the same time.
        """
        self.folder = str(cache.used)
        self._next = tf.Variable(0, dtype=tf.int64, trainable=False, name="passes")
        name = f"{_NAME} ({uuid.uuid4().hex})"
        # `FIFOQueue` takes no name of its own while TensorFlow is eager.
        asked = tf.raw_ops.FIFOQueueV2(
            component_types=[tf.int64], shapes=[[4]], capacity=1 << 20, shared_name=name
        )
        self._asked = tf.queue.QueueBase([tf.int64], [tf.TensorShape([4])], None, asked)
        self._ready = [
            tf.queue.FIFOQueue(_READY, [tf.int64, tf.int64, tf.string], [[], [], []])
            for _ in range(_SLOTS)
        ]
        serving = _Serving(places, cache, self._asked, self._ready, is_skipped, parallelism)
        # Not waited for: whichever thread drops the gate may be one that its own threads wait for.
        weakref.finalize(self, serving.stop).atexit = False
        serving.start()

    def ask(self, epoch: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """In the graph: the number of a new pass over the windows from `low` to `high`."""
        number = self._next.assign_add(1, read_value=True) - 1
        with tf.control_dependencies([self._asked.enqueue([tf.stack([number, epoch, low, high])])]):
            return tf.identity(number)

    def wait(self, number: Tensor, window: Tensor) -> Tensor:
        """In the graph: the window, once its blocks are in `folder_of`; ascending.

        A window that is not asked for, as after a restored checkpoint, is passed over.
        """
        takes = [queue.dequeue for queue in self._ready]

        def take() -> tuple[Tensor, ...]:
            return tuple(tf.switch_case(tf.cast(number % _SLOTS, tf.int32), takes))

        def is_before(found: Tensor, ready: Tensor, _: Tensor) -> Tensor:
            # A pass that was given up may have left entries in its queue.
            is_passed = (ready != _FAILED) & (ready < window)
            return (found < number) | ((found == number) & is_passed)

        found, ready, message = tf.while_loop(is_before, lambda *_: take(), take())
        failed = tf.debugging.Assert(ready != _FAILED, [message])
        with tf.control_dependencies([failed]):
            ours = tf.debugging.Assert(
                (found == number) & (ready == window),
                [f"more than {_SLOTS} iterators over this dataset at once; make another dataset"],
            )
        with tf.control_dependencies([ours]):
            return tf.identity(window)

    def folder_of(self, number: Tensor, window: Tensor) -> Tensor:
        """In the graph: where the blocks of a window lie for a pass, () string."""
        text = tf.strings.as_string
        return tf.strings.join([self.folder, "/", text(number), "-", text(window)])


_LEFT: list[Any] = []
"""Closed queues of gates that are gone. In `QueueBase::Cancel` TensorFlow uses a queue after the
callback of a waiting operation, which may have given up the last reference to it: a queue that is
destroyed while an iterator can still wait for it ends the process."""


class _Serving:
    """What the threads share; it must not hold the gate, which ends them."""

    def __init__(  # noqa: PLR0913, PLR0917 - the gate's own parts
        self,
        places: Places,
        cache: BlockCache,
        asked: Any,  # noqa: ANN401 - a queue
        ready: list[Any],
        is_skipped: Callable[[int, int], bool],
        parallelism: int,
    ) -> None:
        self._places, self._cache, self._asked, self._ready = places, cache, asked, ready
        self._is_skipped, self._parallelism = is_skipped, parallelism
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="tfstream-gate", daemon=True)
        self._passes: dict[int, tuple[threading.Event, threading.Thread]] = {}

    def start(self) -> None:
        atexit.register(self._wait)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _wait(self) -> None:
        self.stop()
        self._thread.join()

    def _listen(self) -> None:
        try:
            while not self._stopped.wait(_POLL_S):
                while int(self._asked.size()):
                    number, epoch, low, high = (int(value) for value in self._asked.dequeue())
                    self._end(number % _SLOTS)
                    over = threading.Event()
                    thread = threading.Thread(
                        target=self._serve,
                        args=(number, epoch, range(low, high + 1), over),
                        daemon=True,
                    )
                    self._passes[number % _SLOTS] = over, thread
                    thread.start()
        finally:
            # An iterator that still waits gets an error instead of waiting for ever.
            for queue in (self._asked, *self._ready):
                queue.close()
                _LEFT.append(queue)
            for slot in list(self._passes):
                self._end(slot)
            self._cache.close()
            atexit.unregister(self._wait)

    def _end(self, slot: int) -> None:
        """End the pass that has a slot."""
        if slot in self._passes:
            over, thread = self._passes.pop(slot)
            over.set()
            thread.join()

    def _serve(self, number: int, epoch: int, windows: range, over: threading.Event) -> None:
        # Once a window is put, all but `_READY` before it are taken, and the graph makes no more
        # than `parallelism` of those at a time: what came before them is read. The first and the
        # last window may be skipped for where the pass starts and stops.
        lag = _READY + self._parallelism + 3
        out: deque[int] = deque()
        try:
            for window in windows:
                if not self._is_skipped(epoch, window):
                    name = f"{number}-{window}"
                    self._cache.hand_out(self._places.reads(epoch, window), name)
                    out.append(window)
                if not self._put(number, window, "", over):
                    break
                if len(out) > lag:
                    self._cache.take_back(f"{number}-{out.popleft()}")
        except Exception as error:  # noqa: BLE001 - the iterator raises it
            self._put(number, _FAILED, f"{type(error).__name__}: {error}", over)
        # The last windows are read while nothing more is asked for.
        over.wait()
        for window in out:
            self._cache.take_back(f"{number}-{window}")

    def _put(self, number: int, window: int, message: str, over: threading.Event) -> bool:
        queue = self._ready[number % _SLOTS]
        while int(queue.size()) >= _READY:
            if over.wait(_POLL_S):
                return False
        try:
            queue.enqueue([tf.constant(number, tf.int64), tf.constant(window, tf.int64), message])
        except tf.errors.CancelledError:
            # The queue is closed: nobody waits any more.
            return False
        return True


def gate_of(stream: Stream) -> Gate | None:
    """The gate of a stream's next graph; None for a data set that TensorFlow reads in place.

    Raises:
        StorageError: if the folder for blocks cannot be written.
    """
    catalog, options = stream.subset.catalog, stream.options
    if not isinstance(catalog.folder, RemotePath) or options.storage == "direct":
        return None
    folder = Path(options.cache or default_folder()).absolute()
    try:
        blocks = BlockCache(catalog, folder, options.cache_bytes, stream.subset.blocks)
    except StorageError as error:
        reason = direct.refusal(catalog.folder)
        if options.storage == "cache" or reason:
            raise
        _log.warning("%s is read in place by TensorFlow, since %s", catalog.folder, error)
        return None
    _log.info(
        "%s is read through %s, where its blocks are checked and kept", catalog.folder, folder
    )
    return Gate(
        Places(stream.subset, stream.spec, stream.share),
        blocks,
        is_skipped=partial(_is_skipped, stream.spec, stream.skips),
        parallelism=stream.parallelism,
    )


def _is_skipped(spec: Spec, skips: Skips, epoch: int, window: int) -> bool:
    """Whether all steps of a window are left out."""
    first = int(order.first_step_of(order.NUMPY, spec, np.int64(window)))
    steps = 1
    if window < spec.full_windows:
        steps = min(spec.full_steps - first, spec.window_steps)
    first += epoch * spec.steps_per_epoch
    return bool(skips) and skips.count(first, first + steps) == steps
