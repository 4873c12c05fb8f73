"""How far permutations are from uniform ones, in standard errors.

Three tables are counted for every permutation p of [0, n), with positions and values in up to
`BINS` near-equal bins:

- *places*: positions i by the bins of i and p(i);
- *pairs* at a lag: disjoint pairs of positions (i, i + lag) by the bins of p(i) and p(i + lag);
- *differences* at a lag: the same pairs by the bin of (p(i + lag) - p(i)) mod n, which is never 0.

Under uniform permutations mean and variance of each cell are known exactly (drawing two or four
values without replacement), for any n. A table deviates in two ways, and both are measured over the
permutations:

- its *mean*: a cell is fuller than it should be, over all permutations together;
- its *spread*: chi-square within each permutation is larger than it should be (each permutation has
  cells of its own that are too full) or smaller (the permutations are too even), though the mean
  may be right.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

BINS = 8
"""Bins of positions and of values."""
DIFFERENCES = 32
"""Bins of differences."""


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of a table under uniform permutations."""

    mean: np.ndarray
    variance: np.ndarray

    def deviations(self, counts: np.ndarray) -> tuple[float, float]:
        """The largest of the means, and the spread's, of counts (permutations, cells)."""
        size = len(counts)
        free = self.variance > 0
        errors = (counts.mean(0) - self.mean)[free] / np.sqrt(self.variance[free] / size)
        scale = np.where(self.mean > 0, self.mean, 1)
        chi_squares = ((counts - self.mean) ** 2 / scale).sum(1)
        excess = chi_squares.mean() - (self.variance / scale).sum()
        deviation = chi_squares.std(ddof=1)
        # Where every permutation has the same chi-square (a single pair), the spread says nothing.
        spread = excess / (deviation / np.sqrt(size)) if deviation > 1e-9 else 0.0
        return float(np.abs(errors).max()), float(abs(spread))


def _bins(n: int, most: int) -> np.ndarray:
    """(n,) the bin of each of n values, `most` bins or one a value."""
    return np.arange(n) * min(n, most) // n


def _falling(n: int, factors: int) -> float:
    """The product n (n - 1) …; 1 where that is 0, since what it divides is then 0 too."""
    return max(1.0, float(np.prod([float(n - i) for i in range(factors)])))


def _place_cells(n: int) -> Cells:
    """Hypergeometric."""
    width = np.bincount(_bins(n, BINS))
    mean = np.outer(width, width) / n
    return Cells(mean.ravel(), (mean * np.outer(n - width, n - width) / (n * (n - 1))).ravel())


def _from_draws(pairs: int, two: np.ndarray, four: np.ndarray) -> Cells:
    """From the probabilities that one pair, and that two disjoint pairs, lie in a cell."""
    return Cells(pairs * two, pairs * two * (1 - two) + pairs * (pairs - 1) * (four - two**2))


def _pair_cells(n: int, pairs: int) -> Cells:
    width = np.bincount(_bins(n, BINS))
    same = np.eye(len(width), dtype=bool)
    rest = width * (width - 1)
    two = np.where(same, rest, np.outer(width, width)) / _falling(n, 2)
    four = np.where(same, rest * (width - 2) * (width - 3), np.outer(rest, rest)) / _falling(n, 4)
    return _from_draws(pairs, two.ravel(), four.ravel())


def _difference_cells(n: int, pairs: int) -> Cells:
    bins = _bins(n - 1, DIFFERENCES)
    width = np.bincount(bins)
    mirrored = np.bincount(bins[bins == bins[::-1]], minlength=len(width))
    # Values a, a + d, b, b + e mod n are distinct for n - 4 of the n values of b; for one more
    # where d = e, and for one more where d = -e.
    four = n * (width**2 * (n - 4) + width + mirrored) / _falling(n, 4)
    return _from_draws(pairs, width / (n - 1), four)


def _count(cells: np.ndarray, size: int) -> np.ndarray:
    """(permutations, size) how often each row of `cells` has each cell."""
    offsets = np.arange(len(cells))[:, None] * size
    return np.bincount((cells + offsets).ravel(), minlength=len(cells) * size).reshape(-1, size)


def lags(n: int) -> list[int]:
    """1, n/2, n/4 and n/8, those that n has."""
    return sorted({1, n // 2, n // 4, n // 8} - {0})


def deviations(chunks: Iterable[np.ndarray], n: int) -> dict[str, float]:
    """How far permutations are from uniform.

    Args:
        chunks: (permutations, n) integers each, together independent if they are uniform.
        n: at least 3.

    Returns:
        By name of the deviation, its absolute value in standard errors: close to that of a standard
        normal variable (the mean's: to the largest of as many as there are cells).
    """
    values = _bins(n, BINS)
    bins = int(values[-1]) + 1
    differences = np.concatenate([[0], _bins(n - 1, DIFFERENCES)])
    cells = {"places": _place_cells(n)}
    counts: dict[str, list[np.ndarray]] = {}
    for chunk in chunks:
        permutations = chunk.astype(np.int64)
        binned = values[permutations]
        counts.setdefault("places", []).append(_count(values * bins + binned, bins**2))
        for lag in lags(n):
            # 2 * lag positions side by side are lag disjoint pairs.
            whole = n // (2 * lag) * (2 * lag)
            shape = (len(permutations), -1, 2, lag)
            left, right = np.moveaxis(binned[:, :whole].reshape(shape), 2, 0)
            paired = (left * bins + right).reshape(len(permutations), -1)
            low, high = np.moveaxis(permutations[:, :whole].reshape(shape), 2, 0)
            # A negative index counts from the end, as a difference mod n does.
            apart = differences[high - low].reshape(len(permutations), -1)
            for name, table, expected in (
                (f"first pair at lag {lag}", _count(paired[:, :1], bins**2), _pair_cells(n, 1)),
                (f"pairs at lag {lag}", _count(paired, bins**2), _pair_cells(n, whole // 2)),
                (
                    f"differences at lag {lag}",
                    _count(apart, int(differences[-1]) + 1),
                    _difference_cells(n, whole // 2),
                ),
            ):
                counts.setdefault(name, []).append(table)
                cells[name] = expected
    found = {}
    for name, tables in counts.items():
        mean, spread = cells[name].deviations(np.concatenate(tables))
        found |= {f"{name}, mean": mean, f"{name}, spread": spread}
    return found
