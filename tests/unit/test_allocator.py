"""When the allocator is left to the user, and what it is set to else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tfstream.pipeline import allocator

_BUFFERS = """
import ctypes, mmap, resource
from tfstream.pipeline import allocator
wanted = allocator.keep_buffers()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        buffers = [libc.malloc(24 << 20) for _ in range(4)]
        for buffer in buffers:
            ctypes.memset(buffer, 1, 24 << 20)
        for buffer in buffers:
            libc.free(buffer)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(wanted, faults() < 49152)
"""


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, True),
        ({"TFSTREAM_MALLOC": "0"}, False),
        ({"MALLOC_ARENA_MAX": "2"}, False),
        ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}, False),
        ({"GLIBC_TUNABLES": "glibc.cpu.x86_shstk=off"}, True),
        ({"LD_PRELOAD": "/usr/lib/libjemalloc.so.2"}, False),
    ],
)
def test_what_the_user_sets_stays(environment: dict[str, str], wanted: bool) -> None:
    """The switch, and whatever tells that somebody chose an allocator or its settings."""
    assert allocator.is_wanted(environment) is wanted


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is on Linux")
@pytest.mark.parametrize(("switch", "printed"), [("1", "True True"), ("0", "False False")])
def test_freed_buffers_come_again(switch: str, printed: str) -> None:
    """The pages of four buffers of 24 MiB are faulted in each time, or once."""
    done = subprocess.run(
        [sys.executable, "-c", _BUFFERS],
        env={"TFSTREAM_MALLOC": switch},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == printed
