"""How well an order shuffles, computed from the plan."""

import numpy as np
import pytest

from tests.orders import spec_of, windows_of
from tfstream.order import Spec

BATCH_SIZE = 1024
GROUPS = 365
GROUP_BLOCKS = np.array([499] * 21 + [480], np.int64)
"""10,959 rows in 22 near-equal blocks."""


def quality(spec: Spec, kept: np.ndarray, groups: np.ndarray, epoch: int) -> float:
    """The shuffle's quality over the full batches of an epoch; 1 is that of uniform draws.

    A group effect is one independent value a group, of mean 0 and variance 1. A batch with a share
    b of its rows in a group that has a share w of all rows is then off by sum((b - w) · effect), of
    variance sum((b - w)²). Under uniform draws of B of N rows without replacement the expectation
    of that is sum(w (1 - w)) / B · (N - B) / (N - 1). The quality is the square root of the ratio:
    exact, without drawing effects.

    Args:
        spec: the order's numbers.
        kept: (blocks,) rows kept of each block.
        groups: (blocks,) the group of each, 0-based.
        epoch: 0-based.
    """
    size = int(groups[-1]) + 1
    share = np.bincount(groups, weights=kept) / spec.rows
    deviations = []
    for window in windows_of(spec, kept, epoch):
        if window.picks.shape[1] < spec.batch_size:
            continue
        places = np.repeat(groups[window.blocks], kept[window.blocks])
        steps = np.arange(len(window.picks))[:, None]
        cells = np.bincount(
            (steps * size + places[window.picks]).ravel(), minlength=len(steps) * size
        )
        deviations.append(((cells.reshape(-1, size) / spec.batch_size - share) ** 2).sum(1))
    without_replacement = (spec.rows - spec.batch_size) / (spec.rows - 1)
    uniform = (share * (1 - share)).sum() / spec.batch_size * without_replacement
    return float(np.sqrt(np.concatenate(deviations).mean() / uniform))


def test_the_quality_of_whole_epochs_in_a_window_is_one() -> None:
    """Where one window is the epoch, batches are uniform draws."""
    kept = np.full(200, 500, np.int64)
    spec = spec_of(kept, batch_size=200, window_steps=500, stretches=1)
    assert quality(spec, kept, np.arange(200) // 5, 0) == pytest.approx(1, abs=0.02)


def test_the_quality_of_the_manifest_is_the_worst() -> None:
    """In the manifest's order a batch is one group: as if a single row had been drawn."""
    kept = np.full(200, 500, np.int64)
    spec = spec_of(kept, batch_size=500, shuffle="none", stretches=1)
    worst = np.sqrt(500 * (spec.rows - 1) / (spec.rows - 500))
    assert quality(spec, kept, np.arange(200) // 5, 0) == pytest.approx(worst)


@pytest.mark.parametrize("epoch", range(3))
def test_the_default_window_mixes_long_groups(epoch: int) -> None:
    """At most 1.5 at batches of 1,024, on 365 groups of 10,959 rows, which is the promise."""
    kept = np.tile(GROUP_BLOCKS, GROUPS)
    groups = np.repeat(np.arange(GROUPS), len(GROUP_BLOCKS))
    spec = spec_of(kept, batch_size=BATCH_SIZE, window_steps=489, stretches=8)
    assert spec.rows == GROUPS * 10_959
    assert quality(spec, kept, groups, epoch) <= 1.5
