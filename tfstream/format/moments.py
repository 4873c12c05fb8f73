"""Counts, bounds, means and squares of many columns at once, strip by strip."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfstream.format import distinct

_LONG_ROW = 512
_FAR = 2.0**62
_WIDE_BYTES = 8
_STRIP_VALUES = 1 << 16
"""Values that are looked at at once, so that they stay in the cache."""
_LONG_SPANS = 8
"""Spans from this part of a strip on have strips of their own."""


class Moments:
    """Valid counts, bounds, means, m2 and registers of spans, (spans, columns) each."""

    def __init__(self, spans: int, columns: int, dtype: np.dtype[Any]) -> None:
        """Of no rows yet."""
        floating = np.issubdtype(dtype, np.floating)
        self._top = np.array(np.inf if floating else np.iinfo(dtype).max, dtype)
        self._bottom = np.array(-np.inf if floating else np.iinfo(dtype).min, dtype)
        shape = (spans, columns)
        # Eight bytes of an integer are more than float64 holds: its moments are about an origin.
        is_wide = dtype.kind in "iu" and dtype.itemsize == _WIDE_BYTES
        self._origin = np.zeros(shape, dtype) if is_wide else None
        self.valid, self._mean, self.m2 = (np.zeros(shape) for _ in range(3))
        self.low, self.high = np.full(shape, self._top), np.full(shape, self._bottom)
        self.registers = np.zeros((*shape, distinct.REGISTERS), np.uint8)
        # One for all strips: it stays in the cache.
        self._buffer = np.empty((max(1, _STRIP_VALUES // columns), columns))

    @property
    def mean(self) -> NDArray[Any]:
        """The means; of integers of eight bytes what they are above the least value."""
        if self._origin is None:
            return self._mean
        return np.asarray(self._mean + (self._origin - self.low).view("<u8").astype(np.float64))

    @property
    def few(self) -> NDArray[Any]:
        """Whether there may be so few distinct values that they are listed."""
        return np.asarray((self.registers > 0).sum(axis=2) <= distinct.MOST_LISTED)

    def add(
        self, first: int, strip: NDArray[Any], missing: NDArray[Any] | None, cuts: NDArray[Any]
    ) -> None:
        """Take in a strip of rows.

        Args:
            first: the span of its first row.
            strip: (rows, columns).
            missing: (rows, columns) bool, true for null; None if none is.
            cuts: where its spans begin, and the number of rows.
        """
        spans = slice(first, first + len(cuts) - 1)
        begins, lengths = cuts[:-1], np.diff(cuts)

        def reduced(ufunc: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
            if len(begins) == 1:
                return _column_wise(ufunc, values)
            return np.asarray(ufunc.reduceat(values, begins, axis=0))

        with np.errstate(invalid="ignore", over="ignore"):
            wide = self._buffer[: len(strip)]
            if self._origin is None:
                wide[:] = strip
            else:
                self._fill(wide, self._origin[spans], (strip, missing), cuts, spans)
            sums = reduced(np.add, wide)
            bad = missing
            # A sum of inf and -inf is NaN too.
            if np.isnan(sums).any():
                nan = np.isnan(strip)
                bad = nan if bad is None else nan | bad
            counts = lengths[:, np.newaxis].astype(np.float64)
            low = high = strip
            if bad is not None:
                counts = reduced(np.add, (~bad).astype(np.float64))
                low, high = np.where(bad, self._top, strip), np.where(bad, self._bottom, strip)
                np.copyto(wide, 0, where=bad)
                sums = reduced(np.add, wide)
            means = sums / np.maximum(counts, 1)
            wide -= means if len(begins) == 1 else np.repeat(means, lengths, axis=0)
            if bad is not None:
                np.copyto(wide, 0, where=bad)
            if len(begins) == 1:
                squares = np.einsum("ij,ij->j", wide, wide)[np.newaxis]
            else:
                squares = reduced(np.add, np.multiply(wide, wide, out=wide))
            # Chan, Golub and LeVeque: moments of two samples together.
            total = self.valid[spans] + counts
            delta = means - self._mean[spans]
            share = counts / np.maximum(total, 1)
            # In this order: the square of a large delta alone would overflow, and inf · 0 is NaN.
            self.m2[spans] += squares + delta * share * self.valid[spans] * delta
            self._mean[spans] += delta * share
            self.valid[spans] = total
        self.low[spans] = np.minimum(self.low[spans], reduced(np.minimum, low))
        self.high[spans] = np.maximum(self.high[spans], reduced(np.maximum, high))
        segment = np.repeat(np.arange(len(begins)), lengths) if len(begins) > 1 else begins
        distinct.update(self.registers[spans], bits(strip), segment, bad)

    def _fill(
        self,
        wide: NDArray[Any],
        origin: NDArray[Any],
        values: tuple[NDArray[Any], NDArray[Any] | None],
        cuts: NDArray[Any],
        spans: slice,
    ) -> None:
        """Integers less the origin of their span, which is the least value of its first strip."""
        strip, missing = values
        low, high = strip, strip
        if missing is not None:
            low, high = np.where(missing, self._top, strip), np.where(missing, self._bottom, strip)
        least, most = (
            ufunc.reduceat(part, cuts[:-1], axis=0)
            for ufunc, part in ((np.minimum, low), (np.maximum, high))
        )
        np.copyto(origin, least, where=self.valid[spans] == 0)
        lengths = np.diff(cuts)
        about = origin if len(lengths) == 1 else np.repeat(origin, lengths, axis=0)
        wide[:] = (strip - about).view("<i8")
        # So far apart that the difference wraps around, values have no digits to lose.
        ends = (part.astype(np.float64) - origin.astype(np.float64) for part in (least, most))
        far = np.any([np.abs(end) > _FAR for end in ends], axis=0)
        if far.any():
            apart = strip.astype(np.float64) - about.astype(np.float64)
            np.copyto(wide, apart, where=np.repeat(far, lengths, axis=0))


def strips(starts: NDArray[Any], columns: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """Strips of rows of that many columns: the first span of each, and the cuts between its spans.

    The cuts are those of `starts`, with both ends of the strip. Only short spans share one: columns
    are reduced several times faster in one go.
    """
    rows = max(1, _STRIP_VALUES // columns)
    first, ends = 0, starts.tolist()
    while first < len(ends) - 1:
        begin, last = ends[first], first + 1
        while (
            last < len(ends) - 1
            and ends[last] - ends[last - 1] < rows // _LONG_SPANS
            and ends[last + 1] - begin <= rows
        ):
            last += 1
        for start in range(begin, ends[last], rows):
            cuts = starts[first : last + 1].copy()
            cuts[0], cuts[-1] = start, min(start + rows, ends[last])
            yield first, cuts
        first = last


def bases(least: NDArray[Any]) -> tuple[int, NDArray[Any]]:
    """What `Moments.mean` of spans is above: the least of all, and how far above it each span's is.

    Args:
        least: (spans,) the least value of each, at least one.
    """
    if least.dtype.kind not in "iu" or least.dtype.itemsize != _WIDE_BYTES:
        return 0, np.zeros(len(least))
    base = least.min()
    return int(base), (least - base).view("<u8").astype(np.float64)


def bits(values: NDArray[Any]) -> NDArray[Any]:
    """The values as unsigned numbers, equal where they are; 0.0 for -0.0."""
    plain = values + np.zeros((), values.dtype) if values.dtype.kind == "f" else values
    return plain.view(f"<u{values.dtype.itemsize}")


def _column_wise(ufunc: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
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
