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
    steps: np.ndarray

    @property
    def row_fingerprints(self) -> np.ndarray:
        """The steps themselves."""
        return self.steps.astype(np.uint64)

    @property
    def label_fingerprints(self) -> np.ndarray:
        """The generation, for every step."""
        return np.full(len(self.steps), self.generation, np.uint64)


ENTRIES = st.lists(
    st.builds(
        Produced,
        st.integers(1, 4),
        st.sets(st.integers(0, 30), min_size=1, max_size=12).map(sorted).map(np.array),
    ),
    max_size=8,
)


@given(ENTRIES, st.integers(0, 20), st.integers(0, 25))
def test_each_consumed_step_is_matched_with_the_newest_entry(
    entries: list[Produced], start: int, steps: int
) -> None:
    """Once each, in order, none outside, none left out that an entry has, whatever its holes."""
    pieces = tally.match(entries, start, start + steps)
    found = [int(step) for piece in pieces for step in piece.row_fingerprints]
    newest = {
        step: max(e.generation for e in entries if step in e.steps)
        for step in range(start, start + steps)
        if any(step in e.steps for e in entries)
    }
    assert found == list(newest)
    assert [int(g) for piece in pieces for g in piece.label_fingerprints] == list(newest.values())
    assert [piece.generation for piece in pieces for _ in piece.row_fingerprints] == list(
        newest.values()
    )
    assert [range(p.first_step, p.stop)[0] for p in pieces] == [
        int(p.row_fingerprints[0]) for p in pieces
    ]
