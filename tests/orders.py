"""Orders as plain arrays, and specs to try them on."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tfstream.order import NUMPY, Spec, Window, epoch_of, window_of


def spec_of(kept: np.ndarray, **changes: object) -> Spec:
    """A spec for blocks that keep these rows, with some numbers of one's own."""
    numbers: dict[str, Any] = {
        "subset": "a" * 64,
        "rows": int(kept.sum()),
        "blocks": len(kept),
        "batch_size": 8,
        "remainder": "keep",
        "shuffle": "global",
        "window_steps": 3,
        "stretches": 2,
        "seed": 7,
    }
    return Spec(**numbers | changes)


def windows_of(spec: Spec, kept: np.ndarray, epoch: int) -> Iterator[Window]:
    """The windows of an epoch, by numpy."""
    sequence = epoch_of(NUMPY, spec, kept, epoch)
    for window in range(spec.windows_per_epoch):
        yield window_of(NUMPY, spec, sequence, epoch, window)


def batches_of(kept: np.ndarray, window: Window) -> list[np.ndarray]:
    """The batches of a window, as rows of the subset: its kept rows are counted from 0."""
    starts = np.cumsum(kept) - kept
    read = np.concatenate([starts[block] + np.arange(kept[block]) for block in window.blocks])
    return list(read[window.picks])


def epoch_batches(spec: Spec, kept: np.ndarray, epoch: int) -> list[np.ndarray]:
    """The batches of an epoch, as rows of the subset."""
    return [b for window in windows_of(spec, kept, epoch) for b in batches_of(kept, window)]


SEEDS = st.integers(0, 2**63 - 1)
EPOCHS = st.integers(0, 2**40)


@st.composite
def specs(draw: st.DrawFn) -> tuple[Spec, np.ndarray]:
    """Any order of a few rows: batches below and above a block, windows of a step and of all."""
    kept = np.array(draw(st.lists(st.integers(1, 60), min_size=1, max_size=30)), np.int64)
    shuffle = draw(st.sampled_from(["global", "none"]))
    stretches = draw(st.integers(1, 8)) if shuffle == "global" else 1
    batch_size = stretches * draw(st.integers(1, 12))
    remainders = ["keep", "drop"] if kept.sum() >= batch_size else ["keep"]
    spec = spec_of(
        kept,
        batch_size=batch_size,
        remainder=draw(st.sampled_from(remainders)),
        shuffle=shuffle,
        window_steps=draw(st.integers(1, 12)),
        stretches=stretches,
        seed=draw(SEEDS),
    )
    return spec, kept
