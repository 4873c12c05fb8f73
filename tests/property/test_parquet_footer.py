"""Footers of Parquet files: the numbers that pyarrow tells, without asking it for them."""

from __future__ import annotations

import contextlib
import io
import itertools
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults import mutators
from tfstream.conversion import parquet_footer, parquet_source
from tfstream.conversion.reading import Source, Wish

VALUES = {
    "i": [1, None, 3],
    "t": ["a", "b" * 200, None],
    "l": [[1, 2], [], None],
    "s": [{"x": 1.5, "y": ["u"]}, None, {"x": None, "y": []}],
    "b": [True, None, False],
}


def written(columns: list[str], rows: int, **options: object) -> bytes:
    """A file of these columns, under names of their own."""
    table = pa.table(
        {
            f"{i}{kind}": pa.array(list(itertools.islice(itertools.cycle(VALUES[kind]), rows)))
            for i, kind in enumerate(columns)
        }
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=20),
    st.integers(0, 50),
    st.integers(1, 60),
    st.booleans(),
    st.sampled_from(["none", "snappy", "zstd"]),
    st.booleans(),
)
def test_chunks_are_those_of_pyarrow(
    columns: list[str], rows: int, size: int, dictionary: bool, compression: str, index: bool
) -> None:
    """Whatever the writer adds to them: statistics, dictionaries, indexes of pages."""
    data = written(
        columns,
        rows,
        row_group_size=size,
        use_dictionary=dictionary,
        compression=compression,
        write_page_index=index,
        write_statistics=not index or dictionary,
    )
    about = pq.read_metadata(io.BytesIO(data))
    groups = [about.row_group(i) for i in range(about.num_row_groups)]
    assert [
        [(c.total_uncompressed_size, c.dictionary_page_offset or c.data_page_offset) for c in group]
        for group in ([g.column(i) for i in range(g.num_columns)] for g in groups)
    ] == list(parquet_footer.row_groups(data))


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 2**63))
def test_a_changed_footer_has_chunks_or_is_refused(seed: int) -> None:
    """In time, and whatever its bytes are."""
    data = written(["i", "t", "l"], 9, row_group_size=4)
    length = int.from_bytes(data[-8:-4], "little")
    footer = mutators.changed_bytes(data[-8 - length : -8], random.Random(seed))
    changed = footer + len(footer).to_bytes(4, "little") + data[-4:]
    with contextlib.suppress(pa.ArrowInvalid):
        for group in parquet_footer.row_groups(changed):
            assert all(chunk.size_bytes >= 0 and chunk.byte >= 0 for chunk in group)


@pytest.mark.parametrize("columns", [5, 2000])
def test_the_tail_has_the_whole_footer(tmp_path: Path, columns: int) -> None:
    """Shorter than what is read at once, or longer."""
    data = written(["i"] * columns, 3)
    path = tmp_path / "a.parquet"
    path.write_bytes(data)
    tail = parquet_footer.tail(path)
    assert data.endswith(tail)
    assert list(parquet_footer.row_groups(tail)) == list(parquet_footer.row_groups(data))


def test_a_file_is_cut_by_all_of_its_footer(tmp_path: Path) -> None:
    """Where it is cut: of a small file the bytes of texts are told by its first row group."""
    texts = ["a"] * 100 + [f"{i:0100}" for i in range(100)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"i": np.arange(200), "t": texts}), path, row_group_size=100)
    source = Source(ordinal=0, path=path, name="a.parquet", size_bytes=path.stat().st_size)
    for partition_bytes, pieces, least in ((1 << 20, [2], 3_600), (6_000, [1, 1], 10_000)):
        wish = Wish(partition_bytes=partition_bytes, columns=None, types={}, lenient=False)
        found = parquet_source.find(source, wish)
        assert [len(stretch.piece_rows) for stretch in found.stretches] == pieces
        assert least < found.size_bytes < 20_000
