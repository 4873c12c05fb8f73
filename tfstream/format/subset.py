"""Which rows of a data set: the blocks, and within a partly kept block the rows, with a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tfstream.errors import UsageError
from tfstream.format import expressions, pruning
from tfstream.format.manifest import Catalog
from tfstream.format.reader import read_block


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Rows of a data set, in its order."""

    catalog: Catalog = field(repr=False)
    recipe: tuple[str, ...] = ()
    """The conditions that made it of the whole data set, one after the other."""
    blocks: NDArray[Any] = field(repr=False)
    """(blocks,) int64: ordinals of the blocks with a kept row, in the data set's order."""
    bitmaps: Mapping[int, NDArray[Any]] = field(repr=False)
    """For the ordinal of each partly kept block: (rows,) bool, whether a row is kept."""

    @classmethod
    def whole(cls, catalog: Catalog) -> Subset:
        """Every row."""
        return cls(catalog=catalog, blocks=np.arange(len(catalog.block_rows)), bitmaps={})

    @cached_property
    def kept(self) -> NDArray[Any]:
        """(blocks,) int64: kept rows of each of the blocks, at least 1."""
        kept: NDArray[Any] = self.catalog.block_rows[self.blocks].copy()
        if self.bitmaps:
            ordinals = np.fromiter(self.bitmaps, np.int64, len(self.bitmaps))
            counts = (np.count_nonzero(bitmap) for bitmap in self.bitmaps.values())
            places = np.searchsorted(self.blocks, ordinals)
            kept[places] = np.fromiter(counts, np.int64, len(ordinals))
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
        for block in sorted(self.bitmaps):
            digest.update(block.to_bytes(8, "little"))
            digest.update(np.packbits(self.bitmaps[block], bitorder="little").tobytes())
        return digest.hexdigest()

    @cached_property
    def groups(self) -> NDArray[Any]:
        """int64: ordinals of the groups with a kept row."""
        starts = self.catalog.group_starts
        full = np.isin(self.blocks, list(self.bitmaps), invert=True)
        first = self.catalog.block_first[self.blocks[full]]
        low = np.searchsorted(starts, first, side="right") - 1
        high = np.searchsorted(
            starts, first + self.catalog.block_rows[self.blocks[full]], side="left"
        )
        found = np.zeros(len(starts) + 1, np.int64)
        np.add.at(found, low, 1)
        np.add.at(found, high, -1)
        seen = np.cumsum(found)[:-1] > 0
        for block in self.bitmaps:
            seen[np.searchsorted(starts, self.row_ids_in(block), side="right") - 1] = True
        return np.flatnonzero(seen)

    def row_ids_in(self, block: int) -> NDArray[Any]:
        """The kept row ids of a block, by its ordinal in the data set; ascending int64."""
        first, rows = self.catalog.block_first[block], self.catalog.block_rows[block]
        bitmap = self.bitmaps.get(int(block))
        ranks: NDArray[Any] = np.arange(rows) if bitmap is None else np.flatnonzero(bitmap)
        ids: NDArray[Any] = first + ranks
        return ids

    def place_of(self, row_ids: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Where rows are in the subset.

        Args:
            row_ids: (n,) int64, rows of the data set.

        Returns:
            The index into `blocks` and the rank among the block's kept rows, (n,) int64 each; -1
            and -1 for a
            row that is not kept.
        """
        ordinals = np.searchsorted(self.catalog.block_first, row_ids, side="right") - 1
        index = np.minimum(np.searchsorted(self.blocks, ordinals), max(len(self.blocks) - 1, 0))
        inside = (
            (self.blocks[index] == ordinals) if len(self.blocks) else np.zeros(len(index), bool)
        )
        rank = row_ids - self.catalog.block_first[ordinals]
        for i in np.flatnonzero(inside & np.isin(ordinals, list(self.bitmaps))):
            bitmap = self.bitmaps[int(ordinals[i])]
            inside[i] = bitmap[rank[i]]
            rank[i] = bitmap[: rank[i]].sum()
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
        some, every = self._decided(groups)
        if others:
            some &= pruning.possible_blocks(catalog, others)[self.blocks]
        else:
            every &= np.isin(self.blocks, list(self.bitmaps), invert=True)
        blocks, bitmaps = [], {}
        for block, whole in zip(self.blocks[some].tolist(), every[some].tolist(), strict=True):
            if whole and not others:
                blocks.append(block)
                continue
            keep = self._keep(block, groups, others, text)
            if keep.any():
                blocks.append(block)
                if not keep.all():
                    bitmaps[block] = keep
        return Subset(
            catalog=catalog,
            recipe=(*self.recipe, text),
            blocks=np.asarray(blocks, np.int64),
            bitmaps=bitmaps,
        )

    def kept_between(self, starts: NDArray[Any], stops: NDArray[Any]) -> NDArray[Any]:
        """How many rows are kept of each range of row ids.

        Args:
            starts: (ranges,) int64, first row ids.
            stops: (ranges,) int64, behind the last ones.
        """
        kept: NDArray[Any] = self._kept_before(stops) - self._kept_before(starts)
        return kept

    def _kept_before(self, row_ids: NDArray[Any]) -> NDArray[Any]:
        """How many kept rows have a lower id."""
        first, rows = self.catalog.block_first[self.blocks], self.catalog.block_rows[self.blocks]
        before = np.concatenate([[0], np.cumsum(self.kept)])
        index = np.searchsorted(first, row_ids, side="right") - 1
        inside = np.flatnonzero(index >= 0)
        places = index[inside]
        ranks = np.minimum(row_ids[inside] - first[places], rows[places])
        partly = np.isin(self.blocks, list(self.bitmaps))[places]
        for i in np.flatnonzero(partly & (ranks < rows[places])):
            ranks[i] = self.bitmaps[int(self.blocks[places[i]])][: ranks[i]].sum()
        done = ranks == rows[places]
        found = np.zeros(len(row_ids), np.int64)
        found[inside] = np.where(done, before[places + 1], before[places] + ranks)
        return found

    def _decided(self, groups: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """For each of the blocks, whether some and whether all of its rows are of these groups."""
        catalog = self.catalog
        first, rows = catalog.block_first[self.blocks], catalog.block_rows[self.blocks]
        low = np.searchsorted(catalog.group_starts, first, side="right") - 1
        high = np.searchsorted(catalog.group_starts, first + rows, side="left")
        before = np.concatenate([[0], np.cumsum(groups)])
        found = before[high] - before[low]
        return found > 0, found == high - low

    def _keep(
        self, block: int, groups: NDArray[Any], conditions: list[expressions.Node], text: str
    ) -> NDArray[Any]:
        """Which rows of a block stay: (rows,) bool."""
        catalog, rows = self.catalog, int(self.catalog.block_rows[block])
        ids = catalog.block_first[block] + np.arange(rows)
        group = np.searchsorted(catalog.group_starts, ids, side="right") - 1
        keep: NDArray[Any] = groups[group]
        if block in self.bitmaps:
            keep = keep & self.bitmaps[block]
        if not conditions or not keep.any():
            return keep
        names = dict.fromkeys(name for part in conditions for name in expressions.columns(part))
        table = read_block(catalog, block, [name for name in names if name in catalog.schema.names])
        for name in names:
            if name not in catalog.schema.names:
                table = table.append_column(name, catalog.groups[name].take(pa.array(group)))
        for part in conditions:
            keep = keep & _truth(part, table, text)
        return keep


def _truth(node: expressions.Node, table: pa.Table, text: str) -> NDArray[Any]:
    """Where a condition holds; where it is null it does not."""
    values = expressions.evaluate(node, table)
    if not pa.types.is_boolean(values.type):
        raise UsageError(f"{text!r} is a {values.type}, not a condition")
    return np.asarray(values.fill_null(fill_value=False).to_numpy(zero_copy_only=False), bool)
