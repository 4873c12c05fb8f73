"""A fixed 64-bit hash of values, for group keys and for counting distinct values.

It is a function of the value alone: no key, no library's or Python's own hash. With s the output of
splitmix64 for a state (Steele, Lea and Flood, 2014), so that s(0) = 0xE220A8397B1DCDAF:

- whole numbers, booleans (0 and 1) and times (as stored, in the unit of their type): s(value) with
  the value as 64 bits of two's complement, so the width of the type does not matter;
- floats: s(bits of the value as float64), -0.0 as 0.0 and every NaN as one;
- strings and bytes: s(Σ s(wᵢ xor s(i)) + length) mod 2^64 over the words wᵢ, i = 0, 1, …: eight
  bytes of the UTF-8 text each, little-endian, the last one filled up with zero bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tfstream import order
from tfstream.errors import UsageError

_XP = order.NumpyArrays()
_WORD = 8


def hashes(values: pa.Array) -> NDArray[Any]:
    """The hash of each value, (values,) uint64; of a null it is of no meaning.

    Raises:
        UsageError: if the type has none.
    """
    type_ = values.type
    if not len(values):
        return np.zeros(0, np.uint64)
    if pa.types.is_string(type_) or pa.types.is_binary(type_):
        return _of_bytes(values)
    if pa.types.is_floating(type_):
        floats = np.asarray(values.cast(pa.float64()).fill_null(0))
        plain = np.where(np.isnan(floats), np.nan, floats + 0.0)
        return _splitmix(plain.view(np.uint64))
    if pa.types.is_boolean(type_):
        values = values.cast(pa.uint8())
    elif pa.types.is_temporal(type_) and type_.bit_width in {32, 64}:
        values = values.view(pa.int32() if type_.bit_width == 32 else pa.int64())  # noqa: PLR2004 - bits of a word
    elif not pa.types.is_integer(type_):
        raise UsageError(f"a value of type {type_} has no hash")
    return _splitmix(np.asarray(values.fill_null(0)).astype(np.uint64))


def _splitmix(states: NDArray[Any]) -> NDArray[Any]:
    hashed: NDArray[Any] = order.key(_XP, states)
    return hashed


def _of_bytes(values: pa.Array) -> NDArray[Any]:
    """The hashes of strings or bytes, by words and not by values, however long one is."""
    offsets = np.frombuffer(values.buffers()[1], np.int32)[values.offset :][: len(values) + 1]
    offsets = offsets.astype(np.int64)
    lengths = np.diff(offsets)
    words = -(-lengths // _WORD)
    ends = np.cumsum(words)
    place = np.arange(ends[-1]) - np.repeat(ends - words, words)
    starts = np.repeat(offsets[:-1] - offsets[0], words) + place * _WORD
    text = np.frombuffer(values.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    padded = np.concatenate([text, np.zeros(_WORD, np.uint8)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WORD)
    found = windows[starts].view("<u8").reshape(-1).astype(np.uint64)
    # What follows the end of a value in its last word belongs to the next value.
    surplus = np.maximum((place + 1) * _WORD - np.repeat(lengths, words), 0).astype(np.uint64)
    found &= np.uint64(2**64 - 1) >> (np.uint64(8) * surplus)
    sums = np.zeros(len(found) + 1, np.uint64)
    np.cumsum(_splitmix(found ^ _splitmix(place)), out=sums[1:])
    return _splitmix(sums[ends] - sums[ends - words] + lengths.astype(np.uint64))
