"""What is said of the stages follows from the times that were measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tfstream
from tests.streams import ROWS, converted, table
from tfstream.pipeline.stages import KNOBS, Speed, Stage, stages_of

TIMES = st.lists(st.floats(0.001, 100), min_size=len(KNOBS), max_size=len(KNOBS))


@given(TIMES)
def test_stages_add_up_to_the_slowest_pipeline(times: list[float]) -> None:
    """None is negative, and together they take what the longest of the pipelines took."""
    stages = stages_of(dict(zip(KNOBS, times, strict=True)))
    assert [stage.name for stage in stages] == list(KNOBS)
    assert min(stage.seconds for stage in stages) >= 0
    assert sum(stage.seconds for stage in stages) == pytest.approx(max(times))


def test_the_slowest_stage_is_named() -> None:
    """With the knob that turns it, and rates over all of the time."""
    seconds = {"order": 0.25, "reading": 1.0, "decoding": 0.25, "batches": 0.5, "loop": 0.0}
    stages = tuple(Stage(name=name, seconds=each) for name, each in seconds.items())
    speed = Speed(rows=4_000_000, block_bytes=580_000_000, stages=stages, cpu_seconds=3.5)
    assert (speed.seconds, speed.rows_per_s, speed.mb_per_s) == (2.0, 2_000_000, 290)
    assert speed.slowest.name == "reading"
    assert speed.advice == KNOBS["reading"]


def test_a_stream_is_measured(tmp_path: Path) -> None:
    """Each stage, on all windows but the first; more rows than the data set has."""
    stream = converted(tmp_path, table()).stream(batch_size=16, features=["d", "y"], label="y > 0")
    speed = stream.speed(rows=2_000)
    assert [stage.name for stage in speed.stages] == list(KNOBS)
    assert speed.rows >= 2_000
    assert speed.seconds > 0
    assert speed.cpu_seconds > 0
    sizes = stream.subset.catalog.block_size
    assert speed.block_bytes == pytest.approx(sizes.sum() * speed.rows / ROWS, rel=1e-3)


def test_batches_of_one_group_are_measured_too(tmp_path: Path) -> None:
    """No batch is full where every group is smaller."""
    options = tfstream.StreamOptions(batches="group")
    shards = converted(tmp_path, table(60))
    speed = shards.stream(batch_size=32, features=["d"], options=options).speed(rows=100)
    assert speed.rows >= 100
