"""Files of strangers, to every parser: `python -m tests.faults.fuzz [--minutes M] [--parser NAME]`.

Each parser runs in a process of its own with a limit of memory, so that a crash, a hang or a huge
allocation is seen too. What was found lies under `--keep`, by parser; a file there that is copied
to `tests/faults/crashers` is a test.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.faults.parsers import Parser, Workshop
from tfstream.errors import TfstreamError

CRASHERS = Path(__file__).with_name("crashers.json")
CASE_S = 20
"""Seconds after which a case hangs."""
ROOM_BYTES = 1 << 30
"""Memory that a case may take beside what the process had."""


def fault_of(parser: Parser, data: bytes) -> str | None:
    """What a file leads to that is none of our errors; None if all is well."""
    try:
        parser.parse(data)
    except TfstreamError:
        return None
    except BaseException as error:  # noqa: BLE001 - that is what is looked for
        last = traceback.extract_tb(error.__traceback__)[-3:]
        places = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(last))
        return f"{type(error).__name__}: {str(error)[:200]!r} at {places}"
    return None


def cases(parser: Parser, seed: int) -> bytes:
    """The file of a seed."""
    rng = random.Random(seed)
    return parser.change(rng.choice(parser.sound), rng)


def limit_memory() -> None:
    """Let the process have little more than it has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    room = pages * os.sysconf("SC_PAGE_SIZE") + ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (room, room))


def child(name: str, seed: int, seconds: float, keep: Path) -> None:
    """Try one parser for a while; the file at hand lies in `keep` until it is done with."""
    keep.mkdir(parents=True, exist_ok=True)
    now, faults, done = keep / "now", set[str](), 0
    with tempfile.TemporaryDirectory() as folder:
        parser = Workshop(Path(folder)).parsers[name]
        assert [fault for sound in parser.sound if (fault := fault_of(parser, sound))] == []
        limit_memory()
        stop = time.monotonic() + seconds
        while time.monotonic() < stop:
            data = cases(parser, seed + done)
            now.write_bytes(data)
            faulthandler.dump_traceback_later(CASE_S, exit=True)
            fault = fault_of(parser, data)
            faulthandler.cancel_dump_traceback_later()
            done += 1
            if fault is not None:
                place = fault.split(" at ")[-1]
                if place not in faults:
                    print(f"FAULT {name}: {fault}", flush=True)
                    faults.add(place)
                path = keep / hashlib.sha256(place.encode()).hexdigest()[:12]
                if not path.exists() or path.stat().st_size > len(data):
                    path.write_bytes(data)
    now.unlink(missing_ok=True)
    print(f"{name}: {done} files, {len(faults)} faults", flush=True)


def main() -> int:
    """Run each parser in a process; the exit code is 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="for each parser")
    parser.add_argument("--parser", action="append", help="its name or the begin of it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "fuzz-found")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.seed, 60 * options.minutes, options.keep)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        names = list(Workshop(Path(folder)).parsers)
    wanted = tuple(options.parser or [""])
    found = 0
    for name in filter(lambda name: name.startswith(wanted), names):
        stop, seed = time.monotonic() + 60 * options.minutes, options.seed
        keep = options.keep / name.replace(" ", "-")
        while (left := stop - time.monotonic()) > 0:
            command = [sys.executable, "-m", "tests.faults.fuzz", "--child", name]
            command += ["--seed", str(seed), "--minutes", str(left / 60), "--keep", str(keep)]
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
            print(ended.stdout, end="", flush=True)
            found += ended.stdout.count("FAULT")
            if ended.returncode == 0:
                break
            # It died of a file, which is kept under the seed; go on with others.
            found += 1
            last = ended.stderr.strip()[-1500:]
            print(f"DIED {name}, exit code {ended.returncode}: {last}", flush=True)
            if (keep / "now").exists():
                (keep / "now").replace(keep / f"died-{seed}")
            seed += 1_000_003
    print(f"{found} faults")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
