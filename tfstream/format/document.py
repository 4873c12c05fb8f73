"""The manifest as JSON: its format, its fields, and what each may hold."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from tfstream.errors import DataError

FORMAT = 0
"""Number of the format of data sets, runs and checkpoints that is written, and the newest that is
known; 0 carries no promise. After a change: `python -m tests.golden.formats`."""

MINIMUM_READER = FORMAT
"""The oldest format whose readers understand what is written now."""

OLDEST = min(FORMAT, 1)
"""The oldest format that is read."""

_HASH = re.compile(r"[0-9a-f]{64}")


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
