"""A data set that is to lie behind a URL: written here, delivered there, its manifest last.

A claim, `.tmp/writer.json` in the output, keeps other conversions out, of other hosts too: it is
written only if it is absent, which S3, Google and Azure decide themselves, and it must still be the
same before the manifest is put. A store that takes no such condition leaves an instant between the
two looks. A claim that a dead conversion left is taken up by the same call on the same machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tfstream import remote, storage
from tfstream.conversion.lock import locked
from tfstream.conversion.workspace import DELIVERY, PARTS, check_out, held, is_finished
from tfstream.errors import ResumeError
from tfstream.format.index_files import generation_folder
from tfstream.format.manifest import MANIFEST, UNFINISHED, open_catalog
from tfstream.remote_path import RemotePath
from tfstream.storage import Place

_UPLOADS = 8
"""How many files are on their way at once."""


@contextmanager
def writing(out: Place, temp: str | None, *, appends: bool) -> Iterator[tuple[Path, bool]]:
    """A local folder to write a data set into, locked, that is delivered when all went well.

    Args:
        out: where the data set belongs; a local place is the folder itself.
        temp: a folder for what is to be delivered; by default one in the user's cache.
        appends: whether there must be a data set, or must be none.

    Yields:
        The folder, and whether a conversion that has not come to its end was there before.

    Raises:
        UsageError: if there is no data set to append to.
        ResumeError: if another conversion writes there, or something else lies there.
        StorageError: if the store does not answer; what was made here stays for the next call.
    """
    folder = _folder_for(out, temp)
    # Before anything is made there: what cannot be written into is refused.
    if appends:
        open_catalog(out if isinstance(out, RemotePath) else folder)
    else:
        check_out(folder)
    try:
        with locked(folder) as was_there:
            if isinstance(out, RemotePath):
                with _Delivery(out=out, folder=folder).claimed(appends=appends):
                    yield folder, was_there
                return
            if not appends:
                # Again: the conversion that had the lock may have come to its end meanwhile.
                check_out(folder)
            yield folder, was_there
    finally:
        if isinstance(out, RemotePath):
            with suppress(OSError):
                folder.rmdir()


def _folder_for(out: Place, temp: str | None) -> Path:
    if not isinstance(out, RemotePath):
        return out.absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = Path(cache) / "tfstream" if temp is None else Path(temp)
    return home.absolute() / f"tfstream-out-{hashlib.sha256(str(out).encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Delivery:
    """The way of a data set from its local folder to its place."""

    out: RemotePath
    folder: Path
    """Locked."""

    @contextmanager
    def claimed(self, *, appends: bool) -> Iterator[None]:
        """Keep others out, and deliver what was made in the block."""
        try:
            self._claim(appends=appends)
            yield
            self._deliver()
        except BaseException:
            if not self._is_owed:
                self._release()
            raise
        self._release()

    @property
    def _home(self) -> Path:
        return self.folder / UNFINISHED / DELIVERY

    @property
    def _claim_url(self) -> str:
        return f"{self.out.url}/{UNFINISHED}/writer.json"

    @property
    def _manifest(self) -> bytes | None:
        """The manifest that is there."""
        url = remote.join(self.out.url, MANIFEST)
        return remote.read(url) if remote.exists(url) else None

    @property
    def _made(self) -> bytes | None:
        """The manifest that was made here, or that is appended to."""
        path = self.folder / MANIFEST
        return storage.read(path) if path.exists() else None

    @property
    def _base(self) -> bytes | None:
        """The manifest that is appended to."""
        path = self._home / "base.json"
        return storage.read(path) if path.exists() else None

    @property
    def _token(self) -> Path:
        """What our claim says."""
        return self._home / "writer.json"

    @property
    def _is_owed(self) -> bool:
        """Whether something lies here that another call can go on with."""
        return not is_finished(self.folder) or self._made != self._base

    def _claim(self, *, appends: bool) -> None:
        there = self._manifest
        if not self._token.exists():
            # It is ours before it is there: a kill in between leaves no claim that nobody knows.
            who = {"host": socket.gethostname(), "pid": os.getpid(), "token": uuid.uuid4().hex}
            storage.publish(self._token, json.dumps(who).encode())
        claim = storage.read(self._token)
        if not appends and there is not None and there != self._made:
            raise ResumeError(held(self.out))
        is_new = there is None and self._made is None
        if not appends and is_new and not remote.exists(self._claim_url):
            self._refuse_others()
        try:
            remote.put(self._claim_url, claim, if_absent=True)
        except FileExistsError:
            self._refuse_claim(claim)
        if appends:
            self._mirror(there)

    def _refuse_others(self) -> None:
        other = next(iter(remote.below(self.out.url)), None)
        if other is not None:
            raise ResumeError(
                f"{self.out} holds something else ({other}); choose a place where nothing is"
            )

    def _refuse_claim(self, claim: bytes) -> None:
        """Nothing, if the claim that is there is ours."""
        found = remote.read(self._claim_url)
        if found == claim:
            return
        try:
            who = json.loads(found)
            owner = f"host {who['host']}, pid {who['pid']}"
        except (ValueError, KeyError, TypeError):
            owner = "unknown"
        raise ResumeError(
            f"another conversion writes into {self.out} ({owner}); wait for it, or, if it is dead, "
            f"repeat its call on its machine or remove {self.out}/{UNFINISHED}/writer.json"
        )

    def _mirror(self, there: bytes | None) -> None:
        """Copy the manifest and the index that are appended to, unless they were before."""
        if there is None:
            raise ResumeError(f"the data set in {self.out} went while it was opened")
        if self._made is not None and there in {self._base, self._made}:
            return
        self._clear()
        index = open_catalog(self.out).manifest.index_path(self.out, "blocks").parent
        for name in storage.below(index):
            path = self.folder / storage.relative(index, self.out) / name
            storage.publish(path, storage.read(index / name))
        storage.publish(self._home / "base.json", there)
        storage.publish(self.folder / MANIFEST, there)

    def _deliver(self) -> None:
        """Put all files of the new generations, and then the manifest."""
        made, base = self._made, self._base
        if made is None or made == self._manifest:
            return
        catalog = open_catalog(self.folder)
        first = 0 if base is None else len(json.loads(base)["parents"]) + 1
        homes = [
            storage.relative(generation_folder(self.folder, number), self.folder)
            for number in range(first, catalog.manifest.generation + 1)
        ]
        names = [name for name in storage.below(self.folder) if _belongs(name, homes)]
        self._put(names, catalog.digest)
        if remote.read(self._claim_url) != storage.read(self._token):
            raise ResumeError(f"another conversion took over {self.out}; wait for it")
        for name in set(remote.below(self.out.url)) - set(names):
            # What a conversion left that was given up.
            if _belongs(name, homes):
                remote.delete(remote.join(self.out.url, name))
        if self._manifest != base:
            raise ResumeError(f"{self.out} was changed by another conversion; repeat the call")
        try:
            # No store replaces an object on condition of its content through fsspec.
            remote.put(remote.join(self.out.url, MANIFEST), made, if_absent=base is None)
        except FileExistsError:
            raise ResumeError(held(self.out)) from None

    def _put(self, names: list[str], digest: str) -> None:
        """Put files, but for those that an earlier call of the same result has put."""
        notes, lock = self._home / f"{digest}.txt", threading.Lock()
        noted = set(notes.read_text(encoding="utf-8").split("\n")) if notes.exists() else set()
        there = remote.below(self.out.url) if noted else {}

        def put(name: str) -> None:
            path = self.folder / name
            if name in noted and there.get(name) == path.stat().st_size:
                return
            remote.put_file(remote.join(self.out.url, name), path)
            with lock, notes.open("a", encoding="utf-8") as file:
                # A line that a kill has torn is no name.
                file.write(f"\n{name}\n")

        with ThreadPoolExecutor(_UPLOADS) as pool:
            futures = [pool.submit(put, name) for name in names]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _release(self) -> None:
        """Give up the claim and what lies here."""
        if self._token.exists():
            claim = storage.read(self._token)
            if remote.exists(self._claim_url) and remote.read(self._claim_url) == claim:
                remote.delete(self._claim_url)
        self._clear()
        shutil.rmtree(self._home, ignore_errors=True)

    def _clear(self) -> None:
        """Remove what was made or copied, but for what is unfinished."""
        for path in self.folder.iterdir():
            if path.name == UNFINISHED:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _belongs(name: str, homes: list[str]) -> bool:
    """Whether a file is one of these generations', of which "." is the first."""
    parts = name.split("/")
    is_first = len(parts) > 1 and parts[0] in PARTS
    return (is_first and "." in homes) or "/".join(parts[:2]) in homes
