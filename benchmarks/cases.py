"""Jobs with figures of their own: how a stream starts and lasts, and what it costs in a fit."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.workload import Task

Figures = Mapping[str, Mapping[str, float]]
"""By case its figures by name, with their units; medians."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job whose table has a row for each case and a column for each figure."""

    module: str
    """Its module in this package, with a function `run` of a task."""
    cases: Mapping[str, str]
    """What is done in each case, by name."""
    caption: str
    modules: Mapping[str, str] = field(default_factory=dict)
    """By case the module that it needs, where not every environment has it."""
    sayings: Callable[[Figures], list[str]] = lambda _: []
    """What the figures come to, in sentences."""


def run(task: Task) -> dict[str, Any]:
    """Do a case in a child: its `figures`, by name with their units, and its `findings`."""
    module = importlib.import_module(f"benchmarks.{JOBS[task.action].module}")
    return module.run(task)  # type: ignore[no-any-return]


def _ratio(figures: Figures, name: str, over: str, under: str, what: str) -> list[str]:
    """A sentence about one figure of two cases, if both were measured."""
    if over not in figures or under not in figures:
        return []
    return [f"{what}: {figures[over][name] / figures[under][name]:.2f} times"]


def _of_starts(figures: Figures) -> list[str]:
    late, first = "step-1000000", "step-0"
    found = _ratio(figures, "first batch s", late, first, "first batch at step 10^6 against step 0")
    return found + _ratio(figures, "CPU s", late, first, "its CPU seconds")


def _of_columns(figures: Figures) -> list[str]:
    name = "CPU ns a value"
    found = _ratio(figures, name, "columns-200", "columns-32", "a byte of 200 columns against 32")
    for case in ("columns-4-of-512", "columns-4-of-512-label"):
        found += _ratio(figures, "CPU s / M rows", case, "columns-512", f"{case} against all")
    return found


def _of_fits(figures: Figures) -> list[str]:
    found = []
    for model in ("small", "large"):
        pair = f"tfstream-{model}", f"constant-{model}"
        found += _ratio(figures, "ms a step", *pair, f"a fit of the {model} model, fed by tfstream")
        if set(pair) <= set(figures):
            cpu = [figures[case]["CPU ms a step"] for case in pair]
            found.append(f"CPU of the input side: {cpu[0] - cpu[1]:.2f} ms a step")
    return found


def _of_mixed(figures: Figures) -> list[str]:
    pair = "tfstream-mixed", "textbook-mixed"
    return _ratio(figures, "M rows/s", *pair, "mixed rows, every column, against the textbook")


def _of_remote(figures: Figures) -> list[str]:
    found = []
    for ceiling in ("ceiling", "ceiling-whole"):
        found += _ratio(figures, "MB/s", "remote-cold", ceiling, f"cold against {ceiling}")
    for case in ("remote-warm", "remote-warm-process"):
        found += _ratio(figures, "MB/s", case, "local", f"{case} against local")
    return found + _ratio(figures, "MB/s", "remote-cold", "tensorflow-io", "cold against its")


JOBS: Mapping[str, Job] = {
    "start": Job(
        module="starting",
        cases={
            "step-0": "iter() to the first batch, batches of 2 rows",
            "step-1000000": "the same, from a cursor at step 10^6",
            "epoch": "iter() to the first batch, against one window at the steady rate",
            "plan": "10^6 blocks without files: from a stream to the plan of its first window",
        },
        caption="A process a case, in which one iterator was made before. The plan: the order of "
        "an epoch and the blocks and places of a window, computed by the graph.",
        sayings=_of_starts,
    ),
    "epochs": Job(
        module="lasting",
        cases={"memory-packed": "ten epochs, one tensor", "memory-dict": "ten epochs, by column"},
        caption="Resident memory of the process after each epoch; slope by least squares over the "
        "last eight epochs.",
    ),
    "columns": Job(
        module="few_columns",
        cases={
            "columns-32": "32 float32 columns and a label, all asked for",
            "columns-200": "200 and a label, all asked for",
            "columns-512": "512 and a label, all asked for",
            "columns-4-of-512-label": "4 of them and the label",
            "columns-4-of-512": "4 of them, no label",
        },
        caption="As many bytes in each source as in that of the other jobs; packed tensors.",
        sayings=_of_columns,
    ),
    "constant": Job(
        module="constant",
        cases={
            "constant-small": "one batch, again and again; two Dense(64)",
            "tfstream-small": "the stream; two Dense(64)",
            "constant-large": "one batch; four Dense, a step of 10 ms or more",
            "tfstream-large": "the stream; the same model",
        },
        caption="model.fit, packed, whole epochs after the first; seconds of all threads.",
        sayings=_of_fits,
    ),
    "mixed-read": Job(
        module="mixed_reading",
        cases={
            "tfstream-mixed": "every column, blocks + windows",
            "textbook-mixed": "one Example a row, every column, buffer shuffle",
        },
        caption="13 int64 with nulls, 26 categories, 2 strings, timestamp and label, as a dict.",
        sayings=_of_mixed,
    ),
    "mixing": Job(
        module="mixing",
        cases={
            "tfstream": "blocks + windows, by default",
            "uniform": "all rows permuted",
            "buffer": "16 interleaved files of groups into a buffer",
            "groups": "group after group, permuted inside",
        },
        caption="Computed from row ids, nothing is read. Quality: spread of the batch means of a "
        "group effect, over that of uniform draws; 1 is perfect. Drawn to mixing.svg and .png.",
    ),
    "lookup": Job(
        module="lookup",
        cases={
            "open": "a run of 10^5 steps on 10^8 rows is opened, and the steps of a row are asked",
            "step-ids": "it is open: row ids of a step",
            "step-sources": "sources of its 1,000 rows, of some 340 of 400 shards",
            "row-id": "steps of a row id",
            "source-row": "steps of a row of a source",
            "where-all": "steps of the rows with f31 > x; 64 groups by ranges of id",
            "where-pruned": "steps of the rows with id = x; the same",
        },
        caption="Index and provenance of the 10^8 rows are made up, and there are no shards; those "
        "of the conditions are the source's. Each question is about another step or row.",
    ),
    "log": Job(
        module="lookup",
        cases={"log": "10^6 steps through the callback, without a model"},
        caption="Bytes of the run's folder, compacted and just before. Resident memory; its growth "
        "by least squares over the last three quarters.",
    ),
    "remote": Job(
        module="remote_reading",
        cases={
            "local": "shuffled epochs of the shards on this disk",
            "remote-cold": "of the same behind s3://, the cache emptied before each epoch",
            "remote-warm": "from the cache, once the first epoch has filled it",
            "remote-warm-process": "the same, where another process has filled it",
            "ceiling": "GETs of the epoch's ranges, as many at once, kept nowhere",
            "ceiling-whole": "GETs of whole shards",
            "tensorflow-io": "TFRecordDataset reads the shards one after the other, in place",
        },
        modules={"tensorflow-io": "tensorflow_io"},
        caption="Packed tensors, whole epochs after epoch 0, which is checked. The server is moto, "
        "on the same cores, or the store below TFSTREAM_BENCHMARK_URL.",
        sayings=_of_remote,
    ),
    "parquet": Job(
        module="own_parquet",
        cases={
            "tfstream-convert": "converted into shards",
            "pyarrow-write": "write_dataset, a folder per group where groups are columns",
            "pyarrow-read": "every column, nothing is written: the limit of a conversion",
            "examples-write": "plain Python: one tf.train.Example a row, without groups",
            "tfstream-packed": "numbers without nulls as one tensor, blocks + windows",
            "tfstream-dict": "every column, blocks + windows",
            "pyarrow-batches": "every column as Arrow, nothing is shuffled: a limit",
            "examples-read": "tf.data on those Examples, buffer shuffle",
        },
        caption="The file or folder of --parquet. Four conversions, then four readings by whole "
        "epochs. Examples have no more rows than the textbook's, without nulls, lists and the "
        "like. 0 rows: there is no column for this case. Checked: rows, the sum of mixed values of "
        "a column of numbers without nulls, if there is one, and the row ids of tfstream.",
    ),
}
