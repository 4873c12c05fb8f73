"""How a conversion is cut, and where it keeps what it needs on the way."""

from __future__ import annotations

from dataclasses import dataclass

from tfstream.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertOptions:
    """Options of `convert`. The first two determine the bytes of the data set, the others do not.

    Raises:
        UsageError: if a number is below 1.
    """

    block_rows: int = 512
    """Rows of a block at most; fewer where that many rows would take more than 1 MiB."""
    shard_bytes: int = 64 << 20
    """Bytes of a shard at most, as far as the mean width of a row tells."""
    partition_bytes: int = 64 << 20
    """Bytes of the source, uncompressed, that one task reads at once."""
    temp: str | None = None
    """Folder for about one uncompressed copy of the data; by default inside the output."""

    def __post_init__(self) -> None:  # noqa: D105 - the class says what is checked
        for name in ("block_rows", "shard_bytes", "partition_bytes"):
            value = getattr(self, name)
            if value < 1:
                raise UsageError(f"{name} must be at least 1, found {value}")
