"""What the footer of a Parquet file says of its column chunks, without asking pyarrow.

pyarrow ends the process at a chunk whose statistics of sizes do not fit its column, or that is
encrypted, as soon as `RowGroupMetaData.column` is called. So the few numbers that are needed are
read here: the footer is a struct in Thrift's compact protocol, whose fields have the numbers of
parquet.thrift. Everything else is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa

from tfstream import storage
from tfstream.storage import Place

_TAIL_BYTES = 64 << 10
"""Read at once from the end of a file; most footers are shorter."""
_END_BYTES = 8
"""Behind a footer: its length and the letters of the format."""
_MOST_DEPTH = 32
_MOST_VARINT_BYTES = 10

# Kinds of values. A boolean field has its value in its kind, and no bytes.
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_FIXED = {_TRUE: 0, _FALSE: 0, _BYTE: 1, _DOUBLE: 8}
"""Bytes of values that always have so many."""

# Numbers of fields.
_ROW_GROUPS = 4  # of FileMetaData
_COLUMNS = 1  # of RowGroup
_META_DATA = 3  # of ColumnChunk
_UNCOMPRESSED, _DATA_PAGE, _DICTIONARY_PAGE = 6, 9, 11  # of ColumnMetaData


class Chunk(NamedTuple):
    """A column of a row group; what is not told is 0."""

    size_bytes: int
    """Of its pages, before compression."""
    byte: int
    """Where it begins in the file."""


_UNTOLD = Chunk(0, 0)


def tail(path: Place) -> bytes:
    """The end of a file from its footer on, or from before it; not checked.

    Raises:
        StorageError: if it cannot be read.
    """
    size = storage.size(path)
    wanted = min(size, _TAIL_BYTES)
    data = storage.read_range(path, size - wanted, wanted)
    length = _footer_bytes(data) + _END_BYTES
    if len(data) < length <= size:
        data = storage.read_range(path, size - length, length)
    return data


def _footer_bytes(data: bytes) -> int:
    return int.from_bytes(data[-_END_BYTES:-4], "little")


def row_groups(data: bytes) -> Iterator[list[Chunk]]:
    """The chunks of each row group, in the order of the file's columns.

    Args:
        data: a file, or its `tail`.

    Raises:
        pa.ArrowInvalid: if it is no footer, or has a number below 0, once that is come to.
    """
    footer = data[-_END_BYTES - _footer_bytes(data) : -_END_BYTES]
    try:
        yield from _row_groups(footer)
    except IndexError:
        raise pa.ArrowInvalid("the footer ends too early") from None


def _row_groups(data: bytes) -> Iterator[list[Chunk]]:
    place = number = 0
    while True:
        number, kind, place = _field(data, place, number)
        if not kind:
            return
        if number == _ROW_GROUPS and kind == _LIST:
            count, place = _structs(data, place)
            for _ in range(count):
                chunks, place = _row_group(data, place)
                yield chunks
            return
        place = _behind(data, place, kind)


def _row_group(data: bytes, place: int) -> tuple[list[Chunk], int]:
    chunks, number = list[Chunk](), 0
    while True:
        number, kind, place = _field(data, place, number)
        if not kind:
            return chunks, place
        if number == _COLUMNS and kind == _LIST:
            count, place = _structs(data, place)
            for _ in range(count):
                chunk, place = _chunk(data, place)
                chunks.append(chunk)
        else:
            place = _behind(data, place, kind)


def _chunk(data: bytes, place: int) -> tuple[Chunk, int]:
    chunk, number = _UNTOLD, 0
    while True:
        number, kind, place = _field(data, place, number)
        if not kind:
            return chunk, place
        if number == _META_DATA and kind == _STRUCT:
            chunk, place = _meta_data(data, place)
        else:
            place = _behind(data, place, kind)


def _meta_data(data: bytes, place: int) -> tuple[Chunk, int]:
    found, number = {_UNCOMPRESSED: 0, _DATA_PAGE: 0, _DICTIONARY_PAGE: 0}, 0
    while True:
        number, kind, place = _field(data, place, number)
        if not kind:
            byte = found[_DICTIONARY_PAGE] or found[_DATA_PAGE]
            return Chunk(found[_UNCOMPRESSED], byte), place
        if number in found and kind == _I64:
            value, place = _varint(data, place)
            if value & 1:
                raise pa.ArrowInvalid("the footer has a size or an offset below 0")
            found[number] = value >> 1
        else:
            place = _behind(data, place, kind)


def _field(data: bytes, place: int, number: int) -> tuple[int, int, int]:
    """The number and the kind of the field at a place, 0 at the end, and where its value is."""
    head = data[place]
    place += 1
    if head > 15:  # noqa: PLR2004 - the upper four bits tell how much the number grows
        return number + (head >> 4), head & 15, place
    if head:
        value, place = _varint(data, place)
        number = (value >> 1) ^ -(value & 1)
    return number, head, place


def _structs(data: bytes, place: int) -> tuple[int, int]:
    count, kind, place = _list(data, place)
    if kind != _STRUCT:
        raise pa.ArrowInvalid("the footer has other values where structs should be")
    return count, place


def _list(data: bytes, place: int) -> tuple[int, int, int]:
    """The number of a list's items, their kind, and where they are."""
    head = data[place]
    place += 1
    count = head >> 4
    if count == 15:  # noqa: PLR2004 - the number follows
        count, place = _varint(data, place)
    if count > len(data):
        raise pa.ArrowInvalid("the footer has a list that is longer than itself")
    return count, head & 15, place


def _varint(data: bytes, place: int) -> tuple[int, int]:
    byte = data[place]
    place += 1
    value, shift = byte & 127, 7
    while byte > 127:  # noqa: PLR2004 - the upper bit says that more follows
        if shift == 7 * _MOST_VARINT_BYTES:
            raise pa.ArrowInvalid("the footer has a number that is too long")
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        shift += 7
    return value & (1 << 64) - 1, place


def _behind(data: bytes, place: int, kind: int, depth: int = 0) -> int:
    """The place behind a value."""
    if _I16 <= kind <= _I64:
        while data[place] > 127:  # noqa: PLR2004 - the upper bit says that more follows
            place += 1
        return place + 1
    if kind == _BINARY:
        size, place = _varint(data, place)
        return place + size
    if kind in _FIXED:
        return place + _FIXED[kind]
    if depth == _MOST_DEPTH:
        raise pa.ArrowInvalid("the footer has structs that are too deep")
    if kind == _STRUCT:
        return _behind_struct(data, place, depth)
    if kind not in {_LIST, _SET}:
        raise pa.ArrowInvalid(f"the footer has a value of the unknown kind {kind}")
    count, kind, place = _list(data, place)
    if kind <= _FALSE:
        # An item is a byte, unlike a field.
        return place + count
    for _ in range(count):
        place = _behind(data, place, kind, depth + 1)
    return place


def _behind_struct(data: bytes, place: int, depth: int) -> int:
    while head := data[place]:
        place += 1
        if head < 16:  # noqa: PLR2004 - as in `_field`
            _, place = _varint(data, place)
        kind = head & 15
        if _I16 <= kind <= _I64:
            # Most fields: a call for each would double the time.
            while data[place] > 127:  # noqa: PLR2004 - as in `_behind`
                place += 1
            place += 1
        else:
            place = _behind(data, place, kind, depth + 1)
    return place + 1
