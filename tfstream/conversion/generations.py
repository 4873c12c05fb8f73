"""What an append keeps of the data set that it adds to, and what it adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfstream import storage
from tfstream.conversion import frame_source
from tfstream.conversion.csv_source import unified
from tfstream.conversion.runs import Run
from tfstream.conversion.sources import Sources
from tfstream.conversion.survey import Survey
from tfstream.errors import DataError, UsageError
from tfstream.format.document import Parent
from tfstream.format.index_files import generation_folder
from tfstream.format.manifest import Catalog
from tfstream.format.schema import VOCABULARY_SIZE


def rooted(sources: Sources, before: Catalog) -> Sources:
    """New sources, named from the folder that the data set's names begin at.

    Raises:
        UsageError: if one lies elsewhere, is a source already, or is no file where those are.
    """
    root, known = before.manifest.root, before.sources["path"].to_pylist()
    if (sources.root is None) != (not root):
        has, given = "partitions of a DataFrame", "files"
        has, given = (given, has) if root else (has, given)
        raise UsageError(
            f"the sources of {before.folder} are {has}, and {given} cannot follow them; "
            f"give {has}, or convert into another folder"
        )
    if not root:
        # They are numbered on: what a frame is called does not tell whether it is another one.
        numbered = [
            replace(source, name=frame_source.name(len(known) + i))
            for i, source in enumerate(sources.files)
        ]
        return replace(sources, files=tuple(numbered))
    files = []
    for source in sources.files:
        if not storage.lies_in(source.path, storage.place(root)):
            raise UsageError(
                f"{source.path} does not lie below {root}, where the names of the sources of "
                f"{before.folder} begin; move it there"
            )
        name = storage.relative(source.path, storage.place(root))
        if name in known:
            raise UsageError(
                f"{source.path} is a source of {before.folder} already; name new files alone"
            )
        files.append(replace(source, name=name))
    return replace(sources, files=tuple(files))


def last_sources(before: Catalog) -> pa.Table:
    """Those of the last generation."""
    parents = before.manifest.parents
    return before.sources.slice(parents[-1].sources if parents else 0)


def may_be_last(sources: Sources, before: Catalog) -> bool:
    """Whether these are called and as long as the sources of the last generation."""
    known = last_sources(before)
    return len(known) == len(sources.files) and all(
        (source.sha256 or source.path.as_posix() == f"{before.manifest.root}/{name}")
        and source.size_bytes == size_bytes
        for source, name, size_bytes in zip(
            sources.files, known["path"].to_pylist(), known["size_bytes"].to_pylist(), strict=True
        )
    )


def fitted(survey: Survey, sources: Sources, before: Catalog) -> Survey:
    """The survey of new sources, to be read with the columns and types of the data set.

    Raises:
        DataError: if they have others.
    """
    schema = pa.schema([(column.name, column.arrow) for column in before.schema.columns])
    is_csv = sources.kind.name == "CSV"
    for name in dict.fromkeys((*schema.names, *survey.schema.names)):
        old, new = (
            s.field(name).type if name in s.names else None for s in (schema, survey.schema)
        )
        # What a CSV file has fits if the types that were found before can hold it.
        fits = old == new or (is_csv and None not in {old, new} and unified(old, new) == old)
        if not fits:
            raise DataError(
                f"the sources differ from {before.folder} in column {name!r}: it has "
                f"{old or 'no such column'}, but {sources.files[0].path} has "
                f"{new or 'no such column'}; give them the same columns and types"
            )
    partitions = tuple(p.retyped(schema) if is_csv else p for p in survey.partitions)
    return replace(survey, schema=schema, partitions=partitions)


def check_nulls(runs: Sequence[Run], sources: Sources, before: Catalog) -> None:
    """Nothing, if nulls come in columns alone whose blocks have room for them.

    Raises:
        DataError: if not, naming column and file.
    """
    for i, column in enumerate(before.schema.columns):
        has_room = column.nullable or column.coded or pa.types.is_null(column.arrow)
        for run in runs:
            for place, lacks in (
                ("", bool(run.nulls[i]) and not has_room),
                ("the lists of ", bool(run.null_items[i]) and not column.null_items),
            ):
                if lacks:
                    raise DataError(
                        f"{sources.files[run.source].path} has nulls in {place}column "
                        f"{column.name!r}, which has none in {before.folder}; "
                        "fill them, or convert all sources again"
                    )


def grown(found: Mapping[str, pa.Array], before: Catalog) -> dict[str, pa.Array]:
    """The vocabularies with the new values of each behind the old ones, whose codes stay.

    Args:
        found: the sorted values of each string column of the new sources that has few enough.
        before: the data set.

    Raises:
        DataError: if one has too many now.
    """
    vocabularies = {}
    for name, old in before.vocabularies.items():
        new = found.get(name)
        if new is not None:
            new = new.filter(pc.invert(pc.is_in(new, value_set=old)))
        if new is None or len(old) + len(new) > VOCABULARY_SIZE:
            raise DataError(
                f"column {name!r} of {before.folder} would have more than {VOCABULARY_SIZE:,} "
                "values, too many for codes; convert all sources again"
            )
        vocabularies[name] = pa.concat_arrays([old, new])
    return vocabularies


def parents(before: Catalog) -> tuple[Parent, ...]:
    """The parents of the next generation."""
    last = Parent(
        digest=before.digest, shards=before.shards.num_rows, sources=before.sources.num_rows
    )
    return (*before.manifest.parents, last)


def joined(before: Catalog, tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """The tables of the index of all generations.

    Args:
        before: the data set.
        tables: those of the new generation, as `write_index` takes them; all that is counted in
            them, row ids too, begins at 0. Statistics name their rows as the data set does.
    """
    generation = generation_folder(before.folder, before.manifest.generation + 1)
    prefix = storage.relative(generation, before.folder)
    paths = [f"{prefix}/{path}" for path in tables["shards"]["path"].to_pylist()]
    rows, shards = before.rows, before.shards.num_rows
    moved = {
        "shards": _shifted(_with(tables["shards"], path=pa.array(paths)), first_row=rows),
        "blocks": _shifted(tables["blocks"], shard=shards, first_row=rows),
        "groups": _shifted(tables["groups"], first_shard=shards, first_row=rows),
        "sources": tables["sources"],
        "statistics": tables["statistics"],
        "vocabulary_counts": tables["vocabulary_counts"],
    }
    return {
        name: pa.concat_tables([old, table.cast(old.schema)])
        for name, table in moved.items()
        for old in [getattr(before, name)]
    }


def _shifted(table: pa.Table, **offsets: int) -> pa.Table:
    changed = {
        name: pa.array(table[name].to_numpy() + np.int64(offset)).cast(table[name].type)
        for name, offset in offsets.items()
    }
    return _with(table, **changed)


def _with(table: pa.Table, **columns: Any) -> pa.Table:  # noqa: ANN401 - arrays
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    return table
