"""The files of a run while they are written: in its folder, or here on their way to a URL.

Object stores cannot append. So a run that belongs behind a URL is written into a temporary folder,
and what has changed there is put whole: every half minute, where it is asked for, and at the end.
A kill loses what was logged since. A log is put only where there is none at first, so that of two
attempts that began at once one is refused, where the store has conditional writes.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from pathlib import Path

from tfstream import remote, storage
from tfstream.errors import ResumeError, StorageError
from tfstream.lineage import description
from tfstream.lineage.description import Description
from tfstream.remote_path import RemotePath
from tfstream.storage import Place

_PUT_S = 30.0
"""Seconds after which what has changed is put."""

_log = logging.getLogger(__name__)


class Spool:
    """Where a run is written, and how it comes to its place."""

    def __init__(self, place: Place) -> None:
        """Nothing is written before `open`."""
        self.place = place
        self._folder = None if isinstance(place, RemotePath) else place
        self._put: dict[str, tuple[int, int] | None] = {}
        self._next_s = 0.0

    @property
    def folder(self) -> Path:
        """The local folder, which is open."""
        assert self._folder is not None  # noqa: S101 - for the type checker
        return self._folder

    def open(self, wanted: Description) -> None:
        """Make the place a run's, or see that it is this run's.

        Raises:
            ResumeError: if it holds something else, or a run on other streams.
            StorageError: if it cannot be read or written.
        """
        if isinstance(self.place, RemotePath) and self._folder is None:
            there = list(remote.below(self.place.url))
            if there and description.NAME not in there:
                raise ResumeError(
                    f"{self.place} holds something else than a run ({there[0]}); give a new one"
                )
            self._folder = Path(tempfile.mkdtemp(prefix="tfstream-run-"))
            for name in there:
                if "/" not in name:
                    storage.publish(self._folder / name, remote.read(f"{self.place.url}/{name}"))
                    self._put[name] = storage.state(self._folder / name)
        description.claim(self.folder, wanted, self.place)

    def put(self, *, now: bool) -> None:
        """Put what has changed, if it is time to or is asked for now.

        A store that does not answer does not stop a training: a warning says so, and the next time
        puts what is missing.

        Raises:
            ResumeError: if another attempt has begun at the same time.
        """
        if not isinstance(self.place, RemotePath) or not (now or time.monotonic() >= self._next_s):
            return
        try:
            self._put_changed(self.place.url)
        except StorageError as error:
            _log.warning("the log of the run is not where it belongs yet: %s", error)
        self._next_s = time.monotonic() + _PUT_S

    def close(self) -> None:
        """Put all, and remove the temporary folder; `open` makes another one.

        Raises:
            StorageError: if the store does not answer, with the folder, which then stays.
        """
        if not isinstance(self.place, RemotePath) or self._folder is None:
            return
        try:
            self._put_changed(self.place.url)
        except StorageError as error:
            raise StorageError(
                f"{error}; the run lies in {self._folder}, copy it to {self.place} from there"
            ) from error
        shutil.rmtree(self._folder)
        self._folder, self._put = None, {}

    def _put_changed(self, url: str) -> None:
        # A log may name a Parquet file, which therefore comes first.
        files = (path for path in self.folder.rglob("*") if path.is_file())
        for path in sorted(files, key=lambda path: (path.suffix == ".log", path)):
            name, state = path.relative_to(self.folder).as_posix(), storage.state(path)
            if self._put.get(name) == state:
                continue
            is_new = name not in self._put and path.suffix == ".log"
            try:
                remote.put(f"{url}/{name}", storage.read(path), if_absent=is_new)
            except FileExistsError:
                raise ResumeError(
                    f"another attempt of the run {self.place} has begun at the same time; "
                    "give another place"
                ) from None
            self._put[name] = state
