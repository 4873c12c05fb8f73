"""Parts of the batches for several workers: side by side they are the batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.orders import EPOCHS, batches_of, epoch_batches, spec_of, specs
from tfstream.errors import UsageError
from tfstream.order import NUMPY, Spec, epoch_of, window_of
from tfstream.share import Share


def part_batches(spec: Spec, kept: np.ndarray, epoch: int, share: Share) -> list[np.ndarray]:
    """A worker's batches, filling counted in."""
    sequence = epoch_of(NUMPY, spec, kept, epoch)
    return [
        batch
        for window in range(spec.windows_per_epoch)
        for batch in batches_of(kept, window_of(NUMPY, spec, sequence, epoch, window, share=share))
    ]


@st.composite
def shared(draw: st.DrawFn) -> tuple[Spec, np.ndarray, int, int]:
    """An order with a number of workers, and of replicas of each, that can share it."""
    spec, kept = draw(specs())
    whole = spec.batch_size if spec.shuffle == "none" else spec.stretches
    count = draw(st.sampled_from([n for n in range(1, whole + 1) if whole % n == 0]))
    width = spec.batch_size // count
    replicas = draw(st.sampled_from([n for n in range(1, width + 1) if width % n == 0]))
    return spec, kept, count, replicas


@settings(deadline=None)
@given(shared(), EPOCHS)
def test_parts_side_by_side_are_the_batch(
    case: tuple[Spec, np.ndarray, int, int], epoch: int
) -> None:
    """In its order, for any number of workers; each row once, and no worker ends early."""
    spec, kept, count, replicas = case
    shares = [Share(index=i, count=count, replicas=replicas) for i in range(count)]
    parts = [part_batches(spec, kept, epoch, share) for share in shares]
    whole = epoch_batches(spec, kept, epoch)
    assert {len(batches) for batches in parts} == {len(whole)}
    for step, batch in enumerate(whole):
        is_tail = step >= spec.full_steps
        for share, batches in zip(shares, parts, strict=True):
            width = share.tail_width(spec) if is_tail else share.width(spec)
            assert len(batches[step]) == width
            assert width % replicas == 0
            assert np.isin(batches[step], batch).all()
        real = [
            batches[step][: share.tail_rows(spec) if is_tail else None]
            for share, batches in zip(shares, parts, strict=True)
        ]
        assert np.concatenate(real).tolist() == batch.tolist()


@settings(deadline=None)
@given(st.integers(0, 2**20))
def test_a_worker_reads_its_own_stretches_alone(epoch: int) -> None:
    """Blocks of full windows are read by one worker, but for those on a boundary."""
    kept = np.full(64, 16, np.int64)
    spec = spec_of(kept, batch_size=32, stretches=8, window_steps=32)
    sequence = epoch_of(NUMPY, spec, kept, epoch)
    reads = [
        window_of(NUMPY, spec, sequence, epoch, 0, share=Share(index=i, count=4)).blocks
        for i in range(4)
    ]
    assert sorted(np.concatenate(reads).tolist()) == list(range(64))


@pytest.mark.parametrize(
    ("share", "shuffle", "message"),
    [
        (
            Share(index=0, count=3),
            "global",
            (
                "3 workers cannot share a stream with stretches 4; use one of 1, 2, 4, "
                "or other stretches"
            ),
        ),
        (
            Share(index=0, count=3),
            "none",
            (
                "3 workers cannot share a stream with batch_size 8; use one of 1, 2, 4, 8, "
                "or other batch_size"
            ),
        ),
        (
            Share(index=2, count=2),
            "global",
            "the index of a share goes from 0 to count - 1, got 2 of 2",
        ),
        (
            Share(index=-1, count=2),
            "global",
            "the index of a share goes from 0 to count - 1, got -1 of 2",
        ),
        (
            Share(index=0, count=2, replicas=3),
            "global",
            "6 replicas cannot share batches of 8 rows equally; use another batch_size",
        ),
    ],
)
def test_a_share_that_cannot_be_says_which_can(share: Share, shuffle: str, message: str) -> None:
    """The whole text."""
    stretches = 1 if shuffle == "none" else 4
    spec = spec_of(np.array([40]), shuffle=shuffle, stretches=stretches)
    with pytest.raises(UsageError) as caught:
        share.check(spec)
    assert str(caught.value) == message
