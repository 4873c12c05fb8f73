"""The output folder: whether a conversion may write there, and where its unfinished files lie.

- `out/.tmp/lock` is held by the conversion that writes here, and has its host and pid.
- `out/.tmp/sources/` has the types that were found in text, `out/.tmp/partitions/` (or
  `temp/tfstream-partitions-…/`) those of a DataFrame.
- `out/.tmp/DIGEST/` has the files of one purpose, whose hash is DIGEST: `purpose.json`, the
  `receipts/` of finished tasks, `runs/` (or `temp/tfstream-DIGEST/`) with the run files, `draft/`
  with shards and provenance until all of them are written, and at last `manifest.json`, which only
  waits for the disk.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tfstream import remote, storage
from tfstream.conversion.options import ConvertOptions
from tfstream.conversion.purpose import read_purpose
from tfstream.conversion.sources import Sources
from tfstream.conversion.survey import Survey
from tfstream.errors import DataError, ResumeError, StorageError, UsageError
from tfstream.format import damage, index_files
from tfstream.format.document import FORMAT, Parent
from tfstream.format.index_files import generation_folder
from tfstream.format.manifest import MANIFEST, UNFINISHED
from tfstream.storage import Place

SOURCES, PARTITIONS, DELIVERY = "sources", "partitions", "delivery"
"""Folders for what belongs to no purpose: what is known of the sources before there is one, and
what is known of the way to a URL."""

_FINAL = (UsageError, DataError)
"""Errors that lie in the call or in the data, which the next call must change."""
_PURPOSE = "purpose.json"
_MOVED = ("shards", "provenance", "quarantine")
"""Folders of the draft that move into the output."""
PARTS = (*_MOVED, "index")
"""Folders of a generation."""
_DRAFT = ".*.draft"
"""Names of what `storage.publishing` had not finished."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Folders of one conversion."""

    out: Path
    """The output."""
    purpose: Mapping[str, Any]
    """What the conversion was asked to do, as JSON; finished work is reused if it is equal."""

    @property
    def generation(self) -> int:
        """The generation that it makes; 0 is a new data set."""
        return len(self.purpose["parents"])

    @property
    def target(self) -> Path:
        """Where shards, provenance and index belong."""
        return generation_folder(self.out, self.generation)

    @property
    def folder(self) -> Path:
        """Its own folder; no other purpose has it, so a stray task of another does no harm."""
        canonical = json.dumps(self.purpose, sort_keys=True).encode()
        return self.out / UNFINISHED / hashlib.sha256(canonical).hexdigest()[:16]

    @property
    def draft(self) -> Path:
        """Shards and provenance, until all of them are written."""
        return self.folder / "draft"

    @property
    def receipts(self) -> Path:
        """Results of finished tasks."""
        return self.folder / "receipts"

    @property
    def runs(self) -> Path:
        """The run files."""
        temp = self.purpose["options"]["temp"]
        return self.folder / "runs" if temp is None else Path(temp) / f"tfstream-{self.folder.name}"

    @property
    def is_published(self) -> bool:
        """Whether the manifest is there: the conversion only has to clear up."""
        return (self.out / MANIFEST).exists() and _generation(self.out) >= self.generation

    @property
    def is_ready(self) -> bool:
        """Whether all is written but the manifest, which waits for the disk."""
        return self._ready.exists()

    @property
    def _ready(self) -> Path:
        return self.folder / MANIFEST

    def check_space(self, size_bytes: int) -> None:
        """Nothing, if the disks have room for the rest of the data set and of its run files.

        Args:
            size_bytes: of all rows.

        Raises:
            StorageError: if not.
        """
        needs: dict[int, tuple[Path, int]] = {}
        for folder, written in ((self.out, self.draft), (self.runs, self.runs)):
            device = folder.stat().st_dev
            needed = max(0, size_bytes - _size_bytes(written))
            first, before = needs.get(device, (folder, 0))
            needs[device] = (first, before + needed)
        for folder, needed in needs.values():
            free = shutil.disk_usage(folder).free
            if free < needed:
                raise StorageError(
                    f"the disk of {folder} has {free / 1e9:.1f} GB free, but the conversion needs "
                    f"about {needed / 1e9:.1f} GB there; make room, or give another output or temp="
                )

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Make the folders, or take up what an equal conversion left; they go at the end.

        The output must be locked.

        After an error the finished work stays for the next call, unless the error lies in the call
        or in the data, which the next one must change, or nothing was finished.

        Raises:
            ResumeError: if a source has changed since a conversion was stopped.
            StorageError: if the folders cannot be made.
        """
        try:
            self._prepare()
            yield
        except ResumeError:
            raise
        except BaseException as error:
            if isinstance(error, _FINAL) or not any(self.receipts.glob("*/*.json")):
                self._clear()
            raise
        self._clear()

    def move_in(self) -> None:
        """Put shards and provenance where they belong.

        Raises:
            StorageError: if they cannot be moved.
        """
        try:
            for draft in self.draft.rglob(_DRAFT):
                draft.unlink()
            self.target.mkdir(parents=True, exist_ok=True)
            for part in _MOVED:
                # There is no quarantine where every row could be read.
                if (self.draft / part).exists():
                    (self.draft / part).rename(self.target / part)
        except OSError as error:
            raise StorageError(
                f"cannot move {error.filename} into {self.target}: {error.strerror}"
            ) from error

    def publish(self, document: bytes) -> None:
        """Publish a manifest, when all that it tells of is in its place.

        Raises:
            StorageError: if it cannot be written.
        """
        storage.publish(self._ready, document)
        self.finish()

    def finish(self) -> None:
        """Publish the manifest that is ready."""
        # They go before the disk is waited for, which then need not write them.
        shutil.rmtree(self.runs, ignore_errors=True)
        for part in PARTS:
            if (self.target / part).exists():
                storage.flush(self.target / part)
        storage.publish(self.out / MANIFEST, storage.read(self._ready))

    def _prepare(self) -> None:
        """Take up what this purpose left, or begin anew; what another one left goes."""
        for path in _purposes(self.out):
            self._refuse_changes(read_purpose(path))
        if not (self.folder / _PURPOSE).exists():
            self._clear()
        try:
            self._make()
        except OSError as error:
            raise StorageError(
                f"cannot make the folder {error.filename}: {error.strerror}"
            ) from error
        storage.publish(self.folder / _PURPOSE, json.dumps(self.purpose).encode())

    def _make(self) -> None:
        """Make the folders, and move back what was moved in before a manifest followed."""
        for folder in (self.receipts, self.draft, self.runs):
            folder.mkdir(parents=True, exist_ok=True)
        if self.is_ready:
            return
        for part in _MOVED:
            if (self.target / part).exists():
                shutil.rmtree(self.draft / part, ignore_errors=True)
                (self.target / part).rename(self.draft / part)
        for index in self.target.glob(index_files.EVERY):
            shutil.rmtree(index)
        for draft in self.target.glob(_DRAFT):
            draft.unlink()

    def _refuse_changes(self, before: Mapping[str, Any]) -> None:
        """Nothing, unless the same sources had another size or time of change before."""
        sources = self.purpose["sources"]
        unfinished = self.out / UNFINISHED if self.generation else self.out
        if sources.keys() != before["sources"].keys():
            return
        for path, state in sources.items():
            if state != before["sources"][path]:
                raise ResumeError(
                    f"{path} has changed since the conversion into {self.out} was stopped "
                    f"({_told(path, before['sources'][path])} then, {_told(path, state)} now); "
                    f"remove {unfinished} to begin anew"
                )

    def _clear(self) -> None:
        """Remove all that is unfinished, whatever its purpose."""
        clear_ended(self.out)
        shutil.rmtree(self.runs, ignore_errors=True)
        if not self.is_published:
            for part in ("",) if self.generation else PARTS:
                shutil.rmtree(self.target / part, ignore_errors=True)


def purpose_of(  # noqa: PLR0913, PLR0917 - all that counts
    out: Path,
    sources: Sources,
    survey: Survey,
    group_by: tuple[str, ...],
    options: ConvertOptions,
    parents: Sequence[Parent],
) -> dict[str, Any]:
    """All that the files in a workspace depend on.

    Partitions are among it: run files are of another partition size's rows. So is the boot of the
    machine: a file that was not flushed may have its size but not its bytes after a crash of it.
    """
    temp = options.temp and str(Path(options.temp).absolute())
    return {
        "format": FORMAT,
        "version": version("tfstream"),
        "boot": _BOOT.read_text(encoding="ascii").strip() if _BOOT.exists() else "",
        "out": str(out),
        "parents": [parent.digest for parent in parents],
        "sources": {
            f"{s} {s.sha256}" if s.sha256 else str(s.path): [s.size_bytes, s.mtime_ns]
            for s in sources.files
        },
        "rows": survey.rows,
        "schema": [[field.name, str(field.type)] for field in survey.schema],
        "group_by": group_by,
        "options": options.kept | {"partition_bytes": options.partition_bytes, "temp": temp},
    }


def survey_digest(sources: Sources, options: ConvertOptions) -> str:
    """A name for all that what is found out of the sources depends on."""
    known = [
        version("tfstream"),
        {str(s.path): [s.size_bytes, s.mtime_ns, s.sha256] for s in sources.files},
        options.kept | {"partition_bytes": options.partition_bytes},
    ]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def check_out(out: Path) -> None:
    """Nothing, if a conversion may write into the folder, or look whether it can go on there.

    Raises:
        ResumeError: if it holds a data set or something else.
        StorageError: if that cannot be seen.
    """
    try:
        if out.exists() and not out.is_dir():
            raise ResumeError(f"{out} is a file; choose a folder that does not exist or is empty")
        there = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    except OSError as error:
        raise StorageError(f"cannot look into {out}: {error.strerror}") from error
    if MANIFEST in there and UNFINISHED not in there:
        raise ResumeError(held(out))
    ours = {UNFINISHED, *PARTS, MANIFEST}
    other = [name for name in there if name not in ours and not fnmatch(name, _DRAFT)]
    if there and (other or UNFINISHED not in there):
        raise ResumeError(
            f"{out} holds something else ({(other or there)[0]}); "
            "choose a folder that does not exist or is empty"
        )


def is_ended(out: Path) -> bool:
    """Whether what is unfinished there is only to be removed: its manifest has been published."""
    if not (out / MANIFEST).exists():
        return False
    published = _generation(out)
    purposes = (read_purpose(path) for path in _purposes(out))
    return all(len(purpose["parents"]) <= published for purpose in purposes)


def is_finished(out: Path) -> bool:
    """Whether nothing is there that a conversion could go on with but what it delivers."""
    return not any(path.is_dir() and path.name != DELIVERY for path in (out / UNFINISHED).iterdir())


def clear_ended(out: Path) -> None:
    """Remove what a conversion left that was killed between its manifest and its end."""
    for folder in _folders(out):
        _remove(out, folder)
    for draft in out.glob(_DRAFT):
        draft.unlink(missing_ok=True)


@contextmanager
def unfinished_sources(out: Path) -> Iterator[Path]:
    """A folder for what is found out of the sources before their rows are read for good.

    It goes at the end, but stays after an error that another call may not meet.
    """
    folder = out / UNFINISHED / SOURCES
    try:
        yield folder
    except BaseException as error:
        if isinstance(error, _FINAL) or not any(folder.glob("*/*/*.json")):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def held(out: Place) -> str:
    """What to say of a folder that has a data set."""
    return f"{out} already holds a data set; choose another folder, or remove it first"


def _told(path: str, state: list[int]) -> str:
    """A source's size and time of change, for people; of an object no time is known."""
    size_bytes, mtime_ns = state
    if remote.is_url(path):
        return f"{size_bytes:,} bytes with the tag {mtime_ns:x}"
    when = datetime.fromtimestamp(mtime_ns / 1e9, timezone.utc).isoformat(" ", "milliseconds")
    return f"{size_bytes:,} bytes of {when}"


def _folders(out: Path) -> list[Path]:
    """The folders of purposes."""
    folder = out / UNFINISHED
    found = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return [path for path in found if path.name not in {SOURCES, PARTITIONS, DELIVERY}]


def _purposes(out: Path) -> list[Path]:
    return list((out / UNFINISHED).glob(f"*/{_PURPOSE}"))


def _generation(out: Path) -> int:
    """The generation of the manifest that is there."""
    with damage.told(str(out / MANIFEST)):
        return len(json.loads(storage.read(out / MANIFEST))["parents"])


def _remove(out: Path, folder: Path) -> None:
    """Remove a purpose, which goes after its files."""
    with suppress(StorageError, KeyError, TypeError, ValueError):
        old = Workspace(out=out, purpose=json.loads(storage.read(folder / _PURPOSE)))
        shutil.rmtree(old.runs, ignore_errors=True)
    for name in ("runs", "draft", "receipts", ""):
        shutil.rmtree(folder / name, ignore_errors=True)


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
