"""The values of string columns that are stored as codes, over all run files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfstream import storage
from tfstream.conversion.runs import Run, column_place, opened
from tfstream.format.schema import FIRST_CODE, NULL_CODE, VOCABULARY_SIZE


def collect(runs: Sequence[Run], schema: pa.Schema) -> dict[str, pa.Array]:
    """The sorted distinct values of each string column that has few enough to be coded."""
    found = {
        field.name: pa.array([], field.type) for field in schema if pa.types.is_string(field.type)
    }
    for run in runs:
        if not found:
            break
        with opened(run.path) as batch:
            for name in list(found):
                values = batch.column(f"text/{column_place(name, schema)}")
                if pa.types.is_dictionary(values.type):
                    found[name] = pc.unique(pa.concat_arrays([found[name], values.dictionary]))
                if not pa.types.is_dictionary(values.type) or len(found[name]) > VOCABULARY_SIZE:
                    del found[name]
    return {name: values.take(pc.sort_indices(values)) for name, values in found.items()}


def write_codes(run: Path, schema: pa.Schema, vocabularies: Mapping[str, pa.Array]) -> Path:
    """Write the code of each entry of the dictionaries of a run file beside it, one by one.

    Returns:
        The file.

    Raises:
        StorageError: if it cannot be written.
    """
    path = _codes_path(run)
    with opened(run) as batch, storage.publishing(path, durable=False) as file:
        for name, values in vocabularies.items():
            dictionary = batch.column(f"text/{column_place(name, schema)}").dictionary
            found = pc.index_in(dictionary, value_set=values).to_numpy(zero_copy_only=False)
            file.write((found + FIRST_CODE).astype(np.int32).tobytes())
    return path


def read_codes(run: Path, dictionaries: Mapping[str, pa.Array]) -> dict[str, np.ndarray]:
    """The codes of the entries of the dictionaries of a run file, int32.

    Args:
        run: the run file.
        dictionaries: its own, by column, in the order of the vocabularies.

    Raises:
        StorageError: if the file beside it cannot be read.
    """
    if not dictionaries:
        return {}
    codes = np.frombuffer(storage.read(_codes_path(run)), np.int32)
    cuts = np.cumsum([len(dictionary) for dictionary in dictionaries.values()])
    return dict(zip(dictionaries, np.split(codes, cuts[:-1]), strict=True))


def _codes_path(run: Path) -> Path:
    return run.with_suffix(".codes")


def codes_of(values: pa.Array, codes: np.ndarray) -> np.ndarray:
    """The codes of dictionary-encoded strings, int32.

    Args:
        values: the strings.
        codes: the code of each entry of their dictionary.
    """
    places = values.indices
    if places.null_count:
        codes = np.append(codes, np.int32(NULL_CODE))
        places = places.fill_null(len(codes) - 1)
    return np.asarray(codes[places.to_numpy(zero_copy_only=False)])
