"""A block: rows as one plain `tf.train.Example` with canonical bytes, written without TensorFlow.

The features are sorted by name, every length is a varint padded to five bytes, and the features
with a fixed width a row come first: so feature j begins at `starts[j] + rows * widths[j]`,
whatever the block's rows are.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tfstream.format.schema import HEADER, HEADER_BYTES, Schema

_TAG_BYTES = b"\x0a"
_TAG_VALUE = b"\x12"
_HEADER = struct.Struct("<qIQ")
_MAX_LENGTH = 2**31 - 1
_MORE = 128
"""The bit of a varint's byte that says that another byte follows."""
_PREFIXES = 1024
"""Prefixes that are kept: neighbouring blocks mostly have the same."""
_MAX_SHIFT = 28
"""Shift of the fifth byte of a varint, the last that a length may have."""

Buffer = bytes | NDArray[Any]
"""Bytes, or an array of them, (bytes,) uint8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a block says of itself."""

    first_row: int
    """Row id of its first row."""
    rows: int
    """Number of rows, at least 1."""
    token: int
    """64 bits that only this shard of this conversion has."""

    def encode(self) -> bytes:
        """20 bytes."""
        return _HEADER.pack(self.first_row, self.rows, self.token)

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """The header that `encode` wrote.

        Raises:
            ValueError: if the length is another one.
        """
        if len(data) != HEADER_BYTES:
            raise ValueError(f"a header has {HEADER_BYTES} bytes, found {len(data)}")
        first_row, rows, token = _HEADER.unpack(data)
        return cls(first_row=first_row, rows=rows, token=token)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the features of fixed width lie in a block."""

    header: int
    """Byte at which the header begins."""
    starts: Mapping[str, int]
    """For each feature behind it: the byte at which it would begin if there were no rows."""
    widths: Mapping[str, int]
    """For each: bytes a row of all fixed features before it."""
    row_bytes: Mapping[str, int]
    """For each: its own bytes a row."""


def layout(schema: Schema) -> Layout:
    """The layout of every block of this schema."""
    position = 1 + 5 + len(_prefix(HEADER, 0))
    header, position = position, position + HEADER_BYTES
    starts, widths, row_bytes, width = {}, {}, {}, 0
    for name, own in schema.fixed_features:
        position += len(_prefix(name, 0))
        starts[name], widths[name], row_bytes[name] = position, width, own
        width += own
    return Layout(header, starts, widths, row_bytes)


def encode(
    header: Header, fixed: Sequence[tuple[str, Buffer]], texts: Sequence[tuple[str, pa.Array]]
) -> bytes:
    """One block; as `parts`, with the values (binary, without nulls) of each text feature."""
    return joined(parts(header, fixed, [(name, Listed(v).between(0, len(v))) for name, v in texts]))


def parts(
    header: Header, fixed: Sequence[tuple[str, Buffer]], texts: Sequence[tuple[str, Buffer]]
) -> list[Buffer]:
    """One block, as buffers that follow each other.

    Args:
        header: the block's.
        fixed: name and bytes of each feature of fixed width, in the schema's order.
        texts: name and bytes by `Listed` of each text feature, in the schema's order.

    Raises:
        ValueError: if the block is 2 GiB or more.
    """
    parts: list[Buffer] = []
    for name, value in [(HEADER, header.encode()), *fixed]:
        parts += [_prefix(name, len(value)), value]
    for name, listed in texts:
        parts += [_entry(name, len(listed)), listed]
    length = sum(map(len, parts))
    if length > _MAX_LENGTH:
        raise ValueError(
            f"a block of {header.rows} rows would have {length} bytes, 2 GiB is the limit"
        )
    return [_TAG_BYTES + _varint(length), *parts]


def joined(parts: Iterable[Buffer]) -> bytes:
    """Buffers that follow each other as one."""
    # Only from Python 3.12 on are types told that arrays are buffers.
    return b"".join(parts)  # type: ignore[arg-type]


def decode(data: bytes) -> dict[str, list[bytes]]:
    """The features of a block by name: the bytes of each value.

    Raises:
        ValueError: if the bytes are not a block, with what is wrong.
    """
    features = {}
    (body,) = _fields(data, _TAG_BYTES)
    for item in _fields(body, _TAG_BYTES):
        name, feature = _pair(item)
        (listed,) = _fields(feature, _TAG_BYTES)
        features[name.decode()] = [bytes(value) for value in _fields(listed, _TAG_BYTES)]
    if HEADER not in features:
        raise ValueError("the record has no header, so it is not a block")
    return features


def pack_mask(valid: NDArray[Any]) -> NDArray[Any]:
    """Validity as bits.

    Args:
        valid: (rows, masked columns) bool: whether the value is present.

    Returns:
        (rows, ⌈columns / 8⌉) uint8, the first column in the lowest bit.
    """
    return np.packbits(valid, axis=1, bitorder="little")


def _varint(value: int) -> bytes:
    return bytes(
        [
            value & 127 | 128,
            value >> 7 & 127 | 128,
            value >> 14 & 127 | 128,
            value >> 21 & 127 | 128,
            value >> 28 & 127,
        ]
    )


def _short_varint(value: int) -> bytes:
    out = bytearray()
    while value >= _MORE:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


class Listed:
    """Texts as the wire bytes of a BytesList: tag, length and bytes of each value.

    Arrow joins them: what it then holds as one run of strings is the message.
    """

    def __init__(self, values: pa.Array) -> None:
        """Of binary values without nulls, for as many blocks as they are the rows of."""
        lengths = pc.binary_length(values).to_numpy(zero_copy_only=False)
        distinct, places = np.unique(lengths, return_inverse=True)
        heads = pa.array([_TAG_BYTES + _short_varint(int(n)) for n in distinct], pa.large_binary())
        joined = pc.binary_join_element_wise(
            heads.take(pa.array(places)),
            values.cast(pa.large_binary()),
            pa.scalar(b"", pa.large_binary()),
        )
        ends = joined.buffers()[1] or bytes(8)  # Arrow may leave it out if there is no value.
        self._ends = np.frombuffer(ends, np.int64)[joined.offset :]
        self._bytes = np.frombuffer(joined.buffers()[2] or b"", np.uint8)

    def between(self, start: int, stop: int) -> NDArray[Any]:
        """Those of some consecutive values."""
        return self._bytes[self._ends[start] : self._ends[stop]]


@functools.lru_cache(_PREFIXES)
def _entry(name: str, listed: int) -> bytes:
    """What precedes a bytes list of `listed` bytes in the map of features."""
    key = name.encode()
    feature = _TAG_BYTES + _varint(listed)
    pair = _TAG_BYTES + _varint(len(key)) + key + _TAG_VALUE + _varint(len(feature) + listed)
    return _TAG_BYTES + _varint(len(pair) + len(feature) + listed) + pair + feature


@functools.lru_cache(_PREFIXES)
def _prefix(name: str, value: int) -> bytes:
    """What precedes the only value, of `value` bytes, of a feature."""
    own = _TAG_BYTES + _varint(value)
    return _entry(name, len(own) + value) + own


def _fields(data: bytes | memoryview, tag: bytes) -> list[memoryview]:
    """The values of a message that has one field of bytes, repeated."""
    view, place, found = memoryview(data), 0, []
    while place < len(view):
        if view[place : place + 1] != tag:
            raise ValueError(f"unexpected byte {view[place]} at {place} of a message")
        value, place = _value(view, place + 1)
        found.append(value)
    return found


def _pair(data: memoryview) -> tuple[bytes, memoryview]:
    if data[:1] != _TAG_BYTES:
        raise ValueError("an entry of the features has no name")
    name, place = _value(data, 1)
    if data[place : place + 1] != _TAG_VALUE:
        raise ValueError("an entry of the features has no value")
    value, place = _value(data, place + 1)
    if place != len(data):
        raise ValueError("an entry of the features has bytes left over")
    return bytes(name), value


def _value(view: memoryview, place: int) -> tuple[memoryview, int]:
    length, shift = 0, 0
    while True:
        if place >= len(view) or shift > _MAX_SHIFT:
            raise ValueError("a length runs out of its message")
        byte = view[place]
        length |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < _MORE:
            break
    if place + length > len(view):
        raise ValueError("a value runs out of its message")
    return view[place : place + length], place + length
