"""JSON of a stranger."""

from __future__ import annotations

import json
from typing import Any


def parsed(data: bytes | str) -> Any:  # noqa: ANN401 - JSON
    """What JSON says.

    Raises:
        ValueError: if it is none, too deep, or has half a surrogate pair, which no file can hold.
    """
    try:
        value = json.loads(data)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is too deep") from error
    return value
