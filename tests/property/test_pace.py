"""How Keras' epochs lie in the stream's, with Keras' own account of an iterator beside it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from tfstream.pipeline.pace import Pace
from tfstream.skips import Skips

SKIPS = st.lists(
    st.one_of(
        st.integers(0, 80),
        st.builds(lambda start, n: range(start, start + n), st.integers(0, 80), st.integers(0, 9)),
    ),
    max_size=3,
)


class Fit:
    """Epochs of Keras 3.15's `EpochIterator` over iterators that end where the pace says."""

    def __init__(self, steps: int, asked: int | None, group: int, pace: Pace) -> None:
        self._steps, self._asked, self._group, self._pace = steps, asked, group, pace
        self._iterator: Iterator[int] | None = None
        self._seen = self._stop = 0
        self.position = 0

    def epoch(self) -> list[int]:
        """The steps of an epoch of Keras."""
        if self._iterator is None or self._asked is None:
            self._iterator = self._new()
        got: list[int] = []
        asks = self._asked or self._steps
        begin, asked = self.position, 0
        for step in range(0, asks, self._group):
            if self._seen >= self._steps:
                break
            part = list(itertools.islice(self._iterator, self._group))
            if not part:
                self._iterator = None
                break
            self._seen += self._group
            got += part
            asked = step + self._group
            is_over = self._pace.after(begin, asked) == self._stop
            if is_over and asked >= asks and self._seen < self._steps:
                self._iterator = None
                break
        self.position = self._pace.after(begin, asked)
        if self._iterator is not None and self._seen >= self._steps:
            self._iterator = None
        return got

    def _new(self) -> Iterator[int]:
        self._seen, self._stop = 0, self._pace.stop(self.position)
        kept = range(self.position, self._stop)
        return iter([step for step in kept if not self._pace.skips.count(step, step + 1)])


@given(st.data())
def test_a_fit_that_goes_on_anywhere_has_the_epochs_of_an_undisturbed_one(
    data: st.DataObject,
) -> None:
    """Whatever the lengths, the steps an execution and the steps that are left out."""
    steps = data.draw(st.integers(1, 24))
    asked, group = data.draw(st.none() | st.integers(1, 30)), data.draw(st.integers(1, 5))
    pace = Pace.of(steps, asked, group, Skips.of(data.draw(SKIPS)))
    epochs = data.draw(st.integers(1, 12))
    undisturbed = Fit(steps, asked, group, pace)
    expected = [undisturbed.epoch() for _ in range(epochs)]
    total = pace.first_step(epochs)
    assert undisturbed.position == total
    kept = [step for step in range(total) if not pace.skips.count(step, step + 1)]
    assert list(itertools.chain(*expected)) == kept
    for epoch, got in enumerate(expected):
        assert {pace.epoch_of(step) for step in got} <= {epoch}
    resumed = Fit(steps, asked, group, pace)
    resumed.position = start = data.draw(st.integers(0, total))
    for epoch in range(pace.epoch_of(start), epochs):
        assert resumed.epoch() == [step for step in expected[epoch] if step >= start]


@given(SKIPS, st.integers(0, 100), st.integers(0, 60))
def test_skips_count_what_a_set_would(items: list[int | range], start: int, n: int) -> None:
    """Counting, the next one, and the step that comes after some kept ones."""
    skips = Skips.of(items)
    out = {step for item in items for step in (item if isinstance(item, range) else [item])}
    assert skips.count(start, start + n) == len(out & set(range(start, start + n)))
    assert skips.first_from(start) == min((step for step in out if step >= start), default=None)
    kept = [step for step in range(start, start + n + 200) if step not in out]
    assert skips.after(start, n) == kept[n]
    assert bool(skips) == bool(out)
