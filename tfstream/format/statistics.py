"""Each column in each span of rows: counts, nulls, bounds, mean, variance, distinct values.

A span is consecutive rows of one shard: those of one large group, or of several small groups that
follow each other. `compute` makes the entries of spans, `merge` adds up those of any spans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tfstream.format import distinct
from tfstream.format.hashing import hashes
from tfstream.format.moments import Moments, bases, bits, strips
from tfstream.format.schema import FIRST_CODE, NULL_CODE, Column, Schema

STATISTICS = pa.schema(
    [
        ("first_row", pa.int64()),
        ("column", pa.string()),
        ("count", pa.int64()),
        ("nulls", pa.int64()),
        ("valid", pa.int64()),
        ("min", pa.binary()),
        ("max", pa.binary()),
        ("mean", pa.float64()),
        ("m2", pa.float64()),
        ("distinct", pa.binary()),
    ]
)
"""`first_row` is the row id that the span begins at, `count` its rows, of which `nulls` are null
and `valid` neither null nor NaN. `min` and `max` are values as they are stored: little-endian bytes
of a number, or of a text, null above LONGEST_BOUND. `m2` is the sum of squared distances from the
mean, both null where they are infinite; the mean of integers of 8 bytes is told above `min`, since
float64 does not hold them. `distinct` is a sketch. Times are integers, booleans 0 and 1, decimals
without their point, lists their lengths; text has no mean, tensors and codes have counts alone."""

VOCABULARY_COUNTS = pa.schema(
    [
        ("first_row", pa.int64()),
        ("column", pa.string()),
        ("code", pa.int32()),
        ("count", pa.int64()),
    ]
)
"""Rows of each value of a coded column in each span; nulls are not listed."""

LONGEST_BOUND = 256
"""Bytes of a text up to which it is kept as a bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnStatistics:
    """One column over some rows."""

    count: int
    """Rows."""
    nulls: int
    """Rows without a value."""
    valid: int
    """Rows whose value is neither null nor NaN."""
    min: int | float | Decimal | str | bytes | None
    """Smallest valid value, exactly: a time as its integer, a boolean as 0 or 1, a list by its
    length, as all that follows. None if there is none, for tensors and decimals of more than 18
    digits, and if it may be a text of more than 256 bytes."""
    max: int | float | Decimal | str | bytes | None
    """Largest valid value."""
    mean: float | None
    """Mean of the valid values; None if there is none, for text and tensors, and if a value or the
    sum of them is infinite; so the next."""
    variance: float | None
    """Mean squared distance from the mean."""
    distinct: int | None
    """Distinct valid values: exact for coded columns and up to 127, else an estimate with a
    standard error of 3.3 %. None for tensors."""
    values: pa.Table | None = None
    """For a coded column: value, code and rows of each value that is there, in the order of the
    codes."""


def compute(  # noqa: PLR0913, PLR0917 - what rows consist of, and where they lie
    schema: Schema,
    packs: Sequence[NDArray[Any]],
    missing: Mapping[str, NDArray[Any]],
    texts: Mapping[str, pa.Array],
    starts: NDArray[Any],
    first_row: int,
) -> tuple[pa.Table, pa.Table]:
    """The entries of consecutive rows.

    Args:
        schema: the columns.
        packs: the values of each of its packs, (rows, columns of the pack).
        missing: for each column that is not coded and has nulls here: (rows,) bool, true for null.
        texts: for each column of uncoded text: (rows,) binary, empty where null.
        starts: (spans + 1,) int64: where each span begins, and the number of rows.
        first_row: row id of the first row.

    Returns:
        Tables with the schemas STATISTICS and VOCABULARY_COUNTS.
    """
    tables = [STATISTICS.empty_table()]
    vocabularies = [VOCABULARY_COUNTS.empty_table()]
    for pack, matrix in zip(schema.packs, packs, strict=True):
        columns = [schema[name] for name in pack.columns]
        numeric = [j for j, c in enumerate(columns) if not c.coded and not c.shape]
        if numeric:
            names = [pack.columns[j] for j in numeric]
            values = matrix if len(numeric) == len(columns) else matrix[:, numeric]
            tables.append(_numbers(names, values, missing, starts))
        for j, column in enumerate(columns):
            if column.coded:
                tables.append(_bare(column.name, matrix[:, j] == NULL_CODE, starts))
                vocabularies.append(_code_counts(column.name, matrix[:, j], starts))
    for column in schema.columns:
        lost = missing.get(column.name)
        if column.is_text and not column.coded:
            tables.append(_texts(column.name, texts[column.name], lost, starts))
        elif column.shape:
            tables.append(_bare(column.name, lost, starts))
        elif column.is_null:
            tables.append(_bare(column.name, np.ones(starts[-1], bool), starts))
    entries, counts = (
        table.set_column(0, "first_row", pc.add(table["first_row"], first_row))
        for table in (pa.concat_tables(tables), pa.concat_tables(vocabularies))
    )
    return entries, counts


def merge(
    schema: Schema,
    entries: pa.Table,
    vocabulary_counts: pa.Table,
    vocabularies: Mapping[str, pa.Array],
) -> dict[str, ColumnStatistics]:
    """The statistics of each column over the spans of some entries, by the column's name.

    Args:
        schema: the columns; those without an entry are left out.
        entries: STATISTICS of some spans.
        vocabulary_counts: VOCABULARY_COUNTS of the same spans.
        vocabularies: the sorted values of each coded column.
    """
    merged = {}
    of_entries, of_counts = _by_column(entries), _by_column(vocabulary_counts)
    for column in (column for column in schema.columns if column.name in of_entries):
        found = entries.take(of_entries[column.name])
        if column.coded:
            rows = of_counts.get(column.name, pa.array([], pa.int64()))
            merged[column.name] = _merged_codes(
                found, vocabulary_counts.take(rows), vocabularies[column.name]
            )
        else:
            merged[column.name] = _merged(column, found)
    return merged


def nulls(entries: pa.Table) -> dict[str, int]:
    """The nulls of each column over the spans of some entries, by the column's name."""
    sums = entries.group_by("column").aggregate([("nulls", "sum")])
    return dict(zip(sums["column"].to_pylist(), sums["nulls_sum"].to_pylist(), strict=True))


def _by_column(table: pa.Table) -> dict[str, pa.Array]:
    """The rows of each column's entries."""
    names = pa.concat_arrays(
        [pa.array([], pa.string()), *table["column"].chunks]
    ).dictionary_encode()
    order = np.argsort(names.indices.to_numpy(), kind="stable")
    cuts = np.cumsum(np.bincount(names.indices.to_numpy(), minlength=len(names.dictionary)))
    parts = np.split(order, cuts[:-1]) if len(cuts) else []
    return {
        name: pa.array(part) for name, part in zip(names.dictionary.to_pylist(), parts, strict=True)
    }


def _merged(column: Column, entries: pa.Table) -> ColumnStatistics:
    counts = entries["valid"].to_numpy()
    some, valid = np.flatnonzero(counts > 0), int(counts.sum())
    mean = variance = None
    finite = len(entries) - entries["mean"].null_count == len(some)
    if valid and finite and column.dtype is not None and not column.shape:
        weights = counts[some].astype(np.float64)
        least = b"".join(entries["min"].take(pa.array(some)).to_pylist())
        base, above = bases(np.frombuffer(least, column.dtype))
        means = entries["mean"].to_numpy()[some] + above
        with np.errstate(invalid="ignore", over="ignore"):
            stored = float((weights * means).sum() / valid)
            m2 = entries["m2"].to_numpy()[some].sum() + (weights * (means - stored) ** 2).sum()
            divisor = 1.0 if column.is_list else column.divisor
            mean, variance = (base + stored) / divisor, float(m2 / valid) / divisor**2
    present = entries.take(pa.array(some))
    return ColumnStatistics(
        count=pc.sum(entries["count"]).as_py(),
        nulls=pc.sum(entries["nulls"]).as_py(),
        valid=valid,
        min=_bound(column, present["min"], min),
        max=_bound(column, present["max"], max),
        mean=mean,
        variance=variance,
        distinct=None
        if column.shape
        else distinct.estimate(distinct.union(present["distinct"].to_pylist())),
    )


def _bound(column: Column, values: pa.ChunkedArray, choose: Any) -> Any:  # noqa: ANN401 - min or max
    """The least or greatest of the bounds of spans; None without any, or if one is unknown."""
    if not len(values) or values.null_count:
        return None
    if column.dtype is not None:
        bound = choose(np.frombuffer(b"".join(values.to_pylist()), column.dtype).tolist())
        is_decimal = pa.types.is_decimal(column.arrow)
        return Decimal(bound).scaleb(-column.arrow.scale) if is_decimal else bound
    if pa.types.is_decimal(column.arrow):
        return None  # Stored as text, whose order is not that of numbers.
    text: bytes = choose(values.to_pylist())
    return text.decode() if pa.types.is_string(column.arrow) else text


def _merged_codes(entries: pa.Table, counts: pa.Table, vocabulary: pa.Array) -> ColumnStatistics:
    rows = np.zeros(len(vocabulary) + FIRST_CODE, np.int64)
    np.add.at(rows, counts["code"].to_numpy(), counts["count"].to_numpy())
    seen = np.flatnonzero(rows)
    values = vocabulary.take(pa.array(seen - FIRST_CODE))
    bounds = pc.min_max(values)
    return ColumnStatistics(
        count=pc.sum(entries["count"]).as_py(),
        nulls=pc.sum(entries["nulls"]).as_py(),
        valid=int(rows.sum()),
        min=bounds["min"].as_py(),
        max=bounds["max"].as_py(),
        mean=None,
        variance=None,
        distinct=len(seen),
        values=pa.table({"value": values, "code": seen.astype(np.int32), "rows": rows[seen]}),
    )


def _numbers(
    names: Sequence[str],
    values: NDArray[Any],
    missing: Mapping[str, NDArray[Any]],
    starts: NDArray[Any],
) -> pa.Table:
    """The entries of columns of numbers, one column after the other.

    Args:
        names: their names.
        values: (rows, columns).
        missing: as for `compute`.
        starts: as for `compute`.
    """
    mask = _mask(names, missing, len(values))
    moments = Moments(len(starts) - 1, len(names), values.dtype)
    for first, cuts in strips(starts, len(names)):
        rows = slice(cuts[0], cuts[-1])
        moments.add(first, values[rows], None if mask is None else mask[rows], cuts - cuts[0])
    valid, mean = moments.valid.T.reshape(-1).astype(np.int64), moments.mean.T.reshape(-1)
    none, endless = valid == 0, (valid == 0) | ~np.isfinite(mean)
    few = moments.few
    sketches = [
        distinct.sketch(
            moments.registers[i, j], bits(_present(values[a:b, j], mask, slice(a, b), j))
        )
        if few[i, j]
        else moments.registers[i, j].tobytes()
        for j in range(len(names))
        for i, (a, b) in enumerate(pairwise(starts))
    ]
    spans, counts = np.tile(starts[:-1], len(names)), np.tile(np.diff(starts), len(names))
    columns = [
        spans,
        pa.array(names).take(pa.array(np.repeat(np.arange(len(names)), len(starts) - 1))),
        counts,
        np.concatenate([_per_span(missing.get(name), starts) for name in names]),
        valid,
        _as_bytes(moments.low, none),
        _as_bytes(moments.high, none),
        pa.array(mean, mask=endless),
        pa.array(moments.m2.T.reshape(-1), mask=endless),
        pa.array(sketches, pa.binary()),
    ]
    return pa.table([pa.array(column) for column in columns], schema=STATISTICS)


def _mask(
    names: Sequence[str], missing: Mapping[str, NDArray[Any]], rows: int
) -> NDArray[Any] | None:
    """(rows, columns) bool, whether a value is null; None if none is."""
    if not any(name in missing for name in names):
        return None
    mask = np.zeros((rows, len(names)), bool)
    for j, name in enumerate(names):
        if name in missing:
            mask[:, j] = missing[name]
    return mask


def _per_span(flags: NDArray[Any] | None, starts: NDArray[Any]) -> NDArray[Any]:
    """How many flags are set in each span."""
    if flags is None:
        return np.zeros(len(starts) - 1, np.int64)
    ends = np.concatenate([[0], np.cumsum(flags, dtype=np.int64)])
    return np.asarray(ends[starts[1:]] - ends[starts[:-1]])


def _texts(
    name: str, values: pa.Array, missing: NDArray[Any] | None, starts: NDArray[Any]
) -> pa.Table:
    """The entries of an uncoded text column."""
    hashed = hashes(values)[:, np.newaxis]
    registers = np.zeros((len(starts) - 1, 1, distinct.REGISTERS), np.uint8)
    mask = None if missing is None else missing[:, np.newaxis]
    segment = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    distinct.update(registers, hashed, segment, mask)
    sketches, bounds = [], []
    for i, (a, b) in enumerate(pairwise(starts.tolist())):
        sketches.append(
            distinct.sketch(registers[i, 0], _present(hashed[a:b, 0], mask, slice(a, b), 0))
        )
        part = values.slice(a, b - a)
        there = part if missing is None else part.filter(pa.array(~missing[a:b]))
        bounds.append(pc.min_max(there).as_py())
    table = _bare(name, missing, starts)
    for bound in ("min", "max"):
        kept = [one[bound] for one in bounds]
        short = [b if b is not None and len(b) <= LONGEST_BOUND else None for b in kept]
        place = STATISTICS.get_field_index(bound)
        table = table.set_column(place, STATISTICS.field(place), pa.array(short, pa.binary()))
    place = STATISTICS.get_field_index("distinct")
    return table.set_column(place, STATISTICS.field(place), pa.array(sketches, pa.binary()))


def _bare(name: str, missing: NDArray[Any] | None, starts: NDArray[Any]) -> pa.Table:
    """Entries of a column that know its nulls and no more."""
    counts, lost = np.diff(starts), _per_span(missing, starts)
    known = {
        "first_row": starts[:-1],
        "column": pa.repeat(name, len(counts)),
        "count": counts,
        "nulls": lost,
        "valid": counts - lost,
    }
    return pa.table(
        [
            pa.array(known[field.name])
            if field.name in known
            else pa.nulls(len(counts), field.type)
            for field in STATISTICS
        ],
        schema=STATISTICS,
    )


def _present(
    values: NDArray[Any], mask: NDArray[Any] | None, rows: slice, column: int
) -> NDArray[Any]:
    """The values of one column in some rows that are neither null nor NaN."""
    bad = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)
    if mask is not None:
        bad |= mask[rows, column]
    return values[~bad]


def _as_bytes(values: NDArray[Any], none: NDArray[Any]) -> pa.Array:
    """(spans, columns) values as bytes, one column after the other; null where there is none."""
    flat = np.ascontiguousarray(values.T).reshape(-1)
    fixed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(values.dtype.itemsize), len(flat), [None, pa.py_buffer(flat)]
    )
    return pc.if_else(pa.array(none), pa.scalar(None, pa.binary()), fixed.cast(pa.binary()))


def _code_counts(name: str, codes: NDArray[Any], starts: NDArray[Any]) -> pa.Table:
    spans, size = len(starts) - 1, int(codes.max(initial=0)) + 1
    places = np.repeat(np.arange(spans), np.diff(starts)) * size + codes
    if spans * size <= 4 * len(codes) + 65_536:
        found = np.bincount(places, minlength=spans * size)
        present = np.flatnonzero(found)
        rows = found[present]
    else:
        present, rows = np.unique(places, return_counts=True)
    kept = present % size >= FIRST_CODE
    present, rows = present[kept], rows[kept]
    columns = [
        starts[present // size],
        pa.repeat(name, len(present)),
        (present % size).astype(np.int32),
        rows,
    ]
    return pa.table([pa.array(column) for column in columns], schema=VOCABULARY_COUNTS)
