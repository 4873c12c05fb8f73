"""Each column in each group: counts, nulls, bounds, mean and variance, and counts of codes.

A group that is split over shards has several entries; `merge` adds them up, for all or some groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tfstream.format.schema import FIRST_CODE, NULL_CODE, Column, Schema

STATISTICS = pa.schema(
    [
        ("group", pa.int64()),
        ("column", pa.string()),
        ("count", pa.int64()),
        ("nulls", pa.int64()),
        ("valid", pa.int64()),
        ("min", pa.float64()),
        ("max", pa.float64()),
        ("mean", pa.float64()),
        ("m2", pa.float64()),
    ]
)
"""`count` rows, of which `nulls` are null and `valid` neither null nor NaN; `m2` is the sum of
squared distances from the mean. Times count as their integers, booleans as 0 and 1, lists as their
lengths; text and tensors have only `count` and `nulls`."""

VOCABULARY_COUNTS = pa.schema(
    [("group", pa.int64()), ("column", pa.string()), ("code", pa.int32()), ("count", pa.int64())]
)
"""Rows of each value of a coded column; nulls are not listed."""

_LONG_ROW = 512
_STRIP_VALUES = 1 << 16
"""Values that are looked at at once, so that they stay in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnStatistics:
    """One column over some groups."""

    count: int
    """Rows."""
    nulls: int
    """Rows without a value."""
    valid: int
    """Rows whose value is neither null nor NaN; 0 for text."""
    min: float | None
    """Smallest valid value; None if there is none, as for the next three."""
    max: float | None
    """Largest valid value."""
    mean: float | None
    """Mean of the valid values."""
    variance: float | None
    """Mean squared distance from the mean."""


def compute(
    schema: Schema,
    packs: Sequence[np.ndarray],
    missing: Mapping[str, np.ndarray],
    groups: np.ndarray,
    starts: np.ndarray,
) -> tuple[pa.Table, pa.Table]:
    """The entries of consecutive rows.

    Args:
        schema: the columns.
        packs: the values of each of its packs, (rows, columns of the pack).
        missing: for each column that is not coded and has nulls here: (rows,) bool, true for null.
        groups: (groups,) int64 ordinals of the groups that the rows belong to, one after the other.
        starts: (groups + 1,) int64: where each begins, and the number of rows.

    Returns:
        Tables with the schemas STATISTICS and VOCABULARY_COUNTS.
    """
    counts = np.diff(starts)
    coded = {column.name for column in schema.columns if column.coded}
    counted = coded | {column.name for column in schema.columns if column.shape}
    names: list[str] = []
    numbers, tables, vocabularies = [], [], []
    for pack, matrix in zip(schema.packs, packs, strict=True):
        plain = [j for j, name in enumerate(pack.columns) if name not in counted]
        names += [pack.columns[j] for j in plain]
        numbers.append(matrix if len(plain) == len(pack.columns) else matrix[:, plain])
        for j, name in enumerate(pack.columns):
            if name in coded:
                codes = matrix[:, j]
                tables.append(
                    _entries(groups, [name], counts, _per_group(codes == NULL_CODE, starts))
                )
                vocabularies.append(_code_counts(name, codes, groups, counts))
    if names:
        moments = _moments(numbers, _mask(names, missing, int(starts[-1])), starts)
        moments = _scaled(moments, [schema[name] for name in names])
        nulls = np.stack([_per_group(missing.get(name), starts) for name in names])
        tables.append(_entries(groups, names, counts, nulls, moments))
    for column in schema.columns:
        if column.dtype is None or column.shape:
            lost = missing.get(column.name)
            nulls = counts if column.is_null else _per_group(lost, starts)
            tables.append(_entries(groups, [column.name], counts, nulls))
    empty = VOCABULARY_COUNTS.empty_table()
    return pa.concat_tables(tables), pa.concat_tables([empty, *vocabularies])


def merge(statistics: pa.Table, groups: np.ndarray | None) -> dict[str, ColumnStatistics]:
    """The statistics of each column over the given groups, all if None, by the column's name.

    A column without an entry for any of the groups is left out.
    """
    chosen = statistics["group"].to_numpy()
    keep = np.ones(len(chosen), bool) if groups is None else np.isin(chosen, groups)
    names = statistics["column"].combine_chunks().dictionary_encode()
    if isinstance(names, pa.ChunkedArray):
        names = names.combine_chunks()
    places = names.indices.to_numpy()
    numbers = {
        field: statistics[field].to_numpy()
        for field in ("count", "nulls", "valid", "min", "max", "mean", "m2")
    }
    merged = {}
    for place, name in enumerate(names.dictionary.to_pylist()):
        rows = np.flatnonzero(keep & (places == place))
        if len(rows):
            merged[name] = _merged({field: values[rows] for field, values in numbers.items()})
    return merged


def _merged(entries: Mapping[str, np.ndarray]) -> ColumnStatistics:
    count, nulls = int(entries["count"].sum()), int(entries["nulls"].sum())
    some = entries["valid"] > 0
    weights = entries["valid"][some].astype(np.float64)
    valid = int(entries["valid"].sum())
    if not valid:
        return ColumnStatistics(
            count=count, nulls=nulls, valid=0, min=None, max=None, mean=None, variance=None
        )
    means = entries["mean"][some]
    with np.errstate(invalid="ignore", over="ignore"):
        mean = float((weights * means).sum() / valid)
        m2 = float(entries["m2"][some].sum() + (weights * (means - mean) ** 2).sum())
    return ColumnStatistics(
        count=count,
        nulls=nulls,
        valid=valid,
        min=float(entries["min"][some].min()),
        max=float(entries["max"][some].max()),
        mean=mean,
        variance=m2 / valid,
    )


def _mask(names: Sequence[str], missing: Mapping[str, np.ndarray], rows: int) -> np.ndarray | None:
    """(rows, columns) bool, whether a value is null; None if none is."""
    if not any(name in missing for name in names):
        return None
    mask = np.zeros((rows, len(names)), bool)
    for j, name in enumerate(names):
        if name in missing:
            mask[:, j] = missing[name]
    return mask


def _moments(
    parts: Sequence[np.ndarray], missing: np.ndarray | None, starts: np.ndarray
) -> list[np.ndarray]:
    """Valid counts, minima, maxima, means and m2, (groups, columns of all parts) each."""
    groups, columns = len(starts) - 1, sum(part.shape[1] for part in parts)
    valid, mean, m2 = (np.zeros((groups, columns)) for _ in range(3))
    low, high = np.full((groups, columns), np.inf), np.full((groups, columns), -np.inf)
    rows = max(1, _STRIP_VALUES // columns)
    buffer = np.empty((min(rows, int(starts[-1])), columns))
    with np.errstate(invalid="ignore", over="ignore"):
        for first, cuts in _strips(starts, rows):
            segments = slice(first, first + len(cuts) - 1)
            span = slice(cuts[0], cuts[-1])
            strip = np.concatenate(
                [part[span] for part in parts], axis=1, out=buffer[: cuts[-1] - cuts[0]]
            )
            bad = missing[span] if missing is not None else None
            n, a, b, m, s = _segments(strip, bad, cuts[:-1] - cuts[0], np.diff(cuts))
            # Chan, Golub and LeVeque: moments of two samples together.
            total = valid[segments] + n
            delta = m - mean[segments]
            share = n / np.maximum(total, 1)
            m2[segments] += s + delta * delta * valid[segments] * share
            mean[segments] += delta * share
            valid[segments] = total
            low[segments] = np.minimum(low[segments], a)
            high[segments] = np.maximum(high[segments], b)
    return [valid.astype(np.int64), low, high, mean, m2]


def _scaled(moments: list[np.ndarray], columns: Sequence[Column]) -> list[np.ndarray]:
    """The moments of the values of decimals, not of the whole numbers that are stored."""
    divisors = np.array([1.0 if column.is_list else column.divisor for column in columns])
    if (divisors == 1).all():
        return moments
    valid, low, high, mean, m2 = moments
    return [valid, low / divisors, high / divisors, mean / divisors, m2 / divisors**2]


def _strips(starts: np.ndarray, rows: int) -> Iterator[tuple[int, np.ndarray]]:
    """Strips of rows: the first group of each, and the cuts between groups, ends included."""
    for begin in range(int(starts[0]), int(starts[-1]), rows):
        end = min(begin + rows, int(starts[-1]))
        first = int(np.searchsorted(starts, begin, side="right")) - 1
        last = int(np.searchsorted(starts, end, side="left"))
        cuts = starts[first : last + 1].copy()
        cuts[0], cuts[-1] = begin, end
        yield first, cuts


def _segments(
    strip: np.ndarray, missing: np.ndarray | None, begins: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Valid counts, minima, maxima, means and m2 of the segments of a strip.

    The strip is overwritten: other arrays of its size would not stay in the cache beside it.
    """

    def reduced(ufunc: np.ufunc, values: np.ndarray) -> np.ndarray:
        if len(begins) == 1:
            return _column_wise(ufunc, values)
        return np.asarray(ufunc.reduceat(values, begins, axis=0))

    counts, sums, bad = lengths[:, np.newaxis].astype(np.float64), reduced(np.add, strip), missing
    if np.isnan(sums).any():
        nan = np.isnan(strip)
        bad = nan if bad is None else nan | bad
    if bad is None:
        low, high = reduced(np.minimum, strip), reduced(np.maximum, strip)
    else:
        counts = reduced(np.add, (~bad).astype(np.float64))
        np.copyto(strip, np.inf, where=bad)
        low = reduced(np.minimum, strip)
        np.copyto(strip, -np.inf, where=bad)
        high = reduced(np.maximum, strip)
        np.copyto(strip, 0, where=bad)
        sums = reduced(np.add, strip)
    means = sums / np.maximum(counts, 1)
    strip -= means if len(begins) == 1 else np.repeat(means, lengths, axis=0)
    if bad is not None:
        np.copyto(strip, 0, where=bad)
    if len(begins) == 1:
        squares = np.einsum("ij,ij->j", strip, strip)[np.newaxis]
    else:
        squares = reduced(np.add, np.multiply(strip, strip, out=strip))
    return counts, low, high, means, squares


def _column_wise(ufunc: np.ufunc, values: np.ndarray) -> np.ndarray:
    """The reduction of each column, (1, columns).

    Several rows are taken as one long row first: numpy's cost is by the row.
    """
    rows, columns = values.shape
    fold = max(1, _LONG_ROW // columns)
    whole = rows - rows % fold
    parts = values[whole:]
    if whole and values.flags.c_contiguous:
        long = ufunc.reduce(values[:whole].reshape(-1, fold * columns), axis=0)
        parts = np.concatenate([long.reshape(fold, columns), parts])
    else:
        parts = values
    return np.asarray(ufunc.reduce(parts, axis=0))[np.newaxis]


def _per_group(flags: np.ndarray | None, starts: np.ndarray) -> np.ndarray:
    """How many flags are set in each group."""
    if flags is None:
        return np.zeros(len(starts) - 1, np.int64)
    ends = np.concatenate([[0], np.cumsum(flags, dtype=np.int64)])
    return np.asarray(ends[starts[1:]] - ends[starts[:-1]])


def _entries(
    groups: np.ndarray,
    names: Sequence[str],
    counts: np.ndarray,
    nulls: np.ndarray,
    moments: Sequence[np.ndarray] | None = None,
) -> pa.Table:
    """The entries of some columns, one column after the other."""
    total = len(groups) * len(names)
    places = pa.array(np.repeat(np.arange(len(names)), len(groups)))
    columns = [
        np.tile(groups, len(names)),
        pa.array(names).take(places),
        np.tile(counts, len(names)),
    ]
    columns.append(nulls.reshape(-1))
    if moments is None:
        columns += [np.zeros(total, np.int64), *(pa.nulls(total, pa.float64()) for _ in range(4))]
    else:
        valid, *others = (moment.T.reshape(-1) for moment in moments)
        columns += [valid, *(pa.array(values, mask=valid == 0) for values in others)]
    return pa.table([pa.array(column) for column in columns], schema=STATISTICS)


def _code_counts(name: str, codes: np.ndarray, groups: np.ndarray, counts: np.ndarray) -> pa.Table:
    size = int(codes.max(initial=0)) + 1
    places = np.repeat(np.arange(len(groups)), counts) * size + codes
    if len(groups) * size <= 4 * len(codes) + 65_536:
        found = np.bincount(places, minlength=len(groups) * size)
        present = np.flatnonzero(found)
        rows = found[present]
    else:
        present, rows = np.unique(places, return_counts=True)
    kept = present % size >= FIRST_CODE
    present, rows = present[kept], rows[kept]
    columns = [
        groups[present // size],
        pa.repeat(name, len(present)),
        (present % size).astype(np.int32),
        rows,
    ]
    return pa.table([pa.array(column) for column in columns], schema=VOCABULARY_COUNTS)
