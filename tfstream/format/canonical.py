"""The values of a table's columns as bytes, for the digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def digest_of(table: pa.Table) -> str:
    """SHA-256 in hex of a table's values and the names of its columns."""
    digest = hashlib.sha256()
    for name in table.column_names:
        digest.update(f"{name} {table.num_rows}\n".encode())
        for part in canonical(table[name]):
            digest.update(part)
    return digest.hexdigest()


def canonical(values: pa.ChunkedArray) -> Iterator[bytes]:
    """The values as bytes that do not depend on a library's version.

    A byte for each value, whether it is there; then numbers, and times as their integers, in 64
    bits, 0 where none is there, or the lengths of texts in 64 bits and their bytes.
    """
    yield np.asarray(values.is_valid()).astype(np.uint8).tobytes()
    type_ = values.type
    if pa.types.is_boolean(type_):
        values = values.cast(pa.uint8())
    elif pa.types.is_temporal(type_):
        values = values.cast(pa.int32() if type_.bit_width == 32 else pa.int64())  # noqa: PLR2004 - bits of a word
    elif not pa.types.is_integer(type_) and not pa.types.is_floating(type_):
        is_bytes = pa.types.is_binary(type_) or pa.types.is_fixed_size_binary(type_)
        plain = values.cast(pa.binary()) if is_bytes else values.cast(pa.string())
        texts = plain.cast(pa.large_binary()).fill_null(b"")
        yield np.asarray(pc.binary_length(texts)).astype("<i8").tobytes()
        for chunk in texts.chunks:
            start, stop = np.frombuffer(chunk.buffers()[1], np.int64)[chunk.offset :][
                [0, len(chunk)]
            ]
            yield bytes(chunk.buffers()[2][int(start) : int(stop)]) if stop > start else b""
        return
    wide = {"i": "<i8", "u": "<u8", "f": "<f8"}
    numbers = np.asarray(values.fill_null(0))
    yield numbers.astype(wide[numbers.dtype.kind]).tobytes()
