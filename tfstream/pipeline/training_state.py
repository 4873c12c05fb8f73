"""What a training has come to, as one file of TFRecord frames that is there whole or not at all.

The first frame is JSON: the format, the cursor, and of each variable its part, path, dtype and
shape. The values follow, a frame each: little-endian, row-major.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfstream import storage
from tfstream.cursor import Cursor
from tfstream.errors import CorruptionError, DataError
from tfstream.format import framing, strict_json
from tfstream.format.document import FORMAT


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One variable of a model, an optimizer or a metric."""

    path: str
    """What Keras calls it, for messages."""
    value: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """Variables by part, and the step that comes next."""

    cursor: Cursor
    parts: Mapping[str, Sequence[Variable]]

    def write(self, path: Path) -> None:
        """Take the place of what was there, once everything is on the disk.

        Raises:
            StorageError: if it cannot be written; then what was there stays.
        """
        variables = [(part, item) for part, items in self.parts.items() for item in items]
        head = {
            "format": FORMAT,
            "cursor": json.loads(self.cursor.to_json()),
            "parts": list(self.parts),
            "variables": [
                {
                    "part": part,
                    "path": item.path,
                    "dtype": item.value.dtype.name,
                    "shape": item.value.shape,
                }
                for part, item in variables
            ],
        }
        with storage.publishing(path) as file:
            file.write(framing.frame(json.dumps(head).encode()))
            for _, item in variables:
                order = item.value.dtype.newbyteorder("<")
                file.write(framing.frame(item.value.astype(order, copy=False).tobytes()))

    @classmethod
    def read(cls, path: Path) -> TrainingState:
        """A state as `write` wrote it.

        Raises:
            CorruptionError: if its bytes are not those that were written.
            DataError: if it is none of this format.
            StorageError: if it cannot be read.
        """
        try:
            head, *values = framing.frames(storage.read(path))
        except ValueError as error:
            raise CorruptionError(
                f"the checkpoint {path} is not what was written: {error}; "
                "restore it, or remove it to begin anew"
            ) from error
        try:
            found: Any = strict_json.parsed(head)
            if found["format"] != FORMAT:
                raise ValueError(f"its format is {found['format']!r}")
            parts: dict[str, list[Variable]] = {str(part): [] for part in found["parts"]}
            for about, value in zip(found["variables"], values, strict=True):
                dtype = np.dtype(about["dtype"])
                array = np.frombuffer(value, dtype.newbyteorder("<")).reshape(about["shape"])
                parts[about["part"]].append(
                    Variable(path=str(about["path"]), value=array.astype(dtype, copy=False))
                )
            cursor = Cursor.from_json(json.dumps(found["cursor"]))
        except (ValueError, KeyError, TypeError, RecursionError, DataError) as error:
            raise DataError(
                f"{path} is no checkpoint of format {FORMAT}: {error}; "
                "read it with the tfstream that wrote it"
            ) from error
        return cls(cursor=cursor, parts=parts)
