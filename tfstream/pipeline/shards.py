"""A data set, or a part of it, as users hold it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from tfstream import storage
from tfstream.errors import UsageError
from tfstream.format import kept_statistics, reader
from tfstream.format.check import Finding
from tfstream.format.manifest import open_catalog
from tfstream.format.recipe import Without
from tfstream.format.schema import Schema
from tfstream.format.statistics import ColumnStatistics
from tfstream.format.subset import Subset
from tfstream.pipeline.options import StreamOptions
from tfstream.pipeline.stream import Stream

if TYPE_CHECKING:
    from tfstream.pipeline.serving import Preprocessor


def open_shards(folder: str | os.PathLike[str], digest: str | None = None) -> Shards:
    """Open a data set, as it was when it had this digest if one is given.

    Raises:
        UsageError: if there is none in the folder, or none of this digest.
        DataError: if it is damaged or of another format.
    """
    return Shards(Subset.whole(open_catalog(storage.place(folder), digest)))


@dataclass(frozen=True)
class Shards:
    """Rows of a data set: all, or those that conditions leave."""

    subset: Subset

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.subset.rows

    @property
    def schema(self) -> Schema:
        """The columns."""
        return self.subset.catalog.schema

    @property
    def digest(self) -> str:
        """The identity of the data set, the same for every part of it: SHA-256 in hex."""
        return self.subset.catalog.digest

    @property
    def groups(self) -> pa.Table:
        """The groups with a row here: keys, rows of the whole group, first row id and shards."""
        return self.subset.catalog.groups.take(pa.array(self.subset.groups))

    @property
    def statistics(self) -> Mapping[str, ColumnStatistics]:
        """Statistics of each column over these rows.

        They are added up from the index; where conditions leave a part of a span of rows, see
        DESIGN.md, the rows of that part are read, once.
        """
        return kept_statistics.describe(self.subset)

    def where(self, condition: str) -> Shards:
        """The rows that fulfil a condition, such as "month < 11 and carrier = 'UA'".

        Whole groups are decided by the index; where other columns are asked for, their blocks are
        read.

        Raises:
            UsageError: if the condition does not parse, or names a column that is not there.
        """
        return Shards(self.subset.where(condition))

    def split(
        self, fractions: Mapping[str, float], *, by: Literal["row", "group"], seed: int = 0
    ) -> dict[str, Shards]:
        """Parts without a common row, such as {"train": 0.9, "val": 0.1}, by name.

        A row stays on its side whatever is appended, and whether conditions come before the split
        or after it. By row, each block is divided, so the shares are exact to a row a block. By
        group, rows of one key stay together; the shares are exact only where groups are many.
        Nothing is read.

        Args:
            fractions: the share of each part; rows are left over if they are less than 1 in sum.
            by: "row", or "group" for whole groups.
            seed: 0 to 2^63 - 1; a split of a part draws anew, with the same seed too.

        Raises:
            UsageError: if fractions, `by` or seed are none.
        """
        parts = self.subset.split(fractions, by=by, seed=seed)
        return {name: Shards(part) for name, part in parts.items()}

    def without(self, findings: Iterable[Finding]) -> Shards:
        """The rows that no finding of `verify` concerns; findings without rows change nothing."""
        ranges = [
            (finding.first_row, finding.stop_row)
            for finding in findings
            if finding.first_row is not None and finding.stop_row is not None
        ]
        return Shards(self.subset.without(Without.of(ranges))) if ranges else self

    def take(
        self, row_ids: Sequence[int] | np.ndarray, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Rows of the data set by their ids, in this order.

        Raises:
            UsageError: if there is no such row or column.
            CorruptionError: if a block is not what was written.
        """
        return reader.take(self.subset.catalog, row_ids, columns)

    def stream(  # noqa: PLR0913 - what a batch is made of
        self,
        *,
        batch_size: int,
        features: Sequence[str] | None = None,
        label: str | None = None,
        weight: str | None = None,
        seed: int = 0,
        options: StreamOptions | None = None,
    ) -> Stream:
        """Batches of these rows for Keras, in an order that is a function of its arguments.

        Args:
            batch_size: rows of a batch.
            features: columns, all but those of label and weight if None.
            label: a column, or a condition such as "arr_delay > 15"; None for features alone.
            weight: a column of sample weights.
            seed: 0 to 2^63 - 1.
            options: shuffle, window, nulls and the like.

        Raises:
            UsageError: if the call asks for what cannot be.
            DataError: if labels are null and `options.null_label` is "error".
        """
        if not self.rows:
            raise UsageError("no row is left by the conditions, so there is nothing to stream")
        return Stream(
            self.subset,
            batch_size=batch_size,
            features=features,
            label=label,
            weight=weight,
            seed=seed,
            options=options or StreamOptions(),
        )

    def preprocessor(self, stream: Stream) -> Preprocessor:
        """What a stream of this data set makes of raw rows, as `stream.preprocessor` does.

        Raises:
            UsageError: if the stream is of another data set.
        """
        if stream.subset.catalog.digest != self.digest:
            raise UsageError(
                f"the stream is of the data set {stream.subset.catalog.folder}, not of "
                f"{self.subset.catalog.folder}; ask the shards that it came from"
            )
        return stream.preprocessor()
