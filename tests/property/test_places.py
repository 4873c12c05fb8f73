"""Rows of steps and steps of rows are each other's inverse."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfstream.errors import UsageError
from tfstream.format.places import Places, windows_of
from tfstream.format.recipe import Without
from tfstream.format.subset import Subset
from tfstream.order import Spec


@st.composite
def places(draw: st.DrawFn) -> tuple[Subset, Spec, Places]:
    """Some blocks, some of them partly kept, and an order over them."""
    rows = np.array(draw(st.lists(st.integers(1, 9), min_size=1, max_size=12)))
    catalog = SimpleNamespace(
        manifest=SimpleNamespace(forgotten=()),
        block_rows=rows,
        block_first=np.cumsum(rows) - rows,
        digest="d",
        rows=int(rows.sum()),
    )
    keep = [
        np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool) for n in rows.tolist()
    ]
    if not any(mask.any() for mask in keep):
        keep[0][0] = True
    subset = Subset.whole(catalog).without(
        Without.of([(i, i + 1) for i in np.flatnonzero(~np.concatenate(keep)).tolist()])
    )
    shuffle = draw(st.sampled_from(["global", "none"]))
    stretches = draw(st.integers(1, 3)) if shuffle == "global" else 1
    spec = Spec(
        subset=subset.digest,
        rows=subset.rows,
        blocks=len(subset.blocks),
        batch_size=stretches * draw(st.integers(1, 4)),
        remainder="keep",
        shuffle=shuffle,
        window_steps=draw(st.integers(1, 5)),
        stretches=stretches,
        seed=draw(st.integers(0, 2**63 - 1)),
    )
    return subset, spec, Places(subset, spec)


@given(places(), st.integers(0, 5))
def test_every_kept_row_has_one_step_and_that_step_has_it(
    case: tuple[Subset, Spec, Places], epoch: int
) -> None:
    """An epoch is a permutation of the subset's rows, and looking rows up undoes it."""
    subset, spec, found = case
    steps = [found.rows_of(epoch, step) for step in range(spec.steps_per_epoch)]
    everything = np.arange(subset.catalog.rows)
    kept = np.concatenate([subset.row_ids_in(block) for block in subset.blocks])
    np.testing.assert_array_equal(np.sort(np.concatenate(steps)), kept)
    expected = np.full(len(everything), -1)
    for step, row_ids in enumerate(steps):
        expected[row_ids] = step
    for asked in (everything, everything[::-1]):
        which, made = found.steps_of(epoch, asked)
        np.testing.assert_array_equal(which, np.flatnonzero(expected[asked] >= 0))
        np.testing.assert_array_equal(made, expected[asked][which])


@given(places())
def test_the_windows_read_the_blocks_of_their_rows(case: tuple[Subset, Spec, Places]) -> None:
    """Each row of a window lies in a block that the window reads, and `windows_of` leads there."""
    subset, spec, found = case
    count = np.bincount(windows_of(spec, np.arange(spec.rows)), minlength=spec.windows_per_epoch)
    for window in range(spec.windows_per_epoch):
        rows = found.window_rows(0, window)
        assert rows.size == count[window]
        blocks = np.searchsorted(subset.catalog.block_first, rows.reshape(-1), side="right") - 1
        assert set(blocks) == set(found.reads(0, window))
        kept = np.concatenate([subset.row_ids_in(block) for block in found.reads(0, window)])
        np.testing.assert_array_equal(kept[found.picks(0, window)], rows)


@given(places(), st.integers(0, 3))
def test_a_dropped_remainder_has_no_step(case: tuple[Subset, Spec, Places], epoch: int) -> None:
    """With remainder="drop" the rows beyond the last full batch are found in no step."""
    subset, spec, _ = case
    if spec.full_steps == 0:
        return
    dropping = Spec(
        **{name: getattr(spec, name) for name in spec.__slots__} | {"remainder": "drop"}
    )
    which, _ = Places(subset, dropping).steps_of(epoch, np.arange(subset.catalog.rows))
    assert len(which) == spec.full_steps * spec.batch_size


@given(places(), st.sampled_from(["rows", "blocks"]))
def test_a_spec_with_other_sizes_is_refused(case: tuple[Subset, Spec, Places], name: str) -> None:
    """Its digest may say that it is of this subset."""
    subset, spec, _ = case
    with pytest.raises(UsageError, match=f"the spec has .*{name}.*, its subset"):
        Places(subset, replace(spec, **{name: getattr(spec, name) + 1}))


def test_a_spec_of_another_subset_is_refused() -> None:
    """The rows of a step are never computed from the wrong subset."""
    catalog = SimpleNamespace(
        manifest=SimpleNamespace(forgotten=()),
        block_rows=np.array([4]),
        block_first=np.array([0]),
        digest="d",
        rows=4,
    )
    spec = Spec(
        subset="other", rows=4, blocks=1, batch_size=2, remainder="keep", shuffle="global", window_steps=1,
        stretches=1, seed=0,
    )  # fmt: skip
    with pytest.raises(UsageError, match="the spec belongs to the subset other, not to "):
        Places(Subset.whole(catalog), spec)
