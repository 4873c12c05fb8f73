"""Which rows of a data set: the blocks, and within a partly kept block the rows, with a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tfstream.errors import UsageError
from tfstream.format import bits, expressions, pruning, recipe, split
from tfstream.format.manifest import Catalog
from tfstream.format.reader import read_block
from tfstream.format.recipe import By, Split, Step, Where, Without


@dataclass(frozen=True, kw_only=True, eq=False)
class Subset:
    """Rows of a data set, in its order."""

    catalog: Catalog = field(repr=False)
    recipe: tuple[Step, ...] = ()
    """The steps that made it of the whole data set, one after the other."""
    blocks: NDArray[Any] = field(repr=False)
    """(blocks,) int64: ordinals of the blocks with a kept row, in the data set's order."""
    line: NDArray[Any] = field(repr=False)
    """(blocks,) int64: for each partly kept block its line of `lines`, ascending; else -1."""
    lines: NDArray[Any] = field(repr=False)
    """(partly kept blocks, bytes) uint8: which rows are kept, see `format.bits`."""

    @classmethod
    def whole(cls, catalog: Catalog) -> Subset:
        """Every row that was not forgotten."""
        blocks = np.arange(len(catalog.block_rows))
        lines = np.zeros((0, bits.width_of(catalog.block_rows)), np.uint8)
        whole = cls(catalog=catalog, blocks=blocks, line=np.full(len(blocks), -1), lines=lines)
        ranges = [pair for one in catalog.manifest.forgotten for pair in one.ranges]
        return replace(whole.without(Without.of(ranges)), recipe=()) if ranges else whole

    def made_by(self, steps: Sequence[Step]) -> Subset:
        """What is left after more steps.

        Raises:
            UsageError: if a step cannot be taken here.
        """
        found = self
        for step in steps:
            if isinstance(step, Where):
                found = found.where(step.text)
            elif isinstance(step, Without):
                found = found.without(step)
            else:
                (found,) = found._sides([step])  # noqa: SLF001 - a subset
        return found

    @cached_property
    def kept(self) -> NDArray[Any]:
        """(blocks,) int64: kept rows of each of the blocks, at least 1."""
        kept: NDArray[Any] = self.catalog.block_rows[self.blocks].copy()
        kept[self._partly] = bits.counts(self.lines)
        return kept

    @property
    def rows(self) -> int:
        """Kept rows."""
        return int(self.kept.sum())

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of the data set's digest and the kept rows, however they were chosen."""
        digest = hashlib.sha256(self.catalog.digest.encode())
        digest.update(self.blocks.astype("<i8").tobytes())
        partly = self.blocks[self._partly]
        sizes = 8 + -(-self.catalog.block_rows[partly] // 8)
        for chunk in bits.chunks(*self.lines.shape):
            ordinals = partly[chunk].astype("<i8")[:, None].view(np.uint8)
            told = np.hstack([ordinals, self.lines[chunk]])
            digest.update(told[np.arange(told.shape[1]) < sizes[chunk, None]].tobytes())
        return digest.hexdigest()

    @cached_property
    def groups(self) -> NDArray[Any]:
        """int64: ordinals of the groups with a kept row."""
        starts = self.catalog.group_starts
        stops = np.append(starts[1:], self.catalog.rows)
        return np.flatnonzero(self.kept_between(starts, stops))

    def row_ids_in(self, block: int) -> NDArray[Any]:
        """The kept row ids of a block, by its ordinal in the data set; ascending int64."""
        first, rows = self.catalog.block_first[block], self.catalog.block_rows[block]
        index = int(np.searchsorted(self.blocks, block))
        if index == len(self.blocks) or self.blocks[index] != block:
            return np.empty(0, np.int64)
        line = int(self.line[index])
        ranks: NDArray[Any] = np.arange(rows)
        if line >= 0:
            ranks = np.flatnonzero(np.unpackbits(self.lines[line], bitorder="little"))
        ids: NDArray[Any] = first + ranks
        return ids

    def place_of(self, row_ids: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Where rows are in the subset.

        Args:
            row_ids: (n,) int64, rows of the data set.

        Returns:
            The index into `blocks` and the rank among the block's kept rows, (n,) int64 each; -1
            and -1 for a row that is not kept.
        """
        if not len(self.blocks):
            return np.full(len(row_ids), -1), np.full(len(row_ids), -1)
        ordinals = np.searchsorted(self.catalog.block_first, row_ids, side="right") - 1
        index = np.minimum(np.searchsorted(self.blocks, ordinals), len(self.blocks) - 1)
        inside = self.blocks[index] == ordinals
        rank = row_ids - self.catalog.block_first[ordinals]
        partly = np.flatnonzero(inside & (self.line[index] >= 0))
        lines, places = self.line[index[partly]], rank[partly]
        inside[partly] = bits.are_set(self.lines, lines, places)
        rank[partly] = bits.counts_before(self.lines, lines, places)
        return np.where(inside, index, -1), np.where(inside, rank, -1)

    def where(self, text: str) -> Subset:
        """The rows that fulfil a condition.

        Conditions on key columns of the groups, or on the key functions that made them, are decided
        by the index alone; the blocks that are left are read for the others.

        Raises:
            UsageError: if the condition does not parse or names a column that is not there.
        """
        catalog, keys = self.catalog, set(self.catalog.manifest.keys)
        made = [expressions.parse_key(key) for key in catalog.manifest.group_by]
        tree = expressions.with_keys(expressions.parse(text), made)
        known = (
            *catalog.schema.names,
            *(k for k in catalog.manifest.keys if k not in catalog.schema.names),
        )
        for name in expressions.columns(tree):
            if name not in known:
                raise UsageError(
                    f"{text!r}: there is no column {name!r}; there are {', '.join(known)}"
                )
        groups = np.ones(catalog.groups.num_rows, bool)
        others = []
        for part in expressions.conjuncts(tree):
            if keys.issuperset(expressions.columns(part)):
                groups &= _truth(part, catalog.groups, text)
            else:
                others.append(part)
        left = self._of_groups(groups, Where(text=text))
        if not others:
            return left
        lines = np.zeros((len(left.blocks), left.lines.shape[1]), np.uint8)
        possible = pruning.possible_blocks(catalog, others)[left.blocks]
        for chunk, keep in left._unpacked(np.flatnonzero(possible)):  # noqa: SLF001 - a subset
            for i, mask in zip(chunk, keep, strict=True):
                block = int(left.blocks[i])
                rows = int(catalog.block_rows[block])
                mask[:rows] &= self._fulfilled(block, others, text)
            lines[chunk] = bits.packed(keep, lines.shape[1])
        return left._with(np.arange(len(left.blocks)), lines, left.recipe)  # noqa: SLF001

    def split(self, fractions: Mapping[str, float], *, by: By, seed: int) -> dict[str, Subset]:
        """Parts without a common row; see `format.split` for who is on which side.

        Args:
            fractions: the share of each part, at most 1 in sum.
            by: "row", or "group" for whole groups.
            seed: 0 to 2^63 - 1.

        Raises:
            UsageError: if the call asks for what cannot be.
        """
        depth = sum(isinstance(step, Split) for step in self.recipe)
        sides = recipe.sides(fractions, by=by, seed=seed, depth=depth)
        return dict(zip(sides, self._sides(list(sides.values())), strict=True))

    def without(self, step: Without) -> Subset:
        """All rows but some ranges of row ids."""
        pairs = np.asarray(step.ranges, np.int64).reshape(-1, 2)
        edges = pairs.reshape(-1)
        first = self.catalog.block_first[self.blocks]
        last = first + self.catalog.block_rows[self.blocks] - 1
        # An odd number of edges at or below a row: it lies in a range.
        low, high = (np.searchsorted(edges, ids, side="right") for ids in (first, last))
        touched = np.flatnonzero((low != high) | (low % 2 == 1))
        lines = np.zeros((len(touched), self.lines.shape[1]), np.uint8)
        done = 0
        for chunk, keep in self._unpacked(touched):
            ids = first[chunk, None] + np.arange(keep.shape[1])
            outside = np.searchsorted(edges, ids, side="right") % 2 == 0
            lines[done : done + len(chunk)] = bits.packed(keep & outside, lines.shape[1])
            done += len(chunk)
        return self._with(touched, lines, (*self.recipe, step))

    def kept_between(self, starts: NDArray[Any], stops: NDArray[Any]) -> NDArray[Any]:
        """How many rows are kept of each range of row ids.

        Args:
            starts: (ranges,) int64, first row ids.
            stops: (ranges,) int64, behind the last ones.
        """
        kept: NDArray[Any] = self._kept_before(stops) - self._kept_before(starts)
        return kept

    @cached_property
    def _partly(self) -> NDArray[Any]:
        """int64: indices into `blocks` of the partly kept ones, in the order of `lines`."""
        return np.flatnonzero(self.line >= 0)

    def _kept_before(self, row_ids: NDArray[Any]) -> NDArray[Any]:
        """How many kept rows have a lower id."""
        first, rows = self.catalog.block_first[self.blocks], self.catalog.block_rows[self.blocks]
        before = np.concatenate([[0], np.cumsum(self.kept)])
        index = np.searchsorted(first, row_ids, side="right") - 1
        inside = np.flatnonzero(index >= 0)
        places = index[inside]
        ranks = np.minimum(row_ids[inside] - first[places], rows[places])
        partly = np.flatnonzero(self.line[places] >= 0)
        ranks[partly] = bits.counts_before(self.lines, self.line[places[partly]], ranks[partly])
        found = np.zeros(len(row_ids), np.int64)
        found[inside] = before[places] + ranks
        return found

    def _unpacked(self, indices: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Some indices at a time, and which rows of their blocks are kept, (indices, bits) bool."""
        places = np.arange(8 * self.lines.shape[1])
        for piece in bits.chunks(len(indices), self.lines.shape[1]):
            chunk = indices[piece]
            keep = places < self.catalog.block_rows[self.blocks[chunk], None]
            partly = np.flatnonzero(self.line[chunk] >= 0)
            keep[partly] = bits.unpacked(self.lines[self.line[chunk[partly]]])
            yield chunk, keep

    def _of_groups(self, groups: NDArray[Any], step: Step) -> Subset:
        """The rows of some groups, (groups,) bool."""
        catalog = self.catalog
        first, rows = catalog.block_first[self.blocks], catalog.block_rows[self.blocks]
        low = np.searchsorted(catalog.group_starts, first, side="right") - 1
        high = np.searchsorted(catalog.group_starts, first + rows, side="left")
        before = np.concatenate([[0], np.cumsum(groups)])
        found = before[high] - before[low]
        changed = np.flatnonzero(found < high - low)
        lines = np.zeros((len(changed), self.lines.shape[1]), np.uint8)
        mixed = np.flatnonzero(found[changed] > 0)
        done = 0
        for chunk, keep in self._unpacked(changed[mixed]):
            ids = first[chunk, None] + np.arange(keep.shape[1])
            there = groups[np.searchsorted(catalog.group_starts, ids, side="right") - 1]
            lines[mixed[done : done + len(chunk)]] = bits.packed(keep & there, lines.shape[1])
            done += len(chunk)
        return self._with(changed, lines, (*self.recipe, step))

    def _sides(self, sides: Sequence[Split]) -> list[Subset]:
        """The sides of one split."""
        if sides[0].by == "group":
            keys = self.catalog.groups.select(list(self.catalog.manifest.keys))
            return [self._of_groups(split.group_side(keys, side), side) for side in sides]
        all_rows = self.catalog.block_rows[self.blocks]
        width = self.lines.shape[1]
        found = [np.zeros((len(self.blocks), width), np.uint8) for _ in sides]
        for rows in np.unique(all_rows).tolist():
            for chunk, keep in self._unpacked(np.flatnonzero(all_rows == rows)):
                first = self.catalog.block_first[self.blocks[chunk]]
                ranks, bounds = split.row_sides(first, rows, sides)
                for lines, (low, high) in zip(found, bounds, strict=True):
                    mask = (ranks >= low[:, None]) & (ranks < high[:, None]) & keep[:, :rows]
                    lines[chunk] = bits.packed(mask, width)
        everything = np.arange(len(self.blocks))
        return [
            self._with(everything, lines, (*self.recipe, side))
            for lines, side in zip(found, sides, strict=True)
        ]

    def _with(self, changed: NDArray[Any], lines: NDArray[Any], steps: tuple[Step, ...]) -> Subset:
        """The subset with other rows kept of some of its blocks.

        Args:
            changed: indices into `blocks`, ascending.
            lines: their rows that stay, which may be none or all.
            steps: the recipe.
        """
        kept, rows = bits.counts(lines), self.catalog.block_rows[self.blocks[changed]]
        line = self.line.copy()
        line[changed] = np.where(kept < rows, len(self.lines) + np.arange(len(changed)), -1)
        alive = np.ones(len(line), bool)
        alive[changed] = kept > 0
        line = line[alive]
        partly = np.flatnonzero(line >= 0)
        joined = np.empty((len(partly), lines.shape[1]), np.uint8)
        is_new = line[partly] >= len(self.lines)
        joined[~is_new] = self.lines[line[partly[~is_new]]]
        joined[is_new] = lines[line[partly[is_new]] - len(self.lines)]
        line[partly] = np.arange(len(partly))
        return Subset(
            catalog=self.catalog,
            recipe=steps,
            blocks=self.blocks[alive],
            line=line,
            lines=joined,
        )

    def _fulfilled(self, block: int, conditions: list[expressions.Node], text: str) -> NDArray[Any]:
        """Which rows of a block fulfil all conditions, (rows,) bool; it is read for them."""
        catalog, rows = self.catalog, int(self.catalog.block_rows[block])
        names = dict.fromkeys(name for part in conditions for name in expressions.columns(part))
        table = read_block(catalog, block, [name for name in names if name in catalog.schema.names])
        ids = catalog.block_first[block] + np.arange(rows)
        group = np.searchsorted(catalog.group_starts, ids, side="right") - 1
        for name in names:
            if name not in catalog.schema.names:
                table = table.append_column(name, catalog.groups[name].take(pa.array(group)))
        keep = np.ones(rows, bool)
        for part in conditions:
            keep = keep & _truth(part, table, text)
        return keep


def _truth(node: expressions.Node, table: pa.Table, text: str) -> NDArray[Any]:
    """Where a condition holds; where it is null it does not."""
    values = expressions.evaluate(node, table)
    if not pa.types.is_boolean(values.type):
        raise UsageError(f"{text!r} is a {values.type}, not a condition")
    return np.asarray(values.fill_null(fill_value=False).to_numpy(zero_copy_only=False), bool)
