"""Random damage to the folder of a run, and the law that holds for it.

The law: whatever file of a run is changed, `verify` has a finding, or each answer is what it was.
The log of an attempt that has no Parquet file yet leaves no trace where it was the last one: that
it is deleted is not damage that can be found.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import tfstream
from tests.faults.mutations import damage
from tfstream.errors import TfstreamError

Answer = object
UNPUBLISHED = "attempt-002.log"


def make(folder: Path) -> Path:
    """A run of three attempts: two that ended, and one that was stopped and is still in frames."""
    rng = np.random.default_rng(0)
    source = pa.table(
        {"g": rng.integers(0, 3, 200), "x": rng.normal(size=200), "y": np.arange(200)}
    )
    pq.write_table(source, folder / "source.parquet")
    options = tfstream.ConvertOptions(block_rows=16)
    shards = tfstream.convert(
        folder / "source.parquet", folder / "out", group_by=["g"], options=options
    )
    stream = shards.stream(batch_size=16, features=["x"], label="y", seed=3)
    for first, count, ends in ((0, 9, True), (9, 7, True), (14, 6, False)):
        callback = tfstream.LineageCallback(folder / "run", stream, metrics=["loss"])
        callback.begin(first)
        for step, _ in zip(range(count), stream.dataset().repeat(), strict=False):
            callback.step(loss=float(step))
        if ends:
            callback.close()
        else:
            callback.settle()
    return folder / "run"


def answers(folder: Path) -> dict[str, Answer]:
    """All that a run is asked, each the answer or the error."""

    def rows() -> Answer:
        run = tfstream.open_run(folder)
        return run.rows(step=3), run.rows(step=15)

    asked: dict[str, Callable[[], Answer]] = {
        "steps": lambda: tfstream.open_run(folder).steps,
        "windows": lambda: tfstream.open_run(folder).windows,
        "rows": rows,
        "back": lambda: tfstream.open_run(folder).steps_of(row_ids=[5, 77]),
    }
    return {name: _answer(question) for name, question in asked.items()}


def _answer(question: Callable[[], Answer]) -> Answer:
    try:
        return question()
    except TfstreamError as error:
        return error


def findings(folder: Path) -> list[str]:
    """What `verify` says."""
    try:
        return [str(finding) for finding in tfstream.open_run(folder).verify()]
    except TfstreamError as error:
        return [str(error)]


class Law:
    """The law, for one run."""

    def __init__(self, folder: Path) -> None:
        """Ask the sound run."""
        self._folder = folder
        self._expected = answers(folder)
        assert not findings(folder)
        assert not [a for a in self._expected.values() if isinstance(a, TfstreamError)]

    def hold(self, seed: int) -> tuple[str, bool]:
        """Damage, ask, and mend again.

        Returns:
            What was done, and whether it was found.
        """
        told, before = damage(self._folder, random.Random(seed))
        try:
            found, seen = answers(self._folder), findings(self._folder)
            if told.startswith(f"delete in {self._folder / UNPUBLISHED}"):
                return told, bool(seen)
            wrong = [name for name, answer in found.items() if answer != self._expected[name]]
            assert seen or not wrong, f"seed {seed}, {told}: {wrong} differ, verify finds nothing"
        finally:
            for path, data in before.items():
                if data is None:
                    path.unlink(missing_ok=True)
                else:
                    path.write_bytes(data)
        return told, bool(seen)
