"""What an unfinished conversion was asked to do, as it lies in the output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfstream import storage
from tfstream.errors import ResumeError
from tfstream.format import strict_json


def read_purpose(path: Path) -> dict[str, Any]:
    """A purpose, as far as it is looked at.

    Raises:
        ResumeError: if it is none.
    """
    try:
        found: dict[str, Any] = strict_json.parsed(storage.read(path))
        states = found["sources"].values()
        right = isinstance(found["parents"], list) and all(
            [type(number) for number in state] == [int, int]
            and all(-(1 << 63) <= number < 1 << 63 for number in state)
            for state in states
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        right = False
    if not right:
        raise ResumeError(
            f"{path} is not what a conversion wrote; remove {path.parent.parent} to begin anew"
        )
    return found
