"""Job read: shuffled batches, delivered to a loop that does nothing with them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from benchmarks import contenders
from benchmarks.clock import Clock
from benchmarks.delivery import Ledger
from benchmarks.runner import announce_measured

if TYPE_CHECKING:
    from benchmarks.workload import Task


def run(task: Task) -> dict[str, Any]:
    """Measure a contender; epoch 0 is recorded and checked."""
    contender = contenders.find(task.workload, task.contender)
    source = contender.load().open_source(task.folder / contender.layout, task, contender)
    columns, groups = task.workload.columns, task.workload.groups
    # Bare bytes have no rows to check, and say themselves what is checked instead.
    is_bytes = contender.form == "bytes"
    ledger = source.ledger() if is_bytes else Ledger(contender.rows, columns=columns, groups=groups)
    clock = Clock(floor_s=task.workload.floor_s, bound_s=task.workload.bound_s)
    _consume(source, ledger, clock)
    announce_measured()
    return clock.result() | {
        "findings": ledger.findings(whole=clock.whole),
        "delivered": ledger.totals(),
        "quality": ledger.quality(task.workload.batch),
    }


def _consume(source: contenders.Source, ledger: Any, clock: Clock) -> None:
    for epoch in itertools.count():
        for features, label in source.epoch():
            rows = ledger.record(features, label) if epoch == 0 else len(label)
            if clock.tick(epoch, rows):
                return
