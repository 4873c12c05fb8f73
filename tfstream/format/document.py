"""The manifest: what it says, as JSON with a format, and what each field may hold."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from tfstream.errors import DataError
from tfstream.format import index_files
from tfstream.format.schema import Schema
from tfstream.storage import PlaceT

FORMAT = 1
"""Number of the format of data sets, runs and checkpoints that is written, and the newest that is
known. Who changes what is written counts it up and runs `python -m tests.golden.formats`."""

MINIMUM_READER = FORMAT
"""The oldest format whose readers understand what is written now."""

OLDEST = 1
"""The oldest format that is read."""

_HASH = re.compile(r"[0-9a-f]{64}")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """The data set as it was before an append."""

    digest: str
    shards: int
    """How many shards it has; those of the append follow."""
    sources: int
    """How many sources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """Rows whose values were removed from all files."""

    digest: str
    """That of the data set before, which nobody can open any more."""
    date: str
    """When, as ISO 8601 has it, in UTC."""
    generation: int
    """How often it had been appended to."""
    ranges: tuple[tuple[int, int], ...]
    """First row id and the one behind the last of each run of them; ascending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a data set says of itself, besides its tables."""

    format: int = FORMAT
    """Number of the format that it was written in."""
    schema: Schema
    keys: tuple[str, ...]
    """Names of the key columns of the groups."""
    group_by: tuple[str, ...]
    """The expressions that made them."""
    options: Mapping[str, Any]
    """The options of the conversion that its bytes depend on."""
    root: str
    """The folder that the paths of the sources begin at, empty where they are no files; not part
    of the digest."""
    identity: str
    """Hex digest of what the conversion was asked to do; its shards' tokens come from it."""
    parents: tuple[Parent, ...] = ()
    """What the data set was before each append, the oldest first."""
    forgotten: tuple[Forgotten, ...] = ()
    """The rows that were forgotten, the oldest first."""

    @property
    def revision(self) -> int:
        """How often rows of it were forgotten."""
        return len(self.forgotten)

    @property
    def generation(self) -> int:
        """How often it was appended to."""
        return len(self.parents)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Manifest:
        """The manifest of a document that `check` has passed."""
        return cls(
            format=document["format"],
            identity=document["identity"],
            keys=tuple(document["keys"]),
            group_by=tuple(document["group_by"]),
            options=document["options"],
            root=document["root"],
            schema=Schema.from_json(document["schema"]),
            parents=tuple(Parent(**parent) for parent in document["parents"]),
            forgotten=tuple(
                Forgotten(**one | {"ranges": tuple(map(tuple, one["ranges"]))})
                for one in document["forgotten"]
            ),
        )

    def to_json(self, *, digest: str, rows: int, index_sha256: Mapping[str, str]) -> bytes:
        """The document, with what it says of the index."""
        document = {
            "format": FORMAT,
            "minimum_reader": MINIMUM_READER,
            "digest": digest,
            "identity": self.identity,
            "rows": rows,
            "keys": list(self.keys),
            "group_by": list(self.group_by),
            "options": dict(self.options),
            "schema": self.schema.to_json(),
            "root": self.root,
            "parents": [asdict(parent) for parent in self.parents],
            "forgotten": [asdict(one) for one in self.forgotten],
            "index_sha256": dict(index_sha256),
        }
        document["manifest_sha256"] = document_sha256(document)
        return json.dumps(document, indent=2).encode() + b"\n"

    def index_path(self, folder: PlaceT, name: str) -> PlaceT:
        """Where a table of its index lies."""
        return index_files.path_of(folder, self.generation, name, self.revision)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def _is_hashes(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_hash, value.values()))


def _is_schema(value: object) -> bool:
    kinds = {"name": str, "type": str, "nullable": bool, "coded": bool, "null_items": bool}
    return (
        isinstance(value, list)
        and all(
            isinstance(column, dict)
            and column.keys() == kinds.keys()
            and all(type(column[name]) is kind for name, kind in kinds.items())
            for column in value
        )
        and len({column["name"] for column in value}) == len(value)
    )


def _is_parents(value: object) -> bool:
    if not isinstance(value, list):
        return False
    shards = sources = 0
    for parent in value:
        if not isinstance(parent, dict) or parent.keys() != {"digest", "shards", "sources"}:
            return False
        numbers = parent["shards"], parent["sources"]
        if not _is_hash(parent["digest"]) or not all(map(_is_number, numbers)):
            return False
        if numbers[0] < shards or numbers[1] < sources:
            return False
        shards, sources = numbers
    return True


def _is_forgotten(value: object) -> bool:
    kinds: dict[str, Callable[[object], bool]] = {
        "digest": _is_hash,
        "date": lambda date: isinstance(date, str) and _DATE.fullmatch(date) is not None,
        "generation": _is_number,
        "ranges": _is_ranges,
    }
    return isinstance(value, list) and all(
        isinstance(one, dict)
        and one.keys() == kinds.keys()
        and all(holds(one[name]) for name, holds in kinds.items())
        for one in value
    )


def _is_ranges(value: object) -> bool:
    if not isinstance(value, list) or not all(isinstance(pair, list) for pair in value):
        return False
    edges = [edge for pair in value for edge in pair]
    return (
        all(len(pair) == 2 for pair in value)  # noqa: PLR2004 - a pair
        and all(map(_is_number, edges))
        and all(low < high for low, high in pairwise(edges))
    )


_FIELDS: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    "format": ("a number", _is_number),
    "minimum_reader": ("a number", _is_number),
    "digest": ("a SHA-256", _is_hash),
    "identity": ("a SHA-256", _is_hash),
    "rows": ("a number", _is_number),
    "keys": ("a list of strings", _is_texts),
    "group_by": ("a list of strings", _is_texts),
    "options": ("an object", lambda value: isinstance(value, dict)),
    "schema": ("a list of columns, each name once", _is_schema),
    "root": ("a string", lambda value: isinstance(value, str)),
    "parents": ("a list of data sets, the oldest first", _is_parents),
    "forgotten": ("a list of what was forgotten, the oldest first", _is_forgotten),
    "index_sha256": ("an object of SHA-256s", _is_hashes),
    "manifest_sha256": ("a SHA-256", _is_hash),
}
"""What each field holds. Where this changes, so does FORMAT."""


def check(document: Any, where: str) -> None:  # noqa: ANN401 - JSON
    """Refuse what is no manifest that this tfstream reads.

    A manifest of a newer format is read if it says that readers of this one may: what this one does
    not know in it is then passed over. In a manifest of this format or an older one, a field that
    is not known is an error.

    Raises:
        DataError: with the field.
    """
    if not isinstance(document, dict):
        raise DataError(f"expected an object, found {shown(document)}. {where}")
    for name in ("format", "minimum_reader"):
        if not _is_number(document.get(name)):
            raise DataError(
                f"expected a number, found {shown(document.get(name))}. {where}: {name}"
            )
    number, minimum = document["format"], document["minimum_reader"]
    if number < OLDEST or minimum > FORMAT or minimum > number:
        raise DataError(
            f"expected a manifest of format {OLDEST} to {FORMAT}, found format {number} for "
            f"readers of {minimum} on; use the tfstream that wrote it, or a newer one. {where}"
        )
    for name, (expected, holds) in _FIELDS.items():
        if not holds(document.get(name)):
            raise DataError(
                f"expected {expected}, found {shown(document.get(name))}. {where}: {name}"
            )
    unknown = sorted(map(repr, document.keys() - _FIELDS.keys()))
    if unknown and number <= FORMAT:
        raise DataError(f"format {number} has no field {', '.join(unknown)[:200]}. {where}")


def document_sha256(document: Mapping[str, Any]) -> str:
    """SHA-256 in hex of all that a manifest says, but for this hash of itself."""
    told = {name: value for name, value in document.items() if name != "manifest_sha256"}
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def shown(value: object) -> str:
    """A value of a stranger in a message, not longer than a line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"  # noqa: PLR2004 - a line
