"""Kill trainings again and again, and see that they come to the same weights, bit for bit.

`python -m tests.faults.resume_loop` goes through all cases in a seeded order, in about half an hour,
or for some `--minutes`; `--short` through one or two of each kind, for the test suite. An attempt is a fork of this process, which has loaded TensorFlow and
let it do nothing, and dies by SIGKILL: before or after a step, or while a checkpoint is written.
Then the same training is started again, until it ends by itself. The laws: its weights, optimizer
and logs are those of an undisturbed `fit` without any callback of ours; the run's log has each step
once among the attempts that survived, and proves it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import tfstream
from tfstream.format import framing
from tfstream.pipeline import training_state

ROWS, BATCH = 74, 8
STEPS = -(-ROWS // BATCH)
"""10, in windows of 3 steps; the last one of two rows."""
EPOCHS = {None: 3, 4: 7, STEPS: 3, 13: 3}
"""Epochs of Keras, by its steps per epoch: nearly three of the stream."""
Kill = Callable[[int], bool]


@dataclass(frozen=True)
class Case:
    """A script, and where it is killed."""

    callback: str = "ours"
    """Who makes checkpoints: ours, or Keras' backup."""
    every: int | None = 3
    """Steps between checkpoints; None: at the end of an epoch of Keras."""
    group: int = 1
    """Steps an execution."""
    asked: int | None = None
    """Steps of an epoch of Keras."""
    lineage: str = "first"
    """Where the lineage callback stands: first, last, or nowhere."""
    skips: tuple[int | range, ...] = ()
    kills: tuple[tuple[str, int], ...] = ()
    """What kills each attempt: "begin" or "end" of the n-th step that it trains, the n-th frame
    that it writes into a checkpoint, or the n-th rename of one."""

    @property
    def is_ours(self) -> bool:
        """Whether the state of Dropout and the metrics are kept."""
        return self.callback == "ours"


class KillAt(keras.callbacks.Callback):
    """Kills at the begin or the end of the n-th group of steps that this attempt trains."""

    def __init__(self, when: str, number: int) -> None:
        super().__init__()
        self._when, self._left = when, number

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Before the group."""
        if self._when == "begin" and not self._left:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """After it, and after the other callbacks."""
        if self._when == "end" and not self._left:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


def kill_in_write(when: str, number: int) -> None:
    """Kill in the middle of a checkpoint, or just before or after it takes its place."""
    count = itertools.count()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and "checkpoint" in str(arguments[1]) and next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    if when == "rename":
        sys.addaudithook(hook)
    whole = framing.frame

    def cut(data: bytes) -> bytes:
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(data)

    if when == "frame":
        training_state.framing = SimpleNamespace(frame=cut, frames=framing.frames)


def write_source(folder: Path) -> None:
    """A small data set of several groups."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 3)).astype(np.float32)
    columns = {f"x{i}": x[:, i] for i in range(3)}
    table = pa.table({"g": rng.integers(0, 5, ROWS), **columns, "y": x.sum(axis=1)})
    pq.write_table(table, folder / "source.parquet")


def stream_of(folder: Path, case: Case) -> tfstream.Stream:
    """Shuffled in windows of three steps."""
    options = tfstream.StreamOptions(
        window_rows=3 * BATCH, stretches=2, skip_steps=case.skips, parallelism=2, packed=True
    )
    return tfstream.open(folder / "shards").stream(
        batch_size=BATCH, features=["x0", "x1", "x2"], label="y", seed=3, options=options
    )


def model_of(case: Case) -> keras.Model:
    """Adam, Dropout with a seed, BatchNormalization; a metric besides the loss."""
    keras.utils.set_random_seed(1)
    layers = [
        keras.layers.Dense(4, activation="relu"),
        keras.layers.BatchNormalization(momentum=0.9),
        # Keras' own backup forgets what Dropout has drawn.
        *([keras.layers.Dropout(0.3, seed=5)] if case.is_ours else []),
        keras.layers.Dense(1),
    ]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile(
        keras.optimizers.Adam(0.01),
        "mse",
        metrics=["mae"],
        steps_per_execution=case.group,
        jit_compile=False,
    )
    return model


def train(folder: Path, place: Path, case: Case, kill: tuple[str, int] | None) -> None:
    """The script: one attempt, in a fork."""
    stream, model = stream_of(folder, case), model_of(case)
    lineage = [tfstream.LineageCallback(place / "run", stream)]
    if case.is_ours:
        store = [tfstream.CheckpointCallback(place / "state", stream, every_steps=case.every)]
        callbacks = {"first": [*lineage, *store], "last": [*store, *lineage], "nowhere": store}[
            case.lineage
        ]
    else:
        frequency = case.every or "epoch"
        lineage = [tfstream.LineageCallback(place / "run", stream, flush_steps=1)]
        backup = keras.callbacks.BackupAndRestore(
            place / "state", frequency, delete_checkpoint=False
        )
        callbacks = [backup, *lineage]
    if kill is not None and kill[0] in {"begin", "end"}:
        callbacks.append(KillAt(*kill))
    elif kill is not None:
        kill_in_write(*kill)
    fit(stream, model, case, callbacks, place)


def fit(stream: Any, model: Any, case: Case, callbacks: list[Any], place: Path) -> None:
    """Train, and write down what came out."""
    history = model.fit(
        stream.dataset(),
        epochs=EPOCHS[case.asked],
        steps_per_epoch=case.asked,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )
    values = [v.numpy() for v in (*model.variables, *model.optimizer.variables)]
    logs = {f"log_{name}": np.array(found) for name, found in history.history.items()}
    np.savez(place / "result.npz", *values, **logs)


def attempt(run: Callable[[], None]) -> int:
    """Run in a fork; its exit code, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        try:
            run()
        except BaseException:  # noqa: BLE001 - the fork must not go on with the parent's work
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Loop:
    """Undisturbed results, and the comparison with them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._expected: dict[Case, dict[str, np.ndarray]] = {}
        self._number = itertools.count()
        self.kills = 0

    def expected(self, case: Case) -> dict[str, np.ndarray]:
        """What a fit without callbacks comes to; with the lineage's alone where steps are left out.

        Keras would ask for what is left out in vain, which moves the optimizer's counter by chance.
        """
        plain = replace(case, every=None, lineage="", kills=())
        if plain not in self._expected:
            place = self._new_place()

            def run() -> None:
                stream = stream_of(self._folder, case)
                callbacks = [tfstream.LineageCallback(place / "run", stream)] if case.skips else []
                fit(stream, model_of(case), case, callbacks, place)

            assert attempt(run) == 0
            self._expected[plain] = dict(np.load(place / "result.npz"))
        return self._expected[plain]

    def complaint(self, case: Case) -> str | None:
        """What goes wrong with a case, if something does."""
        place, killed = self._new_place(), 0
        for kill in (*case.kills, None):
            code = attempt(lambda kill=kill: train(self._folder, place, case, kill))
            if code not in {0, -signal.SIGKILL}:
                return f"exit code {code}"
            killed += code != 0
        self.kills += killed
        if killed != len(case.kills) and not case.skips:
            return f"killed {killed} times"
        found, expected = dict(np.load(place / "result.npz")), self.expected(case)
        for name, value in sorted(expected.items()):  # variables first
            if name.startswith("log_"):
                # Keras' own history begins with the attempt; its backup keeps no metrics either.
                got, wanted = found.get(name, np.zeros(0)), value[-len(found.get(name, [])) :]
                if case.is_ours and len(got) and got.tolist() != wanted.tolist():
                    return f"{name}: {got} instead of {wanted}"
            elif found[name].tobytes() != value.tobytes():
                return f"variable {name}: {found[name]} instead of {value}"
        result = None if case.lineage == "nowhere" else self._lineage_complaint(place, case)
        shutil.rmtree(place)
        return result

    def _lineage_complaint(self, place: Path, case: Case) -> str | None:
        run = tfstream.open_run(place / "run")
        if findings := run.verify(deep=True):
            return f"findings: {findings}"
        table = run.steps.to_pydict()
        survivors = dict(zip(table["step"], table["attempt"], strict=True))
        skipped = {s for item in case.skips for s in (item if isinstance(item, range) else [item])}
        total = max(survivors) + 1
        if sorted(survivors) != sorted(set(range(total)) - skipped):
            return f"steps {sorted(survivors)}"
        attempts = [survivors[step] for step in sorted(survivors)]
        return None if attempts == sorted(attempts) else f"attempts {attempts}"

    def _new_place(self) -> Path:
        place = self._folder / f"place-{next(self._number)}"
        place.mkdir()
        return place


def short_cases() -> Iterator[Case]:
    """At least one of each kind: what the test suite goes through."""
    last = ("end", 3 * STEPS - 1)
    yield Case(kills=(("begin", 0), ("end", 4), ("frame", 12)))
    yield Case(kills=(("end", STEPS - 1), ("rename", 1), ("end", 0)), lineage="last")
    yield Case(every=None, kills=(last,), lineage="nowhere")
    yield Case(group=4, asked=4, kills=(("end", 1), ("end", 2)))
    yield Case(every=2, asked=4, kills=(("end", 7), ("end", 5)), skips=(3, range(8, 14)))
    yield Case(every=2, asked=STEPS, kills=(("end", 6),), lineage="nowhere")
    yield Case(every=4, asked=13, group=4, kills=(("begin", 2), ("end", 2)))
    yield Case(callback="keras", every=None, kills=(("end", 13),))
    yield Case(callback="keras", every=4, asked=4, kills=(("end", 13), ("end", 5)))


def all_cases(rng: random.Random) -> Iterator[Case]:
    """Every combination, killed at its steps and at random."""
    for callback, every, group, asked in itertools.product(
        ("ours", "keras"), (None, 1, 3), (1, 4), EPOCHS
    ):
        # Seven of Keras' shorter epochs have 24 steps, in groups of at most 4 each.
        groups = {(1, 4): 24, (4, 4): 7}.get((group, asked), 3 * -(-STEPS // group))
        firsts = [("begin", 0), ("end", 0), ("end", groups - 1)]
        writes = [("frame", rng.randrange(40)), ("rename", rng.randrange(2))]
        for first in [*firsts, *(writes if callback == "ours" else [])]:
            others = [("end", rng.randrange(max(1, groups // 4))) for _ in range(rng.randrange(3))]
            skips = rng.choice([(), (), (5,), (range(8, 14), 3), (range(10, 20), 21)])
            yield Case(
                callback=callback,
                every=every,
                group=group,
                asked=asked,
                lineage=rng.choice(["first", "last", "nowhere"]) if callback == "ours" else "last",
                skips=skips,
                kills=(first, *others),
            )


def main() -> int:
    """Run the loop; exit code 1 if anything differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.resume_loop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=600.0)
    parser.add_argument("--short", action="store_true", help="what the test suite goes through")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    cases = list(short_cases() if arguments.short else all_cases(rng))
    if not arguments.short:
        rng.shuffle(cases)
    number = wrong = 0
    end = time.monotonic() + 60 * arguments.minutes
    with tempfile.TemporaryDirectory(prefix="resume-loop-") as name:
        folder = Path(name)
        write_source(folder)
        shards, options = folder / "shards", tfstream.ConvertOptions(block_rows=4)
        assert attempt(lambda: convert(folder / "source.parquet", shards, options)) == 0
        loop = Loop(folder)
        for number, case in enumerate(cases, start=1):
            complaint = loop.complaint(case)
            wrong += complaint is not None
            print(f"{number}/{len(cases)} {case}: {complaint or 'equal'}", flush=True)
            if time.monotonic() > end:
                break
    print(f"{number} trainings, {loop.kills} kills, {wrong} differences", flush=True)
    return int(wrong > 0)


def convert(source: Path, shards: Path, options: tfstream.ConvertOptions) -> None:
    """In a fork, since Dask and Arrow start threads."""
    tfstream.convert(source, shards, group_by=["g"], options=options)


if __name__ == "__main__":
    sys.exit(main())
