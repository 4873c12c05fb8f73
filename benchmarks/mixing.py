"""Job mixing: how evenly batches draw from the groups, beside other ways to shuffle; drawn."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import data, tfstream_cases
from benchmarks.runner import announce_measured
from benchmarks.workload import SEED

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.workload import Task

_CYCLE = 16
"""Files that are interleaved."""
_RUN = 16
"""Rows that come from a file in turn."""
_TITLES = {
    "tfstream": "tfstream, default",
    "uniform": "global shuffle",
    "buffer": "buffer over 16 interleaved files",
    "groups": "group after group",
}


def run(task: Task) -> dict[str, Any]:
    """The quality of a way to shuffle, counted from the batches of an epoch."""
    random = np.random.default_rng(SEED)
    group = np.sort(data.groups_of(np.arange(task.workload.rows)))
    analytic: dict[str, float] = {}
    batch = task.workload.batch
    if task.contender == "tfstream":
        place = tfstream_cases.kept_shards(task)
        stream = tfstream_cases.open_stream(place, task, packed=True, with_id=False)
        steps = range(stream.steps_per_epoch)
        order = np.concatenate([stream.row_ids(0, step) for step in steps])
        analytic = {"shuffle_quality()": stream.shuffle_quality()}
    elif task.contender == "uniform":
        order = random.permutation(len(group))
    else:
        bounds = np.flatnonzero(np.diff(group, prepend=-1, append=-1))
        files = [np.arange(*pair) for pair in itertools.pairwise(bounds)]
        files = [files[i] for i in random.permutation(len(files))]
        if task.contender == "groups":
            order = np.concatenate([random.permutation(file) for file in files])
        else:
            order = _buffered(_interleaved(files), task.workload.buffer, random)
    findings = []
    if not np.array_equal(np.sort(order), np.arange(len(group))):
        findings = ["not every row came once"]
    means, quality = _spread(group[order], batch)
    announce_measured()
    path = task.folder / "mixing"
    path.mkdir(exist_ok=True)
    np.savez(path / f"{task.contender}.npz", means=means, quality=quality)
    _draw(path)
    return {"figures": {"quality": quality} | analytic, "findings": findings}


def _interleaved(files: list[np.ndarray]) -> np.ndarray:
    """A run of each open file in turn; the next file takes the place of one that has ended."""
    waiting, parts = list(files[::-1]), []
    opened = [waiting.pop() for _ in range(min(_CYCLE, len(waiting)))]
    while opened:
        parts += [file[:_RUN] for file in opened]
        opened = [file[_RUN:] for file in opened]
        opened = [f if len(f) else waiting.pop() for f in opened if len(f) or waiting]
    return np.concatenate(parts)


def _buffered(rows: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """A shuffle buffer: a random place of it gives its row and takes the next one."""
    size = min(size, len(rows))
    buffer, order = rows[:size].copy(), np.empty_like(rows)
    places = random.integers(0, size, len(rows) - size)
    for i, (place, row) in enumerate(zip(places.tolist(), rows[size:].tolist(), strict=True)):
        order[i] = buffer[place]
        buffer[place] = row
    order[len(rows) - size :] = random.permutation(buffer)
    return order


def _spread(group: np.ndarray, batch: int) -> tuple[np.ndarray, float]:
    """The batch means of one group effect, and the quality over all of them, as `Ledger` has it."""
    batches = len(group) // batch
    used = group[: batches * batch]
    effect = np.random.default_rng(SEED + 1).standard_normal(data.GROUPS)
    means = effect[used].reshape(batches, batch).mean(axis=1)
    share = np.bincount(group, minlength=data.GROUPS) / len(group)
    cells = np.repeat(np.arange(batches), batch) * data.GROUPS + used
    counts = np.bincount(cells, minlength=batches * data.GROUPS).reshape(batches, data.GROUPS)
    there = share > 0
    expected = batch * share[there]
    squares = ((counts[:, there] - expected) ** 2 / expected).sum(axis=1)
    return means, float(np.sqrt(squares.mean() / max(there.sum() - 1, 1)))


def _draw(place: Path) -> None:
    """The batch means step by step, one panel for each way that has been computed."""
    from matplotlib.figure import Figure

    found = [name for name in _TITLES if (place / f"{name}.npz").exists()]
    figure = Figure(figsize=(9, 1.6 * len(found) + 0.6), layout="constrained")
    axes = figure.subplots(len(found), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axis, name in zip(axes, found, strict=True):
        saved = np.load(place / f"{name}.npz")
        axis.plot(saved["means"], ".", markersize=1.5, color="#1f5f8b")
        axis.set_title(f"{_TITLES[name]}: quality {saved['quality']:.2f}", loc="left", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("step")
    figure.supylabel("batch mean of a group effect", fontsize=9)
    for suffix in ("svg", "png"):
        figure.savefig(place.parent / f"mixing.{suffix}", dpi=120)
