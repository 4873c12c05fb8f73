"""A block: rows as a plain `tf.train.Example` with canonical bytes, written without TensorFlow.

The features are sorted by name, every length is a varint padded to five bytes, and the features
with a fixed width a row come first: so feature j begins at `starts[j] + rows * widths[j]`,
whatever the block's rows are. A block of wide rows is several such records, one after the other.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tfstream.format import framing
from tfstream.format.schema import HEADER, HEADER_BYTES, Schema

_TAG_BYTES = b"\x0a"
_TAG_VALUE = b"\x12"
_HEADER = struct.Struct("<qIQ")
_TOKENS = 2**64
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

    def of_record(self, index: int) -> Header:
        """The header of one record of the block: no two of them are alike."""
        return replace(self, token=(self.token + index) % _TOKENS)

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
    """Where the features of fixed width lie in the records of a block."""

    header: int
    """Byte at which the header begins, in each record."""
    records: tuple[tuple[int, int], ...]
    """For each record: the byte of the block at which its frame would begin if there were no rows,
    and bytes a row of all records before it."""
    record: Mapping[str, int]
    """For each feature behind a header: its record."""
    starts: Mapping[str, int]
    """For each: the byte of the record at which it would begin if there were no rows."""
    widths: Mapping[str, int]
    """For each: bytes a row of all fixed features before it in the record."""
    row_bytes: Mapping[str, int]
    """For each: its own bytes a row."""

    def record_of(self, name: str) -> int:
        """The record of any feature: those of no fixed width are in the last one."""
        return self.record.get(name, len(self.records) - 1)


def layout(schema: Schema) -> Layout:
    """The layout of every block of this schema."""
    header = 1 + 5 + len(_prefix(HEADER, 0))
    record, starts, widths, row_bytes = {}, {}, {}, {}
    records, begin, before = [], 0, 0
    for index, features in enumerate(schema.records):
        records.append((begin, before))
        position, width = header + HEADER_BYTES, 0
        for name, own in features:
            position += len(_prefix(name, 0))
            record[name], starts[name], widths[name], row_bytes[name] = index, position, width, own
            width += own
        begin, before = begin + framing.OVERHEAD_BYTES + position, before + width
    return Layout(header, tuple(records), record, starts, widths, row_bytes)


def framed(
    schema: Schema, header: Header, fixed: Mapping[str, Buffer], texts: Mapping[str, Buffer]
) -> list[Buffer]:
    """One block as the TFRecord frames of its records, in buffers that follow each other.

    Args:
        schema: the columns.
        header: the block's.
        fixed: the bytes of each feature of fixed width.
        texts: the bytes by `Listed` of each text feature, in the schema's order.

    Raises:
        ValueError: if a record is 2 GiB or more.
    """
    found: list[Buffer] = []
    last = len(schema.records) - 1
    for index, features in enumerate(schema.records):
        own = [(name, fixed[name]) for name, _ in features]
        rest = list(texts.items()) if index == last else []
        found += framing.framed(parts(header.of_record(index), own, rest))
    return found


def unframed(
    schema: Schema, data: bytes, records: range | None = None
) -> tuple[Header, dict[str, list[bytes]]]:
    """The header of a block, and its features by name: the bytes of each value.

    Args:
        schema: the columns.
        data: the frames of consecutive records of the block.
        records: which ones these are; all if None.

    Raises:
        ValueError: if they are not, with what is wrong.
    """
    every = range(len(schema.records))
    expected, header = every if records is None else records, None
    found: dict[str, list[bytes]] = {}
    frames = list(framing.frames(data))
    if len(frames) != len(expected):
        raise ValueError(f"expected {len(expected)} records, found {len(frames)}")
    for index, record in zip(expected, frames, strict=True):
        features = decode(record)
        own = Header.decode(features.pop(HEADER)[0])
        header = header or own.of_record(-index)
        if own != header.of_record(index):
            raise ValueError(f"record {index} has the header {own}, expected {header} + {index}")
        found |= features
    if header is None:
        raise ValueError("no record was asked for")
    return header, found


def check(schema: Schema, data: bytes, expected: Header) -> None:
    """Refuse what is not a whole block with this header, without a look at its values.

    Raises:
        ValueError: with what is wrong.
    """
    place, found = layout(schema).header, 0
    for index, record in enumerate(framing.frames(data)):
        own = Header.decode(record[place : place + HEADER_BYTES])
        if own != expected.of_record(index):
            raise ValueError(f"record {index} has the header {own}, expected {expected} + {index}")
        found += 1
    if found != len(schema.records):
        raise ValueError(f"expected {len(schema.records)} records, found {found}")


def encode(
    header: Header, fixed: Sequence[tuple[str, Buffer]], texts: Sequence[tuple[str, pa.Array]]
) -> bytes:
    """One record; as `parts`, with the values (binary, without nulls) of each text feature."""
    return joined(parts(header, fixed, [(name, Listed(v).between(0, len(v))) for name, v in texts]))


def parts(
    header: Header, fixed: Sequence[tuple[str, Buffer]], texts: Sequence[tuple[str, Buffer]]
) -> list[Buffer]:
    """One record of a block, as buffers that follow each other.

    Args:
        header: the record's.
        fixed: name and bytes of each of its features of fixed width, in the schema's order.
        texts: name and bytes by `Listed` of each text feature, in the schema's order.

    Raises:
        ValueError: if it is 2 GiB or more.
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
    """The features of a record by name: the bytes of each value.

    Raises:
        ValueError: if the bytes are not one of a block, with what is wrong.
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
