"""The arithmetic of the callback."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tfstream.lineage import tally


@dataclass
class Produced:
    """An entry whose fingerprints tell the step and the generation."""

    generation: int
    first_step: int
    steps: int

    @property
    def row_fingerprints(self) -> np.ndarray:
        """The steps themselves."""
        return np.arange(self.first_step, self.first_step + self.steps).astype(np.uint64)

    @property
    def label_fingerprints(self) -> np.ndarray:
        """The generation, for every step."""
        return np.full(self.steps, self.generation, np.uint64)


ENTRIES = st.lists(
    st.builds(Produced, st.integers(1, 4), st.integers(0, 30), st.integers(1, 12)), max_size=8
)


@given(ENTRIES, st.integers(0, 20), st.integers(0, 25))
def test_each_consumed_step_is_matched_with_the_newest_entry(
    entries: list[Produced], start: int, steps: int
) -> None:
    """Once each, in order, none outside, and none left out that an entry has."""
    pieces = tally.match(entries, start, start + steps)
    found = [int(step) for piece in pieces for step in piece.row_fingerprints]
    newest = {
        step: max(e.generation for e in entries if e.first_step <= step < e.first_step + e.steps)
        for step in range(start, start + steps)
        if any(e.first_step <= step < e.first_step + e.steps for e in entries)
    }
    assert found == list(newest)
    assert [int(g) for piece in pieces for g in piece.label_fingerprints] == list(newest.values())
    assert [piece.generation for piece in pieces for _ in piece.row_fingerprints] == list(
        newest.values()
    )
    assert [range(p.first_step, p.stop)[0] for p in pieces] == [
        int(p.row_fingerprints[0]) for p in pieces
    ]


@given(st.integers(0, 10_000), st.integers(1, 50), st.integers(1, 100))
def test_groups_of_steps_tile_the_epoch(start: int, group: int, steps_per_epoch: int) -> None:
    """Whatever the group, the counts rise without a step beyond the end of the stream's epoch."""
    end = tally.epoch_end(start, steps_per_epoch)
    assert start < end <= start + steps_per_epoch
    assert end % steps_per_epoch == 0
    batches = range(0, end - start + group, group)
    counts = [tally.consumed(start, asked, steps_per_epoch) for asked in batches]
    assert counts == sorted(counts)
    assert counts[0] == start
    assert counts[-1] == end
