"""Golden orders of shards, weights and batches of one group, in numpy and in the graph.

As `order.json`, `layouts.json` may never change. `python -m tests.golden.test_layouts` made it, and
refuses to make it again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.golden.test_order import digest
from tests.layouts import laid_out, subset_of
from tfstream.order import NUMPY, Arrays, Window, epoch_of, window_of
from tfstream.pipeline.arrays import TENSORFLOW

PATH = Path(__file__).with_name("layouts.json")
WEIGHTS = (("g = 0", 2.5), ("g < 4", 0.4), ("g = 6", 0.0))
CASES: dict[str, dict[str, Any]] = {
    "shards": {"shuffle": "shards", "stretches": 4},
    "weights": {"weights": WEIGHTS, "stretches": 2},
    "weighted shards": {"shuffle": "shards", "weights": WEIGHTS},
    "groups": {"batches": "group"},
    "groups, no remainder": {"batches": "group", "remainder": "drop"},
    "weighted groups": {"batches": "group", "weights": WEIGHTS},
    "groups in order": {"batches": "group", "shuffle": "none"},
}


def order_of(xp: Arrays, case: str) -> list[dict[str, str]]:
    """Digests of the blocks and picks of two epochs, of groups of several blocks and of parts."""
    subset = subset_of([50, 3, 1, 40, 7, 300, 2, 33], [16] * 27 + [4], [5, 1, 8, 14])
    spec, layout = laid_out(subset, **CASES[case])
    if layout is not None and xp is TENSORFLOW:
        layout = layout.mapped(tf.constant)
    found = []
    for epoch in (0, 1_000_000):
        kept, number = (tf.constant(subset.kept), tf.constant(epoch, tf.int64))
        if xp is NUMPY:
            kept, number = subset.kept, epoch
        sequence = epoch_of(xp, spec, kept, number, layout=layout)
        windows = []
        for window in range(spec.windows_per_epoch):
            place = window if xp is NUMPY else tf.constant(window, tf.int64)
            made = window_of(xp, spec, sequence, number, place, layout=layout)
            windows.append(Window(np.asarray(made.blocks), np.asarray(made.picks)))
        found.append(
            {
                "blocks": digest(window.blocks for window in windows),
                "picks": digest(window.picks for window in windows),
            }
        )
    return found


@pytest.mark.parametrize("arrays", [NUMPY, TENSORFLOW])
@pytest.mark.parametrize("case", CASES)
def test_layouts_are_golden(case: str, arrays: Arrays) -> None:
    """Both numpy and TensorFlow order as the file says."""
    assert order_of(arrays, case) == json.loads(PATH.read_text())[case]


if __name__ == "__main__":
    with PATH.open("x") as file:
        file.write(json.dumps({case: order_of(NUMPY, case) for case in CASES}, indent=1) + "\n")
