"""Rows so wide that a block is several records: only those that are asked for are read."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import tfstream
from tfstream.errors import CorruptionError
from tfstream.format import block, check, framing, reader

ROWS, COLUMNS = 500, 300


@pytest.fixture(scope="module")
def table() -> pa.Table:
    """300 floats, every tenth with nulls, 40 large integers, lists, a label and a group."""
    rng = np.random.default_rng(3)
    values = rng.standard_normal((COLUMNS, ROWS), np.float32)
    absent = rng.random((COLUMNS, ROWS)) < 0.1
    floats = {
        f"x{i:03}": pa.array(values[i], mask=absent[i] if i % 10 == 0 else None)
        for i in range(COLUMNS)
    }
    integers = {f"i{i:02}": rng.integers(-(2**60), 2**60, ROWS) for i in range(40)}
    rest = {
        "id": np.arange(ROWS),
        "items": [[float(i)] * (i % 4) for i in range(ROWS)],
        "label": rng.integers(0, 2, ROWS).astype(np.int8),
        "group": rng.integers(0, 3, ROWS).astype(np.int16),
    }
    return pa.table(floats | integers | rest)


@pytest.fixture
def shards(table: pa.Table, tmp_path: Path) -> tfstream.Shards:
    """The table in groups."""
    pq.write_table(table, tmp_path / "wide.parquet")
    options = tfstream.ConvertOptions(block_rows=64)
    return tfstream.convert(
        tmp_path / "wide.parquet", tmp_path / "out", group_by=["group"], options=options
    )


def spoil(shards: tfstream.Shards, *, swap: tuple[int, int]) -> Path:
    """Let two records of the first block change places."""
    catalog = shards.subset.catalog
    path, size = catalog.shard_path(0), int(catalog.block_size[0])
    data = path.read_bytes()
    records = [framing.frame(record) for record in framing.frames(data[:size])]
    one, other = swap
    assert len(records[one]) == len(records[other])
    records[one], records[other] = records[other], records[one]
    path.write_bytes(b"".join(records) + data[size:])
    return path


def test_all_columns_come_back(table: pa.Table, shards: tfstream.Shards) -> None:
    """The rows are the source's, read whole and column by column."""
    catalog = shards.subset.catalog
    assert len(catalog.schema.records) == 5
    ids = np.arange(ROWS)
    source = reader.take(catalog, ids, ["id"])["id"]
    assert sorted(source.to_pylist()) == ids.tolist()
    assert reader.take(catalog, ids).to_pylist() == table.take(source).to_pylist()
    for name in ("x000", "x150", "x299", "i39", "items", "label"):
        found = reader.take(catalog, ids, [name])
        assert found.to_pylist() == table.select([name]).take(source).to_pylist()


@pytest.mark.parametrize("features", [["x001", "x299"], ["x010", "items"], ["i05", "x070", "x290"]])
def test_a_stream_of_few_columns_has_their_values(
    table: pa.Table, shards: tfstream.Shards, features: list[str]
) -> None:
    """Records that are no neighbours, label and features in different ones."""
    stream = shards.stream(batch_size=50, features=features, label="label", seed=1)
    dataset = stream.dataset(epochs=range(1))
    for step, (batch, label) in enumerate(dataset):
        ids = reader.take(shards.subset.catalog, stream.row_ids(0, step), ["id"])["id"]
        rows = table.take(ids)
        assert label.numpy().tolist() == rows["label"].to_pylist()
        for name in features:
            if name == "items":
                assert batch[name].to_list() == rows[name].to_pylist()
            else:
                np.testing.assert_array_equal(batch[name], rows[name].to_numpy())
    assert step == stream.steps_per_epoch - 1


def test_records_in_each_others_place_are_found(shards: tfstream.Shards) -> None:
    """By readers and streams of any column in them, and by those of all."""
    path = spoil(shards, swap=(1, 2))
    catalog = shards.subset.catalog
    homes = block.layout(catalog.schema).record
    inside = [pack.columns[0] for pack in catalog.schema.packs if homes[pack.name] in (1, 2)]
    for name in inside:
        with pytest.raises(CorruptionError, match=str(path)):
            reader.read_block(catalog, 0, [name])
        stream = shards.stream(batch_size=50, features=[name], seed=1)
        with pytest.raises(tf.errors.OpError, match="holds other rows"):
            list(stream.dataset(epochs=range(1)))
    assert 0 in [finding.block for finding in check.check_dataset(catalog)]
    # Others do not read them.
    assert reader.read_block(catalog, 0, ["x001"]).num_rows == catalog.block_rows[0]
