"""The README's commands and code, as a stranger would copy them."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfstream
from tfstream import cli, demo

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")
EVERY = 20


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo would have left its source; every twentieth flight of it."""
    place = tmp_path_factory.mktemp("readme")
    source, _, _ = demo.prepare(place / "tfstream-demo", demo.flights_archive())
    with source.open(encoding="utf-8") as file:
        lines = [next(file), *itertools.islice(file, 0, None, EVERY)]
    source.write_text("".join(lines), encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def names(flights: Path) -> dict[str, Any]:
    """What the README's Python blocks define, all of them run in turn in one folder."""
    defined: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(flights)
        for found in re.finditer(r"```python\n(.*?)```", TEXT, re.DOTALL):
            # So many empty lines before it that a traceback points at the README's own line.
            code = "\n" * TEXT.count("\n", 0, found.start(1)) + found[1]
            exec(compile(code, str(README), "exec"), defined)  # noqa: S102 - it is our own README
        defined["shards"].take([0])
    return defined


def command(name: str) -> str:
    """The one line that stands below a marker."""
    (line,) = re.findall(rf"<!-- {name} command -->\n```bash\n([^\n]+)\n```", TEXT)
    return str(line)


def test_the_two_commands_are_a_line_each() -> None:
    """`.ci/run` takes them from here."""
    assert command("demo") == (
        "python3 -m venv .venv && .venv/bin/pip install -q '.[io,demo]' && .venv/bin/tfstream demo"
    )
    assert command("test") == (
        "python3 -m venv .venv && .venv/bin/pip install -q -e '.[io,demo,test]' "
        "&& .venv/bin/python -m pytest -q -n 2"
    )


def test_the_readme_names_the_demo_s_features() -> None:
    """The list in the text is the list in the code."""
    assert f"before departure: `{', '.join(demo.FEATURES)}`" in TEXT


def test_every_command_of_the_readme_exists() -> None:
    """And every command that exists is in the README."""
    shown = set(re.findall(r"^(?:    tfstream|.*bin/tfstream) ([a-z]+)\b", TEXT, re.MULTILINE))
    callbacks = (command.callback for command in cli.app.registered_commands)
    assert shown == {callback.__name__ for callback in callbacks if callback}


def test_the_library_use_runs_and_its_run_is_proven(names: dict[str, Any], flights: Path) -> None:
    """Two epochs, each step of them logged."""
    assert names["run"].steps.num_rows == 2 * names["stream"].steps_per_epoch
    assert (flights / "runs" / "a").is_dir()


def test_the_resumable_training_runs_and_its_run_is_proven(
    names: dict[str, Any], flights: Path
) -> None:
    """Each step logged once, and a checkpoint at the end."""
    assert len(names["history"].history["auc"]) == 2
    assert (flights / "runs" / "b" / "checkpoint" / "latest.checkpoint").is_file()
    run = tfstream.open_run(flights / "runs" / "b")
    assert run.verify() == []
    assert run.steps.num_rows == 2 * names["stream"].steps_per_epoch


def test_plain_tensorflow_reads_the_rows_that_take_reads(
    names: dict[str, Any], monkeypatch: pytest.MonkeyPatch, flights: Path
) -> None:
    """The ten lines need nothing of tfstream, and are right."""
    (code,) = (
        code for code in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "TFRecord" in code
    )
    assert "tfstream" not in code
    assert (
        len([line for line in code.splitlines() if line and not re.match("import|from", line)])
        <= 10
    )
    monkeypatch.chdir(flights)
    first, rows = int(names["first_row"]), int(names["rows"])
    table = tfstream.open("flights").take(np.arange(first, first + rows), names["columns"])
    for place, name in enumerate(names["columns"]):
        values = table[name].cast("int64").fill_null(0).to_numpy()
        np.testing.assert_array_equal(values, names["values"].numpy()[:, place])
