"""TFRecord frames."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfstream.format import framing


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_frames_give_back_what_was_framed(records: list[bytes]) -> None:
    """Framing, one after the other, loses nothing and adds 16 bytes a record."""
    framed = b"".join(map(framing.frame, records))
    assert len(framed) == sum(len(r) + framing.OVERHEAD_BYTES for r in records)
    assert list(framing.frames(framed)) == records


@given(st.binary(max_size=60), st.data())
def test_any_flipped_bit_is_noticed(record: bytes, data: st.DataObject) -> None:
    """No frame with one bit changed reads as a whole record."""
    framed = bytearray(framing.frame(record))
    bit = data.draw(st.integers(0, len(framed) * 8 - 1))
    framed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ValueError, match="record at byte 0"):
        framing.unframe(bytes(framed))


@given(st.binary(max_size=60), st.data())
def test_a_record_cut_anywhere_is_noticed(record: bytes, data: st.DataObject) -> None:
    """A frame that lost its end is not a record."""
    framed = framing.frame(record)
    stop = data.draw(st.integers(1, len(framed) - 1))
    with pytest.raises(ValueError, match="cut off"):
        list(framing.frames(framed[:stop]))


def test_unframe_wants_exactly_one_record() -> None:
    """Two records, or none, are not one."""
    with pytest.raises(ValueError, match="^expected one record, found 2$"):
        framing.unframe(framing.frame(b"a") + framing.frame(b"b"))
    with pytest.raises(ValueError, match="^expected one record, found 0$"):
        framing.unframe(b"")
