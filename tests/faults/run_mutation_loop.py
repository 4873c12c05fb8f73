"""Damage the folder of a run over and over: `python -m tests.faults.run_mutation_loop`."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.faults import run_mutations


def main() -> None:
    """Run until the time is over; the first damage that the law does not hold for is raised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    stop = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as name:
        law = run_mutations.Law(run_mutations.make(Path(name)))
        seed, harmless = options.seed, 0
        while time.monotonic() < stop:
            _, seen = law.hold(seed)
            seed, harmless = seed + 1, harmless + (not seen)
    print(f"{seed - options.seed} mutations, {harmless} changed no answer, none passed")


if __name__ == "__main__":
    main()
