"""A run as it is asked about afterwards: its steps, the rows of a step, the steps of a row."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfstream import storage
from tfstream.errors import UsageError
from tfstream.format import provenance
from tfstream.format.check import Finding
from tfstream.format.manifest import MANIFEST, Catalog, open_catalog
from tfstream.format.places import Places
from tfstream.format.subset import Subset
from tfstream.lineage import (
    composition,
    coverage,
    description,
    difference,
    log,
    verify,
    whereabouts,
)
from tfstream.lineage.description import Description
from tfstream.lineage.difference import Difference

STEPS = pa.schema(
    [
        ("attempt", pa.int64()),
        ("step", pa.int64()),
        ("epoch", pa.int64()),
        ("step_in_epoch", pa.int64()),
        ("rows", pa.int64()),
        ("window", pa.int64()),
        ("row_fingerprint", pa.uint64()),
        ("label_fingerprint", pa.uint64()),
    ]
)
STEPS_OF = pa.schema(
    [("attempt", pa.int64()), ("step", pa.int64()), ("epoch", pa.int64()), ("row_id", pa.int64())]
)
_LOG_NAME = re.compile(r"attempt-(\d{3,})\.log")


def log_path(folder: Path, attempt: int) -> Path:
    """Where the log of an attempt lies."""
    return folder / f"attempt-{attempt:03d}.log"


def attempts_in(folder: Path) -> list[int]:
    """The numbers of the attempts that have a log in the folder, ascending."""
    names = (_LOG_NAME.fullmatch(path.name) for path in folder.glob("attempt-*.log"))
    return sorted(int(name[1]) for name in names if name)


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
    path = storage.local_path(folder)
    return Run(
        folder=path,
        description=description.read(path),
        shards_folder=None if shards is None else storage.local_path(shards),
    )


@dataclass(frozen=True)
class Run:
    """A training run and what it consumed."""

    folder: Path
    """The run's folder."""
    description: Description
    """What it trained on."""
    shards_folder: Path | None = None
    """The data set's folder, if it was given."""

    @cached_property
    def logs(self) -> dict[int, log.Log]:
        """The log of each attempt, as far as it is whole.

        Raises:
            DataError: if a file is no log.
        """
        return {
            number: log.read(log_path(self.folder, number)) for number in attempts_in(self.folder)
        }

    @cached_property
    def catalog(self) -> Catalog:
        """The data set.

        Raises:
            UsageError: if it is not where it was, with the places looked at.
            CorruptionError: if its index is damaged.
        """
        feed = self.description.training
        places = (
            [self.shards_folder]
            if self.shards_folder is not None
            else [Path(feed.folder), self.folder / feed.relative_folder]
        )
        for place in places:
            if (place / MANIFEST).is_file():
                return open_catalog(place, feed.dataset)
        raise UsageError(
            f"the data set of the run {self.folder} is not in {' nor in '.join(map(str, places))}; "
            "give its folder: open_run(folder, shards=...)"
        )

    @cached_property
    def subset(self) -> Subset:
        """The rows that the run trained on.

        Raises:
            DataError: if the data set is another one.
        """
        return description.subset_of(self.description.training, Subset.whole(self.catalog))

    @cached_property
    def places(self) -> Places:
        """Where those rows come in each epoch."""
        return Places(self.subset, self.description.training.spec)

    @cached_property
    def steps(self) -> pa.Table:
        """One line a consumed step, by attempt and step.

        Columns as in `STEPS`; `step` counts over the run, `window` within the epoch.

        Raises:
            CorruptionError: if a log is not what was written; a torn end is only shorter.
        """
        tables = [
            self._steps_of_log(number, log.require_whole(found))
            for number, found in self.logs.items()
        ]
        return pa.concat_tables(tables) if tables else STEPS.empty_table()

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

    @cached_property
    def seen(self) -> pa.Table:
        """The steps that the weights of the last attempt have seen, each once; columns as `steps`.

        What an attempt trained beyond the step at which a later one began was rolled back.
        """
        steps = self.steps
        kept, stop = [], None
        for number in sorted(self.logs, reverse=True):
            mine = steps.filter(pc.equal(steps["attempt"], number))
            kept.append(mine if stop is None else mine.filter(pc.less(mine["step"], stop)))
            first = self.logs[number].attempt.first_step
            stop = first if stop is None else min(stop, first)
        return pa.concat_tables([STEPS.empty_table(), *reversed(kept)])

    def rows(
        self,
        *,
        step: int | range | None = None,
        epoch: int | None = None,
        attempt: int | None = None,
    ) -> pa.Table:
        """The rows of a consumed step, or of several, in the order of the batches.

        Args:
            step: counted over the run; a range for those of its steps that the weights have seen.
            epoch: of the stream, in place of `step`: those of its steps that they have seen.
            attempt: for one step, the number of the attempt; the one that survived if None.

        Returns:
            row_id, the keys of the row's group, shard (its path), row_in_shard, source (its path),
            source_row; before them `step` if several were asked for. A key that has one of these
            names is called group_ and its name.

        Raises:
            UsageError: if the step was not consumed, or none of several.
        """
        if (step is None) is (epoch is None):
            raise UsageError("give either a step, or a range of steps, or an epoch")
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
        return whereabouts.describe_rows(self.catalog, self.places.rows_of(*place))

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
        tables = []
        for epoch in np.unique(logged["epoch"].to_numpy()):
            found = self.places.steps_of(int(epoch), ids)
            for row_id, step_in_epoch in zip(ids, found, strict=True):
                if step_in_epoch < 0:
                    continue
                step = epoch * steps_per_epoch + step_in_epoch
                tables += [
                    {
                        "attempt": int(attempt),
                        "step": int(step),
                        "epoch": int(epoch),
                        "row_id": int(row_id),
                    }
                    for attempt in attempts[steps == step]
                ]
        tables.sort(key=lambda line: (line["row_id"], line["attempt"], line["step"]))
        return pa.Table.from_pylist(tables, schema=STEPS_OF)

    def coverage(self) -> pa.Table:
        """How often the weights have seen the rows of each group.

        Returns:
            The keys of the group, `seen` (times) and `rows`, by group and times.
        """
        return coverage.coverage(self)

    def composition(self, by: str | None = None, *, step: int | range | None = None) -> pa.Table:
        """What the batches that the weights have seen were made of.

        Args:
            by: a column, or a key function such as "bucket(price, 10)"; the groups if None.
            step: a step, or a range of steps, counted over the run; all if None.

        Returns:
            step, the group's keys or the value, and rows, by step and value.

        Raises:
            UsageError: if `by` is neither, or no such step was seen.
        """
        steps = range(step, step + 1) if isinstance(step, int) else step
        places = self._chosen(steps, None)
        return composition.composition(self, by, places)

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

    def _chosen(self, step: range | None, epoch: int | None) -> list[tuple[int, int, int]]:
        """(step, epoch, step in the epoch) of the steps seen; all, or some.

        Raises:
            UsageError: if there is none.
        """
        seen = self.seen
        numbers, epochs = seen["step"].to_numpy(), seen["epoch"].to_numpy()
        wanted = np.ones(len(numbers), bool) if epoch is None else epochs == epoch
        if step is not None:
            wanted &= np.isin(numbers, np.asarray(step))
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

    def _steps_of_log(self, number: int, found: log.Log) -> pa.Table:
        spec = self.description.training.spec
        pieces = found.pieces
        if not pieces:
            return STEPS.empty_table()
        step = np.concatenate([np.arange(piece.first_step, piece.stop) for piece in pieces])
        epoch, in_epoch = np.divmod(step, spec.steps_per_epoch)
        is_full = in_epoch < spec.full_steps
        columns = [
            np.full(len(step), number),
            step,
            epoch,
            in_epoch,
            np.where(is_full, spec.batch_size, spec.tail_rows),
            np.where(is_full, in_epoch // spec.window_steps, spec.full_windows),
            np.concatenate([piece.row_fingerprints for piece in pieces]),
            np.concatenate([piece.label_fingerprints for piece in pieces]),
        ]
        return pa.table(columns, schema=STEPS)


def _extent(steps: pa.Table) -> str:
    if not steps.num_rows:
        return "there are no steps in its log"
    low, high = pc.min(steps["step"]).as_py(), pc.max(steps["step"]).as_py()
    return f"the steps logged lie from {low} to {high}"
