"""A run as it is asked about afterwards: its steps, the rows of a step, the steps of a row."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfstream import storage
from tfstream.errors import DataError, UsageError
from tfstream.format import provenance
from tfstream.format.check import Finding
from tfstream.format.manifest import Catalog
from tfstream.format.places import Places
from tfstream.format.subset import Subset
from tfstream.lineage import (
    attempts,
    composition,
    coverage,
    description,
    difference,
    log,
    table,
    verify,
    whereabouts,
)
from tfstream.lineage.description import Description
from tfstream.lineage.difference import Difference
from tfstream.lineage.fed import Fed
from tfstream.lineage.table import TESTS
from tfstream.storage import Place

STEPS_OF = pa.schema(
    [("attempt", pa.int64()), ("step", pa.int64()), ("epoch", pa.int64()), ("row_id", pa.int64())]
)


def open_run(
    folder: str | os.PathLike[str], *, shards: str | os.PathLike[str] | None = None
) -> Run:
    """Open the folder that a `LineageCallback` wrote.

    Args:
        folder: the run's.
        shards: the data set's, if it has moved since; by default where it was then.

    Raises:
        UsageError: if there is no run in the folder.
        DataError: if its description is not one of this format.
    """
    path = storage.place(folder)
    return Run(
        folder=path,
        description=description.read(path),
        shards_folder=None if shards is None else storage.place(shards),
    )


@dataclass(frozen=True)
class Run:
    """A training run and what it consumed."""

    folder: Place
    """The run's folder."""
    description: Description
    """What it trained on."""
    shards_folder: Place | None = None
    """The data set's folder, if it was given."""

    @cached_property
    def workers(self) -> dict[int, tuple[log.Log, ...]]:
        """The logs of each attempt, as far as they are whole: one, or one for each worker.

        Raises:
            DataError: if a file is no log.
        """
        return attempts.read_all(self.folder)

    @property
    def logs(self) -> dict[int, log.Log]:
        """The log that speaks for each attempt: of several workers, of the one that got furthest.

        Raises:
            DataError: if a file is no log.
        """
        return attempts.leading(self.workers)

    @cached_property
    def training(self) -> Fed:
        """The stream that the model was trained on."""
        return Fed(self.description.training, self.folder, self.shards_folder)

    @cached_property
    def validation(self) -> Fed | None:
        """The stream that it was validated on; None if that was not told."""
        feed = self.description.validation
        return None if feed is None else Fed(feed, self.folder, self.shards_folder)

    @property
    def catalog(self) -> Catalog:
        """The data set that the model was trained on."""
        return self.training.catalog

    @property
    def subset(self) -> Subset:
        """The rows that it was trained on."""
        return self.training.subset

    @property
    def places(self) -> Places:
        """Where those rows come in each epoch."""
        return self.training.places

    @cached_property
    def steps(self) -> pa.Table:
        """One line a step that was trained, by attempt and step; columns as in `table.STEPS`.

        Raises:
            CorruptionError: if a log is not what was written; a torn end is only shorter.
        """
        logs = {number: log.require_whole(found) for number, found in self.logs.items()}
        return table.steps(logs, self.description.training.spec)

    @cached_property
    def seen(self) -> pa.Table:
        """Those of `steps` that the weights at the end of the run have seen."""
        return table.seen(self.steps)

    @cached_property
    def tests(self) -> pa.Table:
        """One line a step of each validation in `fit` and of each `evaluate`.

        Columns as in `table.TESTS`.

        Raises:
            CorruptionError: if a log is not what was written; a torn end is only shorter.
        """
        found = [
            (number, test)
            for number, one in self.logs.items()
            for test in log.require_whole(one).tests
        ]
        return table.tests(found, self._validation.feed.spec) if found else TESTS.empty_table()

    @cached_property
    def windows(self) -> pa.Table:
        """One line a window that was read, with its shards; columns as in `table.WINDOWS`."""
        found = [
            (number, window)
            for number, one in self.logs.items()
            for window in log.require_whole(one).windows
        ]
        return table.windows(found)

    def attempt_of(self, step: int) -> int:
        """The attempt that survived: the last one that has the step.

        Raises:
            UsageError: if none has it, with the steps that there are.
        """
        steps = self.steps
        found = steps.filter(pc.equal(steps["step"], step))["attempt"]
        if len(found):
            return int(pc.max(found).as_py())
        raise UsageError(f"no attempt of {self.folder} has step {step}; {_extent(steps)}")

    def rows(
        self,
        *,
        step: int | range | None = None,
        epoch: int | None = None,
        attempt: int | None = None,
        worker: int | None = None,
    ) -> pa.Table:
        """The rows of a consumed step, or of several, in the order of the batches.

        Args:
            step: counted over the run; a range for those of its steps that the weights have seen.
            epoch: of the stream, in place of `step`: those of its steps that they have seen.
            attempt: for one step, the number of the attempt; the one that survived if None.
            worker: for one step, the index of one of several workers; the rows of all if None.

        Returns:
            row_id, the keys of the row's group, shard (its path), row_in_shard, source (its path),
            source_row; before them `step` if several were asked for. A key that has one of these
            names is called group_ and its name.

        Raises:
            UsageError: if the step was not consumed, or none of several, or the worker has no log.
        """
        if (step is None) is (epoch is None):
            raise UsageError("give either a step, or a range of steps, or an epoch")
        if worker is not None and not isinstance(step, int):
            raise UsageError("rows of one worker are those of one step; give its number")
        if not isinstance(step, int):
            return self._rows_of(self._chosen(step, epoch))
        if attempt is None:
            attempt = self.attempt_of(step)
        steps = self.steps.filter(pc.equal(self.steps["attempt"], attempt))
        if not pc.any(pc.equal(steps["step"], step)).as_py():
            raise UsageError(
                f"attempt {attempt} of {self.folder} has no step {step}; {_extent(steps)}"
            )
        place = divmod(step, self.description.training.spec.steps_per_epoch)
        places = self.places if worker is None else self._places_of(attempt, worker)
        return whereabouts.describe_rows(self.catalog, places.rows_of(*place))

    def _places_of(self, attempt: int, worker: int) -> Places:
        shares = {one.attempt.share.index: one.attempt.share for one in self.workers[attempt]}
        if worker not in shares:
            raise UsageError(
                f"attempt {attempt} of {self.folder} has no log of worker {worker}; there are "
                f"those of {', '.join(map(str, shares))}"
            )
        return self.training.places_of(shares[worker])

    def test_rows(self, *, step: int) -> pa.Table:
        """The rows of a step of `tests`, in the order of the batch; columns as of `rows`.

        Raises:
            UsageError: if there was no such step.
        """
        tests = self.tests
        if not pc.any(pc.equal(tests["step"], step)).as_py():
            raise UsageError(f"no validation or test of {self.folder} has step {step}")
        fed = self._validation
        place = divmod(step, fed.feed.spec.steps_per_epoch)
        return whereabouts.describe_rows(fed.catalog, fed.places.rows_of(*place))

    def steps_of(
        self,
        *,
        source: str | None = None,
        source_row: int | None = None,
        row_ids: Sequence[int] | np.ndarray | None = None,
        where: str | None = None,
    ) -> pa.Table:
        """The consumed steps that saw some rows, by row, attempt and step.

        Args:
            source: path of a source file, or the end of it; together with `source_row`.
            source_row: row of the source, 0-based.
            row_ids: row ids instead.
            where: a condition instead, such as "tailnum = 'N14228'"; blocks that may have such rows
                are read.

        Returns:
            Columns as in `STEPS_OF`.

        Raises:
            UsageError: if there is no such row, or not exactly one kind of question was asked.
        """
        ids = self._ids(source, source_row, row_ids, where)
        steps_per_epoch = self.description.training.spec.steps_per_epoch
        logged = self.steps
        attempts, steps = logged["attempt"].to_numpy(), logged["step"].to_numpy()
        by_step = np.argsort(steps, kind="stable")
        sorted_steps = steps[by_step]
        found: list[tuple[np.ndarray, ...]] = [(np.empty(0, np.int64),) * 4]
        for epoch in np.unique(logged["epoch"].to_numpy()):
            which, in_epoch = self.places.steps_of(int(epoch), ids)
            step = epoch * steps_per_epoch + in_epoch
            low, high = (np.searchsorted(sorted_steps, step, side) for side in ("left", "right"))
            lines = np.repeat(np.arange(len(step)), high - low)
            turn = np.arange(len(lines)) - np.repeat(np.cumsum(high - low) - high + low, high - low)
            attempt = attempts[by_step[low[lines] + turn]]
            found.append((ids[which[lines]], attempt, step[lines], np.full(len(lines), epoch)))
        columns = [np.concatenate(column) for column in zip(*found, strict=True)]
        # A step that has a row twice is one line.
        row_id, attempt, step, in_epochs = np.unique(np.stack(columns), axis=1)
        return pa.table([attempt, step, in_epochs, row_id], schema=STEPS_OF)

    def coverage(self) -> pa.Table:
        """How often the weights have seen the rows of each group.

        Returns:
            The keys of the group, `seen` (times) and `rows`, by group and times.
        """
        return coverage.coverage(self)

    def composition(
        self, by: str | None = None, *, steps: int | Sequence[int] | np.ndarray | None = None
    ) -> pa.Table:
        """What the batches that the weights have seen were made of.

        Args:
            by: a column, or a key function such as "bucket(price, 10)"; the groups if None.
            steps: a step, or several such as a range, counted over the run; all if None.

        Returns:
            step, the group's keys or the value, and rows, by step and value.

        Raises:
            UsageError: if `by` is neither, or no such step was seen.
        """
        return composition.composition(self, by, self._chosen(steps, None))

    def difference(self, other: Run) -> Difference:
        """Where this run and another one begin to differ in the rows they saw, and why."""
        return difference.difference(self, other)

    def verify(self, *, deep: bool = False) -> list[Finding]:
        """Check the logs, the data set and its sources against each other.

        Args:
            deep: read every block of every logged step too, and prove from its labels that values
                and rows were not parted.

        Returns:
            What is wrong; empty if the computed rows are proven to be those that were consumed.
        """
        return list(verify.findings(self, deep=deep))

    @property
    def _validation(self) -> Fed:
        if self.validation is None:
            raise DataError(
                f"the log of {self.folder} has steps of a validation, but its description has none"
            )
        return self.validation

    def _ids(
        self,
        source: str | None,
        source_row: int | None,
        row_ids: Sequence[int] | np.ndarray | None,
        where: str | None,
    ) -> np.ndarray:
        asked = [source is not None, row_ids is not None, where is not None]
        if (source is None) != (source_row is None) or sum(asked) != 1:
            raise UsageError("give either source and source_row, or row_ids, or where")
        if source is not None and source_row is not None:
            ordinal = provenance.find_source(self.catalog, source)
            return provenance.row_ids_of(self.catalog, ordinal, np.asarray([source_row], np.int64))
        if where is not None:
            found = Subset.whole(self.catalog).where(where)
            parts = [found.row_ids_in(int(block)) for block in found.blocks]
            return np.concatenate([np.empty(0, np.int64), *parts])
        ids = np.asarray(row_ids, np.int64).reshape(-1)
        outside = ids[(ids < 0) | (ids >= self.catalog.rows)]
        if len(outside):
            raise UsageError(
                f"row ids go from 0 to {self.catalog.rows - 1}, there is no row {outside[0]}"
            )
        unique: np.ndarray = np.unique(ids)
        return unique

    def _chosen(
        self, steps: int | Sequence[int] | np.ndarray | None, epoch: int | None
    ) -> list[tuple[int, int, int]]:
        """(step, epoch, step in the epoch) of the steps seen; all, or some.

        Raises:
            UsageError: if there is none.
        """
        seen = self.seen
        numbers, epochs = seen["step"].to_numpy(), seen["epoch"].to_numpy()
        wanted = np.ones(len(numbers), bool) if epoch is None else epochs == epoch
        if steps is not None:
            wanted &= np.isin(numbers, np.asarray(steps))
        if not wanted.any():
            raise UsageError(f"none of these steps was seen; {_extent(seen)}")
        found = seen.filter(pa.array(wanted)).select(["step", "epoch", "step_in_epoch"])
        return list(zip(*(column.to_pylist() for column in found.columns), strict=True))

    def _rows_of(self, steps: list[tuple[int, int, int]]) -> pa.Table:
        """The rows of several steps, with their step."""
        rows = [self.places.rows_of(epoch, place) for _, epoch, place in steps]
        numbers = np.repeat([step for step, _, _ in steps], [len(ids) for ids in rows])
        found = whereabouts.describe_rows(self.catalog, np.concatenate(rows))
        name = "step" if "step" not in found.column_names else "run_step"
        return found.add_column(0, name, pa.array(numbers))


def _extent(steps: pa.Table) -> str:
    if not steps.num_rows:
        return "there are no steps in its log"
    low, high = pc.min(steps["step"]).as_py(), pc.max(steps["step"]).as_py()
    return f"the steps logged lie from {low} to {high}"
