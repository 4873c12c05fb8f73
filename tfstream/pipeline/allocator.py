"""What glibc's allocator does with the buffers of windows."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import time
from collections.abc import Mapping

SWITCH = "TFSTREAM_MALLOC"
"""Environment variable; "0" leaves the allocator alone."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Parameters of mallopt(3)."""
_SETTINGS = ((_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 1 << 30), (_ARENA_MAX, 1))
_TRIM_EACH_S = 10.0
"""Seconds between two trims at least."""
_trimmed_s = float("-inf")
_log = logging.getLogger(__name__)


@functools.cache
def keep_buffers() -> bool:
    """Let glibc keep what the pipeline frees, for the next window; whether it does.

    By default each buffer of 128 KiB or more is mapped, faulted in page by page and given back:
    190,000 page faults for 4 M rows of 145 bytes, a third of the time. All threads take them from
    one arena: in an arena each, what one thread has freed is no use to the others, and memory grew
    for ten epochs. It is a setting of the whole process, made once; where the user has set the
    allocator, it stays theirs.
    """
    if not is_wanted(os.environ):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    refused = [name for name, value in _SETTINGS if not library.mallopt(name, value)]
    if refused:
        _log.info("mallopt refused %s; buffers are given back to the system each time", refused)
    return not refused


def trim() -> None:
    """Give back what is free, if buffers are kept; for the begin of an epoch.

    What a window leaves is cut up by the next ones, so the largest need of all epochs would stay,
    and rise. What it takes is below the noise: 1.85 and 1.89 CPU s an epoch of 4 M rows of 137
    bytes with it, 1.84 and 2.03 without.
    """
    global _trimmed_s  # noqa: PLW0603 - the process has one heap
    now = time.monotonic()
    if keep_buffers() and now - _trimmed_s >= _TRIM_EACH_S:
        _trimmed_s = now
        ctypes.CDLL(None).malloc_trim(0)


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether neither the switch nor a setting of the user's speaks against it."""
    theirs = any(name.startswith("MALLOC_") for name in environment)
    tuned = "glibc.malloc" in environment.get("GLIBC_TUNABLES", "")
    preloaded = "malloc" in environment.get("LD_PRELOAD", "")
    return environment.get(SWITCH, "1") != "0" and not (theirs or tuned or preloaded)
