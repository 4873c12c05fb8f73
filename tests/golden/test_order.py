"""Golden orders: what the first version of tfstream ordered, for ever.

`order.json` may never change: the rows of runs that people have logged are found by computing their
order again, so an order that differs is another order, with a name of its own. New cases go into a
new file beside it. `python -m tests.golden.test_order` made the file, and refuses to make it again.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.graphs import graph_windows_of
from tests.orders import batches_of, spec_of, windows_of
from tfstream.order import NUMPY, Arrays, Spec, Window, key, permutations
from tfstream.pipeline.arrays import TENSORFLOW

PATH = Path(__file__).with_name("order.json")

Windows = Callable[[Spec, np.ndarray, int], Iterator[Window]]

BASE: dict[str, Any] = {
    "kept": [[7, 100], [1, 33]],
    "batch_size": 64,
    "remainder": "keep",
    "shuffle": "global",
    "window_steps": 3,
    "stretches": 8,
    "seed": 7,
    "epochs": [0, 1],
}
"""The numbers of a spec, the epochs, and the kept rows as [blocks, rows of each]."""
LONG = {
    "kept": [[21, 499], [1, 480], [21, 499], [1, 480]],
    "batch_size": 1024,
    "window_steps": 489,
}
CASES: dict[str, dict[str, Any]] = {
    "a row": BASE | {"kept": [[1, 1]]},
    "a tail": BASE,
    "a dropped tail": BASE | {"remainder": "drop"},
    "the manifest": BASE | {"shuffle": "none", "stretches": 1},
    "uneven blocks": BASE
    | {
        "kept": [[5, 1], [3, 17], [4, 250], [1, 3], [90, 2]],
        "batch_size": 30,
        "window_steps": 7,
        "stretches": 5,
        "seed": 0,
        "epochs": [0, 1, 2, 1_000_000],
    },
    "powers of two": BASE
    | {"kept": [[64, 512]], "batch_size": 1024, "window_steps": 16, "seed": 2**63 - 1},
    "long windows, seed 42": BASE | LONG | {"seed": 42},
    "long windows, seed 43": BASE | LONG | {"seed": 43},
}


def digest(arrays: Iterable[np.ndarray]) -> str:
    """SHA-256 of the shapes and the values, all as little-endian int64."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.asarray(array.shape, "<i8").tobytes())
        found.update(np.asarray(array, "<i8").tobytes())
    return found.hexdigest()


def orders(windows_of: Windows, case: dict[str, Any]) -> list[dict[str, Any]]:
    """For each epoch the digests of all blocks and picks, and some rows in plain."""
    blocks, rows = np.array(case["kept"], np.int64).T
    kept = np.repeat(rows, blocks)
    spec = spec_of(kept, **{k: v for k, v in case.items() if k not in ("kept", "epochs")})
    found = []
    for epoch in case["epochs"]:
        windows = list(windows_of(spec, kept, epoch))
        found.append(
            {
                "epoch": epoch,
                "blocks": digest(window.blocks for window in windows),
                "picks": digest(window.picks for window in windows),
                "first_rows": batches_of(kept, windows[0])[0][:8].tolist(),
                "last_rows": batches_of(kept, windows[-1])[-1][-8:].tolist(),
            }
        )
    return found


def bijections(arrays: Arrays) -> list[dict[str, Any]]:
    """Keys, and permutations by them, in plain."""
    parts = [(0, 0, 1, 0), (7, 1, 2, 3), (2**63 - 1, 10**6, 3, 0)]
    found = []
    for n, numbers in zip((10, 16, 21), parts, strict=True):
        keys = key(arrays, *numbers)
        permuted = np.asarray(permutations(arrays, keys, n))[0]
        found.append(
            {
                "parts": numbers,
                "key": f"{int(np.asarray(keys)[0]):016x}",
                "n": n,
                "permutation": permuted.tolist(),
            }
        )
    return json.loads(json.dumps(found))


def golden() -> dict[str, Any]:
    """The file."""
    return json.loads(PATH.read_text())


@pytest.mark.parametrize("windows_of", [windows_of, graph_windows_of])
@pytest.mark.parametrize("name", CASES)
def test_orders_are_golden(name: str, windows_of: Windows) -> None:
    """Both numpy and the graph order as the file says."""
    case = golden()["orders"][name]
    assert orders(windows_of, case["case"]) == case["epochs"]


@pytest.mark.parametrize("arrays", [NUMPY, TENSORFLOW])
def test_bijections_are_golden(arrays: Arrays) -> None:
    """Keys and permutations are as the file says."""
    assert bijections(arrays) == golden()["bijections"]


def test_the_file_has_the_cases() -> None:
    """What the file says is ordered is what this module would order."""
    assert {name: case["case"] for name, case in golden()["orders"].items()} == CASES


if __name__ == "__main__":
    made = {
        "bijections": bijections(NUMPY),
        "orders": {
            name: {"case": case, "epochs": orders(windows_of, case)} for name, case in CASES.items()
        },
    }
    # Lists of numbers on one line each.
    text = re.sub(
        r"\[[\d,\s]+\]", lambda found: " ".join(found[0].split()), json.dumps(made, indent=1)
    )
    with PATH.open("x") as file:
        file.write(text + "\n")
