"""How well an order shuffles, computed from the plan."""

from typing import Any

import numpy as np
import pytest

from tests.layouts import groups_of, laid_out, subset_of
from tests.orders import spec_of, windows_of
from tfstream.format.places import Places
from tfstream.format.quality import quality_of
from tfstream.order import Spec
from tfstream.pipeline import ordering
from tfstream.pipeline.options import StreamOptions

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


SIMULATED: dict[str, dict[str, Any]] = {
    "global": {"stretches": 4},
    "shards": {"shuffle": "shards", "stretches": 4},
    "none": {"shuffle": "none"},
    "group": {"batches": "group"},
    "weights": {"stretches": 2, "weights": (("g < 10", 2.5),)},
}


@pytest.mark.parametrize("name", SIMULATED)
def test_the_quality_of_a_plan_is_that_of_its_batches(name: str) -> None:
    """Squares over 12 epochs, computed from the plan and counted in actual batches."""
    subset = subset_of([137] * 30 + [3] * 50, [20] * 213, [9] * 23 + [6])
    spec, layout = laid_out(subset, batch_size=40, window_steps=15, **SIMULATED[name])
    group, places = groups_of(subset), Places(subset, spec)
    counted, computed = [], []
    for epoch in range(12):
        steps = [places.rows_of(epoch, step) for step in range(spec.steps_per_epoch)]
        every = np.concatenate(steps)
        share = np.bincount(group[every], minlength=80) / len(every)
        off = [
            ((np.bincount(group[rows], minlength=80) / 40 - share) ** 2).sum()
            for rows in steps[: spec.full_steps]
        ]
        uniform = (share * (1 - share)).sum() / 40 * (spec.rows - 40) / (spec.rows - 1)
        counted.append(np.mean(off) / uniform)
        computed.append(quality_of(subset, spec, layout, epoch) ** 2)
    assert np.sqrt(np.mean(counted)) == pytest.approx(np.sqrt(np.mean(computed)), rel=0.02)


def test_a_plan_without_groups_to_mix_is_perfect() -> None:
    """One group, or one batch an epoch."""
    for groups, batch_size in (([100], 10), ([50, 50], 100)):
        subset = subset_of(groups, [10] * 10, [10])
        spec, layout = laid_out(subset, batch_size=batch_size)
        assert quality_of(subset, spec, layout, 0) == 1


@pytest.mark.parametrize("epoch", range(3))
def test_the_default_shuffle_is_near_uniform(epoch: int) -> None:
    """At most 1.25 at batches of 1,024, on 365 groups of 10,959 rows of 137 bytes and on flights."""
    long = subset_of([10_959] * GROUPS, GROUP_BLOCKS.tolist() * GROUPS, [22] * GROUPS)
    flights = subset_of([922] * GROUPS, [461, 461] * GROUPS, [2] * GROUPS)
    for subset in (long, flights):
        subset.catalog.block_size = subset.catalog.block_rows * 137
        spec = ordering.spec_of(subset, None, BATCH_SIZE, 7, StreamOptions())
        assert quality_of(subset, spec, None, epoch) <= 1.25
