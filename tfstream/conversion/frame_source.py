"""A `dask.dataframe.DataFrame`: its partitions are computed once, into Arrow files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dask
import pyarrow as pa
import pyarrow.compute as pc

from tfstream.conversion.reading import Source
from tfstream.conversion.sources import KINDS, Sources
from tfstream.errors import DataError, StorageError

_BATCH_ROWS = 1 << 16


Compute = Callable[[str, Sequence[Any]], list[Any]]
"""The values of Delayed tasks, as `Scheduler.compute` gives them."""


def discover(frame: Any, folder: Path, compute: Compute) -> Sources:  # noqa: ANN401 - Dask is untyped
    """The partitions of a DataFrame, computed into files of a folder.

    A partition is a source of its own, "partition-00012"; its hash is one of its values. The index
    is left out.

    Raises:
        DataError: if a partition has values that Arrow has no type for.
        StorageError: if a file cannot be written.
    """
    parts = frame.to_delayed()
    paths = [folder / f"{name(i)}.arrow" for i in range(len(parts))]
    tasks = [dask.delayed(write)(path, part) for path, part in zip(paths, parts, strict=True)]
    hashes = compute("compute partitions", tasks)
    files = tuple(
        Source(
            ordinal=i,
            path=path,
            name=path.stem,
            size_bytes=path.stat().st_size,
            sha256=sha256,
        )
        for i, (path, sha256) in enumerate(zip(paths, hashes, strict=True))
    )
    kind = next(kind for kind in KINDS if ".arrow" in kind.suffixes)
    return Sources(root=None, kind=kind, files=files)


def name(number: int) -> str:
    """What a partition is called."""
    return f"partition-{number:05d}"


def write(path: Path, values: Any) -> str:  # noqa: ANN401 - pandas is untyped
    """Write a partition, a DataFrame of pandas, into an Arrow file.

    Returns:
        `value_digest` of it.
    """
    try:
        table = pa.Table.from_pandas(values, preserve_index=False).replace_schema_metadata()
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f"{path.stem} of the DataFrame has values that are no Arrow column: {error}; "
            "give the column one type"
        ) from error
    try:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=_BATCH_ROWS)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    return value_digest(table)


def value_digest(table: pa.Table) -> str:
    """SHA-256, in hex, over the names, types and values of a table, however they lie in memory."""
    digest = hashlib.sha256()
    for field in table.schema:
        digest.update(f"{field.name}\n{field.type}\n{table.num_rows}\n".encode())
        for start in range(0, table.num_rows, _BATCH_ROWS):
            values = table[field.name].slice(start, _BATCH_ROWS)
            digest.update(_bytes(values.combine_chunks()))
    return digest.hexdigest()


def _bytes(values: pa.Array) -> bytes:
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    valid = bytes(pc.is_valid(values).to_numpy(zero_copy_only=False).tobytes())
    if pa.types.is_temporal(values.type) and not pa.types.is_interval(values.type):
        values = values.cast(f"int{values.type.bit_width}")
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        numbers = pc.fill_null(values, 0).to_numpy(zero_copy_only=False)
        return valid + bytes(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes())
    return b"%b%b" % (valid, repr(values.to_pylist()).encode())
