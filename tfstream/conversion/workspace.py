"""The output folder: whether a conversion may write there, and where its unfinished files lie."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tfstream.errors import ResumeError, StorageError
from tfstream.format.manifest import MANIFEST

UNFINISHED = ".tmp"
"""Folder inside the output whose being there says that a conversion has not come to its end."""

_PARTS = ("shards", "provenance", "index")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Folders of one conversion."""

    out: Path
    """The output."""
    draft: Path
    """Its shards and provenance, until all of them are written."""
    runs: Path
    """The run files."""

    def move_in(self) -> None:
        """Put shards and provenance where they belong; the run files go.

        They go before the disk is waited for, which then need not write them.

        Raises:
            StorageError: if they cannot be moved.
        """
        shutil.rmtree(self.runs, ignore_errors=True)
        try:
            for part in self.draft.iterdir():
                part.rename(self.out / part.name)
        except OSError as error:
            raise StorageError(
                f"cannot move {error.filename} into {self.out}: {error.strerror}"
            ) from error


def check_out(out: Path) -> None:
    """Nothing, if a conversion may write into the folder.

    Raises:
        ResumeError: if it holds a data set or something else.
    """
    if out.is_dir() and (out / MANIFEST).exists():
        raise ResumeError(
            f"{out} already holds a data set; choose another folder, or remove it first"
        )
    if out.exists() and not out.is_dir():
        raise ResumeError(f"{out} is a file; choose a folder that does not exist or is empty")
    held = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if held and not (UNFINISHED in held and set(held) <= {UNFINISHED, *_PARTS}):
        other = next((name for name in held if name not in {UNFINISHED, *_PARTS}), held[0])
        raise ResumeError(
            f"{out} holds something else ({other}); choose a folder that does not exist or is empty"
        )


def check_space(out: Path, temp: str | None, size_bytes: int) -> None:
    """Nothing, if the disks have room for the data set and a copy of it in run files.

    Raises:
        StorageError: if not.
    """
    needs: dict[int, tuple[Path, int]] = {}
    for folder in (out, out if temp is None else Path(temp)):
        there = next(
            path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()
        )
        device = there.stat().st_dev
        needs[device] = (there, needs.get(device, (there, 0))[1] + size_bytes)
    for there, needed in needs.values():
        free = shutil.disk_usage(there).free
        if free < needed:
            raise StorageError(
                f"the disk of {there} has {free / 1e9:.1f} GB free, but the conversion needs about "
                f"{needed / 1e9:.1f} GB there; make room, or give another output or temp="
            )


@contextmanager
def workspace(out: Path, temp: str | None) -> Iterator[Workspace]:
    """Folders to work in, which go at the end; after an error, all that was written goes too.

    Raises:
        ResumeError: if the output holds something else.
        StorageError: if the folders cannot be made.
    """
    check_out(out)
    was_there = out.exists()
    with contextlib.ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            _clear(out)
            draft = out / UNFINISHED / "draft"
            draft.mkdir(parents=True)
            runs = out / UNFINISHED / "runs"
            if temp is not None:
                Path(temp).mkdir(parents=True, exist_ok=True)
                runs = Path(tempfile.mkdtemp(prefix="tfstream-", dir=temp))
                stack.callback(shutil.rmtree, runs, ignore_errors=True)
            runs.mkdir(exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"cannot make the folder {error.filename}: {error.strerror}"
            ) from error
        try:
            yield Workspace(out=out, draft=draft, runs=runs)
        except BaseException:
            _clear(out)
            if not was_there:
                with contextlib.suppress(OSError):
                    out.rmdir()
            raise
        shutil.rmtree(out / UNFINISHED, ignore_errors=True)


def _clear(out: Path) -> None:
    """Remove what an unfinished conversion left; its mark last."""
    (out / MANIFEST).unlink(missing_ok=True)
    for part in (*_PARTS, UNFINISHED):
        shutil.rmtree(out / part, ignore_errors=True)
