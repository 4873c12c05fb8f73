"""How a conversion is cut, what it keeps, and where it keeps what it needs on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pyarrow as pa

from tfstream.errors import UsageError

OnBadRows = Literal["raise", "quarantine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertOptions:
    """Options of `convert`. The last two do not change the bytes of the data set, the others do.

    Raises:
        UsageError: if a number is below 1, or `on_bad_rows` is none of its words.
    """

    block_rows: int = 512
    """Rows of a block at most; fewer where that many rows would take more than 1 MiB."""
    shard_bytes: int = 64 << 20
    """Bytes of a shard at most, as far as the mean width of a row tells."""
    columns: Sequence[str] | Mapping[str, str] | None = None
    """Columns to keep, in this order; a mapping from new names to those in the sources renames."""
    dtypes: Mapping[str, str | pa.DataType] | None = None
    """Types to cast columns to. A value that does not fit is an error; a float may be rounded."""
    default: Mapping[str, Any] | None = None
    """Values in place of nulls, and of columns that some of the files do not have."""
    on_bad_rows: OnBadRows = "raise"
    """"quarantine" keeps rows that cannot be read, with the reason, in `quarantine/`."""
    partition_bytes: int = 64 << 20
    """Bytes of the source, uncompressed, that one task reads at once."""
    temp: str | None = None
    """Folder for about one uncompressed copy of the data; by default inside the output, or, where
    that is a URL, in the user's cache. Then the data set lies here too until it is delivered."""

    def __post_init__(self) -> None:  # noqa: D105 - the class says what is checked
        for name in ("block_rows", "shard_bytes", "partition_bytes"):
            value = getattr(self, name)
            if value < 1:
                raise UsageError(f"{name} must be at least 1, found {value}")
        if self.on_bad_rows not in get_args(OnBadRows):
            raise UsageError(
                f"on_bad_rows must be one of {', '.join(get_args(OnBadRows))}, "
                f"found {self.on_bad_rows!r}"
            )
        if isinstance(self.columns, str):
            raise UsageError(f"columns must be a list or a mapping, found {self.columns!r}")
        for name, value in (self.default or {}).items():
            _plain(name, value)

    @property
    def origins(self) -> Mapping[str, str] | None:
        """Name in the sources by name in the data set; None if all columns keep theirs."""
        if self.columns is None or isinstance(self.columns, Mapping):
            return self.columns
        return {name: name for name in self.columns}

    @property
    def kept(self) -> dict[str, Any]:
        """Those that the bytes of the data set depend on, as plain values, which mean the same."""
        kept: dict[str, Any] = {"block_rows": self.block_rows, "shard_bytes": self.shard_bytes}
        if self.origins is not None:
            kept["columns"] = dict(self.origins)
        if self.dtypes:
            kept["dtypes"] = {name: str(type_) for name, type_ in self.dtypes.items()}
        if self.default:
            kept["default"] = {name: _plain(name, value) for name, value in self.default.items()}
        if self.on_bad_rows != "raise":
            kept["on_bad_rows"] = self.on_bad_rows
        return kept


def _plain(name: str, value: Any) -> Any:  # noqa: ANN401 - whatever a column can hold
    """The value as one of JSON: a text says a value of any type."""
    if isinstance(value, (bool, int, float, str)):
        return value
    try:
        text = pa.scalar(value).cast(pa.string()).as_py()
    except (pa.ArrowException, TypeError) as error:
        raise UsageError(f"default[{name!r}] is {value!r}, which no text says: {error}") from error
    if text is None:
        raise UsageError(f"default[{name!r}] is null; give the value that takes a null's place")
    return text
