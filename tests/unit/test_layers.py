"""The floors of the house, held by the imports of every module."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tfstream

HOME = Path(tfstream.__file__).parent
MODULES = sorted(HOME.rglob("*.py"))
GROUND = {
    *("arrays", "cursor", "entries", "errors", "fingerprint", "format", "order", "share", "skips"),
    *("remote", "remote_path", "spec", "storage"),
}
ROOMS = {"conversion", "pipeline", "lineage"}
ROOF = {"arguments", "cells", "cli", "demo", "display", "evidence", "questions", "screen"}
MAX_LINES = 400


def room_of(name: str) -> str:
    """The part of the package that a dotted name lies in; the package's own name for its top."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "tfstream"


def module_name(path: Path) -> str:
    """The dotted name of a module."""
    parts = path.relative_to(HOME.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST) -> Iterator[str]:
    """The dotted name of all that a module imports, inside functions and for type checkers too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


def violations(name: str, source: str) -> list[str]:
    """What a module may not import but does."""
    room = room_of(name)
    allowed = {
        **dict.fromkeys(GROUND, GROUND),
        **{other: GROUND | {other} for other in ROOMS},
        **dict.fromkeys(ROOF, GROUND | ROOMS | ROOF | set(tfstream.__all__)),
        "tfstream": ROOMS | {"cursor"},
    }[room]
    if name == "tfstream.lineage.callback":
        allowed = allowed | {"pipeline"}
    found = []
    for imported in imports(ast.parse(source)):
        top = imported.split(".")[0]
        if top == "":
            found.append(f"{imported}: relative")
        if top == "tfstream" and imported != "tfstream" and room_of(imported) not in allowed:
            found.append(imported)
        if top == "tfstream" and imported == "tfstream" and room not in ROOF:
            found.append(imported)
        if top in {"tensorflow", "keras", "tensorflow_io"} and not (
            room in {"pipeline", "demo"}
            or name in {"tfstream.lineage.callback", "tfstream.lineage.board"}
        ):
            found.append(imported)
        if top in {"dask", "distributed"} and room != "conversion":
            found.append(imported)
    return found


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_stands_on_the_floors_below_it_alone(path: Path) -> None:
    """No room reaches into another, TensorFlow and Dask stay where they belong."""
    assert violations(module_name(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("tfstream.format.block", "import tensorflow as tf"),
        ("tfstream.conversion.convert", "def f():\n    from keras import Model"),
        ("tfstream.pipeline.stream", "import dask.array"),
        ("tfstream.pipeline.stream", "from tfstream.conversion import convert"),
        ("tfstream.pipeline.stream", "from tfstream import lineage"),
        ("tfstream.lineage.run", "from tfstream.pipeline.stream import Stream"),
        ("tfstream.format.subset", "from tfstream.pipeline import shards"),
        ("tfstream.order", "from tfstream import cli"),
        ("tfstream.order", "from . import errors"),
        ("tfstream.lineage.run", "import importlib\nimportlib.import_module('tensorflow')"),
    ],
)
def test_a_breach_is_seen(name: str, source: str) -> None:
    """The test above can fail."""
    assert violations(name, source)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_has_one_idea(path: Path) -> None:
    """Not above 400 lines, with a docstring, and no print outside the command line."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= MAX_LINES
    assert ast.get_docstring(tree)
    prints = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == "print"]
    assert not prints or module_name(path) in {"tfstream.cli", "tfstream.screen"}


def test_a_public_name_is_no_module_s_name() -> None:
    """Or the one would hide the other, depending on what was imported first."""
    assert not {room_of(module_name(path)) for path in MODULES} & set(tfstream.__all__)


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("tfstream", "tensorflow keras dask distributed"),
        ("tfstream.cli", "tensorflow keras dask distributed"),
        ("tfstream.demo", "tensorflow keras dask distributed"),
        ("tfstream.lineage.run", "tensorflow keras dask distributed"),
        ("tfstream.conversion.convert", "tensorflow keras"),
    ],
)
def test_importing_loads_nothing_heavy(module: str, heavy: str) -> None:
    """So that `tfstream --help` is quick and a Dask worker stays small."""
    code = f"import sys, {module}\nprint(*sorted(set('{heavy}'.split()) & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout.strip(), found.stderr) == (0, "", "")
