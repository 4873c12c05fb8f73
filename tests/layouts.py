"""Subsets without files, specs with weights, shards and groups, and their layouts."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from tfstream.entries import Layout
from tfstream.format.layout import layout_of, rows_of, weights_of
from tfstream.format.subset import Subset
from tfstream.order import Spec


def subset_of(
    groups: Sequence[int], blocks: Sequence[int], shards: Sequence[int], keys: Sequence[int] = ()
) -> Subset:
    """All rows of groups of these sizes, cut into blocks of these sizes and runs of blocks."""
    starts, first = np.cumsum(groups) - groups, np.cumsum(blocks) - blocks
    table = {"g": list(keys) or list(range(len(groups))), "first_row": starts}
    catalog = SimpleNamespace(
        block_rows=np.asarray(blocks, np.int64),
        block_first=first.astype(np.int64),
        block_shard=np.repeat(np.arange(len(shards)), shards),
        groups=pa.table(table),
        group_starts=starts.astype(np.int64),
        manifest=SimpleNamespace(keys=["g"], group_by=["g"], forgotten=()),
        digest="d",
        rows=int(np.sum(groups)),
    )
    return Subset.whole(catalog)


def laid_out(subset: Subset, **numbers: Any) -> tuple[Spec, Layout | None]:
    """The spec and the layout of these numbers."""
    given = {
        "batch_size": 8,
        "remainder": "keep",
        "shuffle": "global",
        "batches": "mixed",
        "weights": (),
        "window_steps": 3,
        "stretches": 1,
        "seed": 7,
    } | numbers
    layout = layout_of(
        subset,
        shuffle=given["shuffle"],
        batches=given["batches"],
        weights=given["weights"],
        cut=(given["batch_size"], given["remainder"]),
    )
    of_group = {}
    if given["batches"] == "group":
        full = int((layout.sizes == given["batch_size"]).sum())
        of_group = {"full_batches": full, "tails": tuple(layout.sizes[full:].tolist())}
    rows = subset.rows if layout is None else rows_of(layout)
    made = {"subset": subset.digest, "rows": rows, "blocks": len(subset.blocks)}
    return Spec(**made, **given, **of_group), layout


def cut(draw: st.DrawFn, total: int, largest: int) -> list[int]:
    """Positive numbers that add up."""
    found = []
    while total:
        found.append(draw(st.integers(1, min(largest, total))))
        total -= found[-1]
    return found


@st.composite
def subsets(draw: st.DrawFn) -> Subset:
    """Groups of blocks, blocks of groups, and runs of blocks; keys may come again."""
    groups = draw(st.lists(st.integers(1, 40), min_size=1, max_size=8))
    blocks = cut(draw, sum(groups), draw(st.sampled_from([3, 20, 60])))
    keys = [draw(st.integers(0, 5)) for _ in groups]
    return subset_of(groups, blocks, cut(draw, len(blocks), 5), keys)


@st.composite
def weighted(draw: st.DrawFn) -> tuple[tuple[str, float], ...]:
    """Weights of some groups: none, whole, broken, and overlapping conditions."""
    weight = st.sampled_from([0.0, 0.3, 0.5, 1.0, 1.7, 2.0, 3.25])
    texts = draw(
        st.lists(st.sampled_from(["g = 0", "g = 1", "g > 1", "g <= 4"]), unique=True, max_size=3)
    )
    return tuple((text, draw(weight)) for text in texts)


@st.composite
def laid_outs(draw: st.DrawFn, **fixed: Any) -> tuple[Subset, Spec, Layout | None]:
    """Any subset, spec and layout of a few rows."""
    subset = draw(subsets())
    batches = fixed.get("batches") or draw(st.sampled_from(["mixed", "group"]))
    shuffles = ["global", "shards"] if batches == "mixed" else ["global"]
    shuffle = fixed.get("shuffle") or draw(st.sampled_from(shuffles))
    weights = draw(weighted())
    if not (weights_of(subset.catalog, weights) >= 1).any():
        weights = ()  # so that there are rows
    stretches = draw(st.integers(1, 4)) if batches == "mixed" else 1
    spec, layout = laid_out(
        subset,
        **{
            "batch_size": stretches * draw(st.integers(1, 6)),
            "shuffle": shuffle,
            "batches": batches,
            "weights": weights,
            "window_steps": draw(st.integers(1, 5)),
            "stretches": stretches,
            "seed": draw(st.integers(0, 2**63 - 1)),
        }
        | fixed,
    )
    return subset, spec, layout


def groups_of(subset: Subset) -> np.ndarray:
    """The key of each row of the data set, (rows,) int64."""
    starts = subset.catalog.group_starts
    sizes = np.diff(np.append(starts, subset.catalog.rows))
    return np.repeat(subset.catalog.groups["g"].to_numpy(), sizes)
