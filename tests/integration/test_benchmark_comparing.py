"""Two commits of a repository of our own are compared: by their own tfstream, and nothing is left."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import runner

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(place: Path, *arguments: str) -> str:
    """What git says in a repository."""
    who = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(place), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def compared(tree: Path, base: str, repeats: int = 1) -> subprocess.CompletedProcess[str]:
    """What the command says in a tree."""
    sizes = ("--small", "--rows", "1000", "--repeats", str(repeats), "--jobs", "convert")
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", "compare", base, *sizes, "--folder", tree / "data"],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of this tree, whose first commit works, and whose second does not."""
    place = tmp_path_factory.mktemp("repository")
    for name in ("benchmarks", "tfstream"):
        ignored = shutil.ignore_patterns("__pycache__", "results")
        shutil.copytree(runner.ROOT / name, place / name, ignore=ignored)
    git(place, "init", "--quiet")
    git(place, "add", "benchmarks", "tfstream")
    git(place, "commit", "--quiet", "-m", "works")
    package = place / "tfstream" / "__init__.py"
    works = package.read_text(encoding="utf-8")
    package.write_text(works + '\nraise RuntimeError("this is the base")\n', encoding="utf-8")
    git(place, "commit", "--quiet", "-a", "-m", "does not")
    package.write_text(works, encoding="utf-8")
    return place


def test_ratio_and_spread_are_told(tree: Path) -> None:
    """This tree over the base, from its slowest to its fastest pair."""
    found = compared(tree, "HEAD~1", repeats=2)
    assert found.returncode == 0, found.stdout + found.stderr
    said = re.search(
        r"convert tfstream-convert: ([\d.]+) times the speed of the base "
        r"\(from ([\d.]+) to ([\d.]+) over 2 pairs\)",
        found.stdout,
    )
    assert said, found.stdout
    middle, least, most = map(float, said.groups())
    assert 0 < least <= middle <= most
    assert len(git(tree, "worktree", "list").splitlines()) == 1


@pytest.mark.slow
def test_the_base_is_that_commit(tree: Path) -> None:
    """Its tfstream is run by this tree's benchmarks, and its failure is not this tree's."""
    found = compared(tree, "HEAD")
    assert found.returncode == 1
    assert "base: ended with status 1: RuntimeError: this is the base" in found.stdout
    assert "this: " not in found.stdout
    assert len(git(tree, "worktree", "list").splitlines()) == 1


def test_a_commit_that_is_none(tree: Path) -> None:
    """Is told by its name, and nothing is measured."""
    found = compared(tree, "no-such-commit")
    assert found.returncode == 2
    assert "compare no-such-commit: " in found.stdout
