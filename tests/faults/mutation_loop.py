"""Damage a data set or a run over and over, in every file.

`python -m tests.faults.mutation_loop`, and `python -m tests.faults.mutation_loop run`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.faults import mutations, run_mutations

SUBJECTS = {"data": mutations, "run": run_mutations}


def main() -> None:
    """Run until the time is over; the first damage that the law does not hold for is raised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subject", nargs="?", choices=SUBJECTS, default="data")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    subject = SUBJECTS[options.subject]
    stop = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as name:
        law = subject.Law(subject.make(Path(name)))
        seed, harmless = options.seed, 0
        while time.monotonic() < stop:
            _, seen = law.hold(seed)
            seed, harmless = seed + 1, harmless + (not seen)
    print(f"{seed - options.seed} mutations, {harmless} changed no answer, none passed")


if __name__ == "__main__":
    main()
