"""Permissions, which a test can be bound by even as root."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def bound_by_permissions() -> Iterator[None]:
    """This thread asks for permission like anybody, though root may do all.

    capset(2): two triples of effective, permitted and inheritable bits; bits 1 and 2 of the first
    override the permissions of files.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    before, bits = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, before) == 0
    bits[:] = before[:]
    bits[0] &= ~0b110
    assert libc.capset(header, bits) == 0
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0
