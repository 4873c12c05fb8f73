"""Blocks without the values of some of their rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tfstream.format import block
from tfstream.format.schema import Column, Schema, storage_dtype


def erase(schema: Schema, framed: bytes, lost: NDArray[np.bool_], token: int) -> bytes:
    """A block whose values are zero, null or empty in some rows, and unchanged in the others.

    Args:
        schema: the columns.
        framed: the frames of the block's records.
        lost: (rows,) bool, which rows.
        token: of the shard that it becomes a part of.

    Raises:
        ValueError: if the bytes are not a block of so many rows.
    """
    header, features = block.unframed(schema, framed)
    if header.rows != len(lost):
        raise ValueError(f"it has {header.rows} rows, expected {len(lost)}")
    fixed: dict[str, block.Buffer] = {}
    for name, width in schema.fixed_features:
        rows = np.frombuffer(features[name][0], np.uint8).reshape(len(lost), width).copy()
        rows[lost] = 0
        fixed[name] = rows.reshape(-1)
    texts: dict[str, block.Buffer] = {}
    for name, feature in schema.texts.items():
        texts[feature] = _texts(schema, schema[name], features, lost)
    for name, feature in schema.validities.items():
        column = schema[name]
        valid = np.frombuffer(features[feature][0], np.uint8).copy()
        if column.is_list:
            valid = valid[~_of_items(schema, column, features, lost)]
        else:
            valid.reshape(len(lost), column.slots)[lost] = 0
        texts[feature] = _run(valid.tobytes())
    made = block.Header(first_row=header.first_row, rows=header.rows, token=token)
    return block.joined(block.framed(schema, made, fixed, texts))


def _texts(
    schema: Schema, column: Column, features: dict[str, list[bytes]], lost: NDArray[np.bool_]
) -> block.Buffer:
    """The feature of a column of texts, a value a row, or of lists, all items one by one."""
    found = features[schema.texts[column.name]]
    if not column.is_list:
        return _values([b"" if gone else value for value, gone in zip(found, lost, strict=True)])
    gone = _of_items(schema, column, features, lost)
    dtype = storage_dtype(column.item)
    if dtype is None:
        return _values([value for value, is_gone in zip(found, gone, strict=True) if not is_gone])
    return _run(np.frombuffer(found[0], dtype)[~gone].tobytes())


def _of_items(
    schema: Schema, column: Column, features: dict[str, list[bytes]], lost: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which items of all lists of a block are of these rows, (items,) bool."""
    pack = next(pack for pack in schema.packs if column.name in pack.columns)
    matrix = np.frombuffer(features[pack.name][0], pack.dtype).reshape(len(lost), pack.slots)
    return np.repeat(lost, matrix[:, pack.columns.index(column.name)])


def _values(values: list[bytes]) -> block.Buffer:
    return block.Listed(pa.array(values, pa.binary())).between(0, len(values))


def _run(values: bytes) -> block.Buffer:
    return _values([values])
