"""A place behind a URL that is read as a `pathlib.Path` is."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tfstream import remote
from tfstream.errors import StorageError, UsageError

_BUFFER_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, order=True, repr=False)
class RemotePath:
    """A place behind a URL: an object, or what lies below.

    Of the methods of `Path`, those that reading needs, under the same names. All but the names
    raise StorageError if the store does not answer. As a text it has no credentials.
    """

    url: str
    """With credentials, if it was given so."""

    def __str__(self) -> str:
        """Without credentials."""
        return remote.shown(self.url)

    def __repr__(self) -> str:
        """Without credentials."""
        return f"RemotePath({str(self)!r})"

    def __truediv__(self, name: str | PurePosixPath) -> RemotePath:
        """What lies below, or with `..` above."""
        found = self
        for part in PurePosixPath(name).parts:
            found = found.parent if part == ".." else RemotePath(remote.join(found.url, part))
        return found

    @property
    def name(self) -> str:
        """The last part."""
        return self._parts.name

    @property
    def suffix(self) -> str:
        """The end of the name, from its last dot on."""
        return self._parts.suffix

    @property
    def parent(self) -> RemotePath:
        """The place that this one lies in; a bucket's is itself."""
        if len(self._parts.parts) < 2:  # noqa: PLR2004 - the bucket and a name in it
            return self
        return RemotePath(self.url[: self.url.rindex(self.name)].rstrip("/"))

    def with_suffix(self, suffix: str) -> RemotePath:
        """The place beside it whose name ends so."""
        return self.parent / self._parts.with_suffix(suffix).name

    def as_posix(self) -> str:
        """As a text, without credentials."""
        return str(self)

    def absolute(self) -> RemotePath:
        """Itself."""
        return self

    def resolve(self) -> RemotePath:
        """Itself, as objects are no links."""
        return self

    def relative_to(self, other: RemotePath | Path) -> PurePosixPath:
        """The way from another place, in which it lies, to here.

        Raises:
            ValueError: if it does not lie there.
        """
        if isinstance(other, Path) or remote.scheme(self.url) != remote.scheme(other.url):
            raise ValueError(f"{self} does not lie in {other}")
        return self._parts.relative_to(other._parts)  # noqa: SLF001 - of this class

    def is_file(self) -> bool:
        """Whether there is an object of this name."""
        return remote.exists(self.url)

    def is_dir(self) -> bool:
        """Whether there is an object below."""
        return bool(remote.below(self.url))

    def exists(self) -> bool:
        """Whether there is an object of this name or below."""
        return self.is_file() or self.is_dir()

    def rglob(self, pattern: str) -> Iterator[RemotePath]:
        """All objects below whose names match."""
        for name in remote.below(self.url):
            if PurePosixPath(name).match(pattern):
                yield self / name

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """The objects right below whose names match."""
        return (path for path in self.rglob(pattern) if path.parent == self)

    def read_bytes(self) -> bytes:
        """The whole object."""
        return remote.read(self.url)

    def open(self, mode: str = "rb", buffering: int = -1) -> io.RawIOBase | io.BufferedReader:
        """The object, to read from it by ranges.

        Args:
            mode: "rb" alone.
            buffering: 0 for one request a read, else bytes that a request asks for at least; 8 MiB
                by default.
        """
        if mode != "rb":
            raise UsageError(f"{self} can be read, not opened with the mode {mode!r}")
        raw = _Ranges(self.url)
        if not buffering:
            return raw
        return io.BufferedReader(raw, _BUFFER_BYTES if buffering < 0 else buffering)

    @property
    def _parts(self) -> PurePosixPath:
        path = self.url.split("://", 1)[1]
        if remote.scheme(self.url) in {"http", "https"}:
            path = path.split("?", 1)[0]
        host, slash, rest = path.partition("/")
        return PurePosixPath(host.rpartition("@")[2] + slash + rest)


class _Ranges(io.RawIOBase):
    """An object as a file that can be sought in."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url, self._size, self._place = url, remote.size(url), 0
        self.failure: StorageError | None = None
        """What a read ended in; some readers make another error of it."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        size = max(0, min(len(buffer), self._size - self._place))
        try:
            buffer[:size] = remote.read_range(self._url, self._place, size)
        except StorageError as error:
            self.failure = error
            raise
        self._place += size
        return size
