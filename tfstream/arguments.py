"""What the texts of the command line's arguments mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from tfstream.conversion.options import ConvertOptions, OnBadRows
from tfstream.errors import UsageError


def options(
    columns: Sequence[str] | None,
    dtypes: Sequence[str] | None,
    default: Sequence[str] | None,
    on_bad_rows: str,
) -> ConvertOptions:
    """The options of `convert`.

    Args:
        columns: NAME or NAME=SOURCE_NAME each.
        dtypes: NAME=TYPE each.
        default: NAME=VALUE each.
        on_bad_rows: as the options have it.

    Raises:
        UsageError: if one has another form.
    """
    return ConvertOptions(
        columns=None if columns is None else dict(_origin(text) for text in columns),
        dtypes=_pairs("--dtypes", dtypes),
        default=_pairs("--default", default),
        on_bad_rows=cast("OnBadRows", on_bad_rows),
    )


def keys(texts: Sequence[str]) -> list[str]:
    """The expressions of `--group-by`, which may come one an option or with commas between them."""
    found = []
    for text in texts:
        depth, start = 0, 0
        for place, character in enumerate(text):
            depth += (character == "(") - (character == ")")
            if character == "," and depth == 0:
                found.append(text[start:place].strip())
                start = place + 1
        found.append(text[start:].strip())
    return found


def steps(text: str) -> int | range:
    """The step, or the steps A to B-1, that `N` or `A:B` means.

    Raises:
        UsageError: if it has another form.
    """
    numbers = text.split(":")
    if len(numbers) > len("AB") or not all(number.isdecimal() for number in numbers):
        raise UsageError(f"--step {text}: expected a step such as 12, or 10:20 for 10 to 19")
    return int(text) if len(numbers) == 1 else range(*map(int, numbers))


def _origin(text: str) -> tuple[str, str]:
    name, _, origin = text.partition("=")
    return name, origin or name


def _pairs(option: str, texts: Sequence[str] | None) -> dict[str, str] | None:
    for text in texts or ():
        if "=" not in text:
            raise UsageError(f"{option} {text}: expected NAME and a value with = between them")
    return None if texts is None else dict(_pair(text) for text in texts)


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value
