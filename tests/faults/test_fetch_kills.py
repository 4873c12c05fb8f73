"""Processes that die while they fetch blocks of a remote data set."""

from __future__ import annotations

import subprocess
import sys


def test_readers_that_are_killed_leave_a_sound_cache() -> None:
    """A short run; `python -m tests.faults.fetch_kill_loop --minutes 10` is a long one."""
    command = [sys.executable, "-m", "tests.faults.fetch_kill_loop", "--rounds", "2", "--seed", "5"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "no difference" in ended.stdout
