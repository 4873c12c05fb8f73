"""The columns of a window: cut out of its records, decoded without a loop, picked by rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tfstream.format import block
from tfstream.format.schema import MASK, Schema

Tensor = Any

DECODED = {"float16": tf.int16, "uint32": tf.int32, "uint64": tf.int64}
"""Types that decode_raw lacks, by those of the same width that it has."""


@dataclass
class Tables:
    """What the records of a window hold, decoded; each feature of a block when first asked for."""

    schema: Schema
    records: Mapping[int, Tensor]
    """Of each block the records, (reads,) string, that hold what `made` does not have."""
    rows: Tensor
    """(reads,) int64: rows of each."""
    made: dict[str, Tensor] = field(default_factory=dict)
    """By feature, what was asked for: of fixed width (reads · longest, columns), every block padded
    with zeros to the longest; of texts all values, one block after the other."""

    def feature(self, name: str) -> Tensor:
        """Any feature of a block."""
        is_text = name not in block.layout(self.schema).starts
        return self.texts(name) if is_text else self.fixed(name)

    def dtype(self, name: str) -> np.dtype[Any]:
        """What a feature of fixed width is made of."""
        packs = {pack.name: pack.dtype for pack in self.schema.packs}
        return np.dtype("u1") if name == MASK else packs[name]

    def fixed(self, name: str) -> Tensor:
        """A feature of fixed width, cut where the layout says; see `DECODED` for its type."""
        if name not in self.made:
            where = block.layout(self.schema)
            width = where.row_bytes[name]
            start = where.starts[name] + where.widths[name] * self.rows
            cut = tf.strings.substr(
                self.records[where.record[name]],
                tf.cast(start, tf.int32),
                tf.cast(width * self.rows, tf.int32),
            )
            dtype = self.dtype(name)
            decoded = DECODED.get(dtype.name, tf.as_dtype(dtype.newbyteorder("=")))
            longest = tf.cast(tf.reduce_max(self.rows) * width, tf.int32)
            values = tf.io.decode_raw(cut, decoded, fixed_length=longest)
            self.made[name] = tf.reshape(values, [-1, width // dtype.itemsize])
        return self.made[name]

    def texts(self, name: str) -> Tensor:
        """All values of a text feature of all blocks."""
        if name not in self.made:
            last = self.records[len(self.schema.records) - 1]
            parsed = tf.io.parse_example(last, {name: tf.io.RaggedFeature(tf.string)})
            self.made[name] = parsed[name].flat_values
        return self.made[name]


@dataclass
class WindowColumns:
    """Columns of some rows of a window, each picked when first asked for."""

    tables: Tables
    places: Tensor
    """(steps, rows) int64: where each row is when every block is padded to the longest."""
    _packs: dict[str, Tensor] = field(default_factory=dict)

    @property
    def schema(self) -> Schema:
        """The columns of the data set."""
        return self.tables.schema

    @property
    def rows(self) -> Tensor:
        """(reads,) int64: rows of each block."""
        return self.tables.rows

    def pack(self, name: str) -> Tensor:
        """A pack as (steps, rows, columns) of its dtype."""
        return self._fixed(name)

    def stored(self, name: str) -> Tensor:
        """A column as it is stored, (steps, rows): numbers, codes, text; 0 or nothing if null.

        Of a decimal that is stored as an int64 its value, float64; of lists the lengths.
        """
        column = self.schema[name]
        if column.dtype is None:
            return self._text(self.schema.texts[name])
        pack = next(pack for pack in self.schema.packs if name in pack.columns)
        values = self.pack(pack.name)[..., pack.columns.index(name)]
        is_decimal = pa.types.is_decimal(column.arrow)
        return tf.cast(values, tf.float64) / column.divisor if is_decimal else values

    def missing(self, name: str) -> Tensor:
        """Where a nullable column has no value, (steps, rows) bool."""
        bit = self.schema.masked.index(name)
        mask = self._fixed(MASK)[..., bit // 8]
        return tf.bitwise.bitwise_and(mask, tf.constant(1 << bit % 8, tf.uint8)) == 0

    def _fixed(self, name: str) -> Tensor:
        """A feature of fixed width, picked."""
        if name not in self._packs:
            dtype = self.tables.dtype(name)
            picked = tf.gather(self.tables.fixed(name), self.places)
            if dtype.name in DECODED:
                picked = tf.bitcast(picked, tf.as_dtype(dtype.newbyteorder("=")))
            self._packs[name] = picked
        return self._packs[name]

    def _text(self, name: str) -> Tensor:
        if name not in self._packs:
            self._packs[name] = tf.gather(self.texts(name), self.dense_places)
        return self._packs[name]

    @property
    def dense_places(self) -> Tensor:
        """(steps, rows) int64: where each row is when no block is padded."""
        longest = tf.reduce_max(self.rows)
        starts = tf.gather(tf.cumsum(self.rows, exclusive=True), self.places // longest)
        return starts + self.places % longest

    def texts(self, name: str) -> Tensor:
        """All values of a text feature of all blocks, one after the other."""
        return self.tables.texts(name)
