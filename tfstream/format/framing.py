"""TFRecord frames: length, masked CRC of the length, data, masked CRC of the data."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import google_crc32c
from numpy.typing import NDArray

OVERHEAD_BYTES = 16
"""Bytes that a frame adds to its data."""

_HEAD_BYTES = 12
_MASK_DELTA = 0xA282EAD8


def frame(data: bytes) -> bytes:
    """The data as one TFRecord record."""
    return b"".join(map(bytes, framed([data])))


def framed(parts: Sequence[bytes | NDArray[Any]]) -> list[bytes | NDArray[Any]]:
    """The data of one record with what frames it.

    Args:
        parts: buffers that follow each other, bytes or (bytes,) uint8.
    """
    crc = 0
    for part in parts:
        crc = google_crc32c.extend(crc, part)
    length = struct.pack("<Q", sum(map(len, parts)))
    return [length + _masked(google_crc32c.value(length)), *parts, _masked(crc)]


def unframe(framed: bytes) -> bytes:
    """The data of one record.

    Raises:
        ValueError: if the bytes are not exactly one whole record, with what is wrong.
    """
    records = list(frames(framed))
    if len(records) != 1:
        raise ValueError(f"expected one record, found {len(records)}")
    return records[0]


def frames(data: bytes) -> Iterator[bytes]:
    """The data of each record in turn.

    Raises:
        ValueError: at the first record that is not whole, with what is wrong and at which byte.
    """
    start = 0
    while start < len(data):
        head = data[start : start + _HEAD_BYTES]
        if len(head) < _HEAD_BYTES:
            raise ValueError(f"the record at byte {start} is cut off in its length")
        if head[8:] != _masked_crc(head[:8]):
            raise ValueError(f"the length of the record at byte {start} has a wrong CRC")
        (length,) = struct.unpack("<Q", head[:8])
        stop = start + OVERHEAD_BYTES + length
        if stop > len(data):
            raise ValueError(f"the record at byte {start} is cut off")
        record = data[start + _HEAD_BYTES : stop - 4]
        if data[stop - 4 : stop] != _masked_crc(record):
            raise ValueError(f"the record at byte {start} has a wrong CRC")
        yield record
        start = stop


def _masked_crc(data: bytes) -> bytes:
    return _masked(google_crc32c.value(data))


def _masked(crc: int) -> bytes:
    masked = ((crc >> 15) | (crc << 17) & 0xFFFFFFFF) + _MASK_DELTA
    return struct.pack("<I", masked & 0xFFFFFFFF)
