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
    """Write the code of each entry of the dictionaries of a run file beside it.

    Returns:
        The file.

    Raises:
        StorageError: if it cannot be written.
    """
    path = codes_path(run)
    with opened(run) as batch:
        codes = {}
        for name, values in vocabularies.items():
            place = column_place(name, schema)
            dictionary = batch.column(f"text/{place}").dictionary
            found = pc.index_in(dictionary, value_set=values).to_numpy(zero_copy_only=False)
            codes[place] = (found + FIRST_CODE).astype(np.int32)
    with storage.publishing(path, durable=False) as file:
        np.savez(file, **codes)
    return path


def codes_path(run: Path) -> Path:
    """Where `write_codes` writes."""
    return run.with_suffix(".npz")


def codes_of(values: pa.Array, codes: np.ndarray) -> np.ndarray:
    """The codes of dictionary-encoded strings, int32.

    Args:
        values: the strings.
        codes: the code of each entry of their dictionary.
    """
    with_null = np.append(codes, np.int32(NULL_CODE))
    places = values.indices.fill_null(len(codes)).to_numpy(zero_copy_only=False)
    return np.asarray(with_null[places])
