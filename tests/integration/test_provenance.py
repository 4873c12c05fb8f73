"""Files of provenance: any row is found, and each row group is checked by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import streams
from tfstream.errors import CorruptionError
from tfstream.format import provenance
from tfstream.format.manifest import Catalog, open_catalog

GROUP = 32


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """700 rows, in row groups of 32."""
    monkeypatch.setattr(provenance, "ROW_GROUP_ROWS", GROUP)
    return streams.converted(tmp_path, streams.table()).subset.catalog


def changed(path: Path, *, row: int, anew: bool) -> None:
    """Change the last column of a row; with the digests of before, or with right ones."""
    table, digests = pq.read_table(path), []
    name = table.column_names[-1]
    values = table[name].to_numpy().copy()
    values[row] += 1
    table = table.set_column(table.num_columns - 1, name, pa.array(values))
    kept = pq.read_metadata(path).metadata[b"sha256"]
    with pq.ParquetWriter(path, table.schema.remove_metadata()) as writer:
        for at in range(0, len(table), GROUP):
            writer.write_table(table.slice(at, GROUP).replace_schema_metadata())
            digests.append(provenance._digest_of(table.slice(at, GROUP)))
        writer.add_key_value_metadata({"sha256": "".join(digests) if anew else kept.decode()})


def test_both_directions_are_each_other_s_inverse(catalog: Catalog) -> None:
    """Over all row groups, in any order."""
    ids = np.random.default_rng(3).permutation(catalog.rows)
    source, rows = provenance.rows_of_sources(catalog, ids)
    assert set(source.tolist()) == {0}
    assert provenance.row_ids_of(catalog, 0, rows).tolist() == ids.tolist()


@pytest.mark.parametrize("anew", [False, True])
@pytest.mark.parametrize("by", ["row", "source"])
def test_a_changed_value_is_found(catalog: Catalog, by: str, *, anew: bool) -> None:
    """By its group's digest, or if that was made anew, by the index; other groups are not read."""
    assert isinstance(catalog.folder, Path)
    path = getattr(provenance, f"by_{by}_path")(catalog.folder, 0)
    changed(path, row=GROUP + 1, anew=anew)
    ask = {
        "row": lambda row: provenance.rows_of_sources(catalog, np.array([row])),
        "source": lambda row: provenance.row_ids_of(catalog, 0, np.array([row])),
    }[by]
    check = {"row": provenance.check_by_row, "source": provenance.check_by_source}[by]
    with pytest.raises(CorruptionError, match="is not what was written"):
        ask(GROUP + 1)
    with pytest.raises(CorruptionError, match="is not what was written"):
        check(open_catalog(catalog.folder), 0)
    if anew:
        with pytest.raises(CorruptionError, match="is not what was written"):
            ask(0)
    else:
        ask(0)
