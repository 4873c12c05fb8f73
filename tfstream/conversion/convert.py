"""A conversion from end to end: sources → run files → shards → manifest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tfstream import storage
from tfstream.conversion import gathering, generations, index, keys, quarantine, vocabularies
from tfstream.conversion.by_source import OwnRun, write_by_source
from tfstream.conversion.delivery import writing
from tfstream.conversion.options import ConvertOptions
from tfstream.conversion.placement import Placement, place
from tfstream.conversion.plan import ShardPlan, block_limit, plan_shards, plan_spans, shard_path
from tfstream.conversion.progress import ProgressCallback
from tfstream.conversion.reading import FindOut
from tfstream.conversion.receipts import Receipts
from tfstream.conversion.rows import RunSlice
from tfstream.conversion.runs import Run, write_runs
from tfstream.conversion.scheduling import Scheduler
from tfstream.conversion.shards import BatchTask, ShardTask, batched, noted, write_shards
from tfstream.conversion.sources import Sources, refuse_changed
from tfstream.conversion.survey import NOTHING_READABLE, Survey, survey
from tfstream.conversion.text_source import INFER
from tfstream.conversion.workspace import (
    Workspace,
    clear_ended,
    held,
    is_ended,
    purpose_of,
    survey_digest,
    unfinished_sources,
)
from tfstream.errors import DataError, ResumeError
from tfstream.format.document import FORMAT, Manifest
from tfstream.format.manifest import MANIFEST, Catalog, open_catalog, shard_token, write_index
from tfstream.format.schema import Column, Schema


def convert(  # noqa: PLR0913 - the public signature
    source: gathering.SourceArgument,
    out: str | os.PathLike[str],
    *,
    group_by: Sequence[str],
    options: ConvertOptions | None = None,
    scheduler: Any = None,  # noqa: ANN401 - a name, an address or a distributed.Client
    progress: ProgressCallback | None = None,
) -> None:
    """Convert sources into a data set; see `tfstream.convert`."""
    options = options or ConvertOptions()
    expressions = (group_by,) if isinstance(group_by, str) else tuple(group_by)
    with (
        contextlib.closing(Scheduler(scheduler, progress)) as tasks,
        writing(storage.place(out), options.temp, appends=False) as (folder, was_there),
        _known(source, folder, options, tasks) as (sources, run),
    ):
        if (folder / MANIFEST).exists():
            before = open_catalog(folder)
            wanted = keys.spelled(expressions, before.schema.names)
            asked = (wanted, options.kept, str(sources.root or ""))
            done = (before.manifest.group_by, before.manifest.options, before.manifest.root)
            if not (was_there and asked == done and _is_ended(before, sources, tasks)):
                raise ResumeError(held(folder))
            clear_ended(folder)
            return
        surveyed = survey(sources, options, run)
        _write(folder, sources, surveyed, expressions, options, tasks)


def append(
    source: gathering.SourceArgument,
    out: str | os.PathLike[str],
    *,
    options: ConvertOptions | None = None,
    scheduler: Any = None,  # noqa: ANN401 - a name, an address or a distributed.Client
    progress: ProgressCallback | None = None,
) -> None:
    """Add sources to a data set; see `tfstream.append`."""
    options = options or ConvertOptions()
    with (
        contextlib.closing(Scheduler(scheduler, progress)) as tasks,
        writing(storage.place(out), options.temp, appends=True) as (folder, was_there),
    ):
        before = open_catalog(folder)
        options = replace(options, **before.manifest.options)
        with _known(source, folder, options, tasks) as (found, run):
            if was_there and _is_ended(before, found, tasks):
                clear_ended(folder)
                return
            sources = generations.rooted(found, before)
            surveyed = generations.fitted(survey(sources, options, run), sources, before)
            _write(folder, sources, surveyed, before.manifest.group_by, options, tasks, before)


@contextlib.contextmanager
def _known(
    source: gathering.SourceArgument, folder: Path, options: ConvertOptions, tasks: Scheduler
) -> Iterator[tuple[Sources, FindOut]]:
    """The sources, and what runs the tasks that find out about them."""
    with (
        unfinished_sources(folder) as place,
        gathering.gathered(source, folder, options.temp, tasks.compute) as sources,
    ):
        yield sources, Receipts(place / survey_digest(sources, options), tasks).remember(INFER)


def _is_ended(before: Catalog, sources: Sources, tasks: Scheduler) -> bool:
    """Whether the last generation is of these sources, and what is unfinished is to be removed."""
    is_last = generations.may_be_last(sources, before)
    if not is_last or not is_ended(storage.local_path(before.folder)):
        return False
    hashes = tasks.run("hash sources", gathering.sha256, [(s,) for s in sources.files])
    return bool(hashes == generations.last_sources(before)["sha256"].to_pylist())


def _write(  # noqa: PLR0913, PLR0917 - what was asked, and what is known
    folder: Path,
    sources: Sources,
    surveyed: Survey,
    group_by: tuple[str, ...],
    options: ConvertOptions,
    tasks: Scheduler,
    before: Catalog | None = None,
) -> None:
    """Both stages, and the manifest; of the first generation, or the next one."""
    group_by = keys.spelled(group_by, surveyed.schema.names)
    grouping = keys.check(group_by, surveyed.schema)
    if not sum(surveyed.rows):
        named = ", ".join(str(source) for source in sources.files[:3])
        raise DataError(f"the sources have no rows: {named}; give one that has")
    parents = () if before is None else generations.parents(before)
    purpose = purpose_of(folder, sources, surveyed, group_by, options, parents)
    work = Workspace(out=folder, purpose=purpose)
    with work.opened():
        if work.is_ready:
            work.finish()
            return
        work.check_space(surveyed.size_bytes)
        stages = Receipts(work.receipts, tasks)
        hashes = stages.run(
            "hash sources",
            gathering.sha256,
            [(s,) for s in sources.files],
            rows=surveyed.rows,
            size_bytes=sum(s.size_bytes for s in sources.files),
        )
        calls = [
            (p, i, work.runs, grouping, surveyed.schema) for i, p in enumerate(surveyed.partitions)
        ]
        found = stages.run(
            "sort by group",
            write_runs,
            calls,
            rows=surveyed.partition_rows,
            size_bytes=surveyed.size_bytes,
        )
        runs = [run for several in found for run in several]
        if not runs:
            raise DataError(NOTHING_READABLE)
        plan = _Assembly.of(sources, surveyed, group_by, options, hashes, runs, before)
        plan.write(work, stages)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Assembly:
    """All that is known when the run files are there, and what follows from it."""

    sources: Sources
    survey: Survey
    hashes: Sequence[str]
    runs: Sequence[Run]
    manifest: Manifest
    vocabularies: Mapping[str, pa.Array]
    placement: Placement
    plans: Sequence[ShardPlan]
    block_rows: int
    row_bytes: int
    """Bytes of a row, texts included."""
    before: Catalog | None
    """The data set that this is appended to."""

    @property
    def first_row(self) -> int:
        """Row id of the first row."""
        return 0 if self.before is None else self.before.rows

    @classmethod
    def of(  # noqa: PLR0913, PLR0917 - a field each
        cls,
        sources: Sources,
        survey: Survey,
        group_by: tuple[str, ...],
        options: ConvertOptions,
        hashes: Sequence[str],
        runs: Sequence[Run],
        before: Catalog | None,
    ) -> _Assembly:
        """The plan of a conversion."""
        found = vocabularies.collect(runs, survey.schema)
        if before is None:
            schema = _schema(survey.schema, runs, found)
        else:
            generations.check_nulls(runs, sources, before)
            schema, found = before.schema, generations.grown(found, before)
        placement = place(runs)
        texts = [survey.schema.get_field_index(name) for name in schema.texts]
        text_bytes = sum(int(run.text_bytes[texts].sum()) for run in runs)
        row_bytes = schema.row_bytes + -(-text_bytes // sum(survey.rows))
        block_rows = block_limit(options.block_rows, row_bytes)
        shard_rows = max(1, options.shard_bytes // max(1, row_bytes))
        kept_options = options.kept
        asked = {
            "format": FORMAT,
            "schema": schema.to_json(),
            "group_by": group_by,
            "options": kept_options,
            "sources": [
                [s.name, s.size_bytes, digest, {n: str(v) for n, v in s.folder_columns.items()}]
                for s, digest in zip(sources.files, hashes, strict=True)
            ],
        }
        parents = () if before is None else generations.parents(before)
        if parents:
            asked["parent"] = parents[-1].digest
        canonical = json.dumps(asked, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return cls(
            sources=sources,
            survey=survey,
            hashes=hashes,
            runs=runs,
            manifest=Manifest(
                schema=schema,
                keys=tuple(placement.keys.column_names),
                group_by=group_by,
                options=kept_options,
                root=str(sources.root or "") if before is None else before.manifest.root,
                identity=hashlib.sha256(canonical.encode()).hexdigest(),
                parents=parents,
                forgotten=() if before is None else before.manifest.forgotten,
            ),
            vocabularies=found,
            placement=placement,
            plans=plan_shards(
                placement.rows_per_group, block_rows=block_rows, shard_rows=shard_rows
            ),
            block_rows=block_rows,
            row_bytes=row_bytes,
            before=before,
        )

    def write(self, work: Workspace, stages: Receipts) -> None:
        """Write shards, provenance, and the manifest last."""
        if self.vocabularies:
            calls = [(run.path, self.survey.schema, self.vocabularies) for run in self.runs]
            rows = [run.rows for run in self.runs]
            stages.run("code strings", vocabularies.write_codes, calls, rows=rows)
        paths = [shard_path(plan, self._key(plan.first_group)) for plan in self.plans]
        tasks = self._tasks(paths, work)
        written = stages.run(
            "write shards",
            write_shards,
            [(task,) for task in tasks],
            rows=[task.rows for task in tasks],
            size_bytes=self.survey.size_bytes,
        )
        records = [record for batch in written for record in batch.shards]
        own = self._runs_by_source()
        provenance = stages.run(
            "write provenance",
            write_by_source,
            [(work.draft, i, rows, own[i]) for i, rows in enumerate(self.survey.rows)],
            rows=self.survey.rows,
        )
        quarantined = [(0, "")] * len(self.sources.files)
        if any(partition.lenient for partition in self.survey.partitions):
            partitions = enumerate(self.survey.partitions_by_source())
            gathered = stages.run(
                "write quarantine",
                quarantine.gather,
                [(work.runs, numbers, work.draft, i) for i, numbers in partitions],
                rows=self.survey.rows,
            )
            quarantined = [(rows, digest) for rows, digest, _ in gathered]
        refuse_changed(self.sources)
        work.move_in()
        tables = {
            "shards": index.shards(self.manifest, self.plans, paths, records),
            "blocks": index.blocks(records),
            "groups": index.groups(self.placement, self.plans),
            "sources": index.sources(
                self.sources,
                self.survey,
                self.hashes,
                [digest for _, digest in provenance],
                quarantined,
            ),
            "statistics": noted(batch.statistics for batch in written),
            "vocabulary_counts": noted(batch.vocabulary_counts for batch in written),
        }
        if self.before is not None:
            tables = generations.joined(self.before, tables)
        document = write_index(
            work.out,
            self.manifest,
            vocabularies={name: values.to_pylist() for name, values in self.vocabularies.items()},
            **tables,
        )
        work.publish(document)

    def _key(self, group: int) -> dict[str, Any]:
        keys_table = self.placement.keys
        return {name: keys_table[name][group].as_py() for name in keys_table.column_names}

    def _tasks(self, paths: Sequence[str], work: Workspace) -> list[BatchTask]:
        return [
            BatchTask(
                folder=work.draft,
                notes=work.receipts / "statistics",
                first_row=self.first_row + batch[0].first_row,
                schema=self.manifest.schema,
                source_schema=self.survey.schema,
                shards=tuple(
                    ShardTask(
                        path=paths[plan.ordinal],
                        ordinal=plan.ordinal,
                        token=shard_token(self.manifest.identity, plan.ordinal),
                        rows=plan.rows,
                    )
                    for plan in batch
                ),
                slices=tuple(
                    RunSlice.of(self.runs[piece.run], piece)
                    for piece in self.placement.slices(
                        batch[0].first_row, sum(plan.rows for plan in batch)
                    )
                ),
                block_rows=self.block_rows,
                spans=self._spans(batch),
            )
            for batch in batched(self.plans, self.row_bytes)
        ]

    def _spans(self, batch: Sequence[ShardPlan]) -> np.ndarray:
        """Where the spans of consecutive shards begin, and the number of their rows."""
        begins, first = [], batch[0].first_row
        for plan in batch:
            groups = self.placement.rows_per_group[plan.first_group :][: plan.groups]
            counts = groups if plan.groups > 1 else np.array([plan.rows])
            spans = plan_spans(counts, sum(self.survey.rows))
            begins.append(spans[:-1] + plan.first_row - first)
        return np.append(np.concatenate(begins), sum(plan.rows for plan in batch))

    def _runs_by_source(self) -> list[list[OwnRun]]:
        """The runs of each source."""
        found: list[list[OwnRun]] = [[] for _ in self.sources.files]
        for run, stretches in zip(self.runs, self.placement.stretches(), strict=True):
            firsts, counts = stretches
            found[run.source].append((run.path, run.first_row, (self.first_row + firsts, counts)))
        return found


def _schema(schema: pa.Schema, runs: Sequence[Run], coded: Mapping[str, pa.Array]) -> Schema:
    nulls = np.sum([run.nulls for run in runs], axis=0)
    null_items = np.any([run.null_items for run in runs], axis=0)
    return Schema(
        tuple(
            Column(
                name=field.name,
                type=str(field.type),
                nullable=bool(nulls[i])
                and field.name not in coded
                and not pa.types.is_null(field.type),
                coded=field.name in coded,
                null_items=bool(null_items[i]),
            )
            for i, field in enumerate(schema)
        )
    )
