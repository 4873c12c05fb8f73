"""Statistics may only rule out what is not there."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tfstream
from tfstream.format import expressions, pruning, reader
from tfstream.format.manifest import Catalog

ROWS = 1_200


def table() -> pa.Table:
    """Sorted and clustered columns of many types, with nulls and NaN."""
    rng = np.random.default_rng(4)
    place = np.arange(ROWS)
    words = np.array([f"w{i:03}" for i in range(40)])
    floats = place / 10
    floats[rng.random(ROWS) < 0.05] = np.nan
    return pa.table(
        {
            "g": place // 300,
            "n": pa.array(place // 7, mask=rng.random(ROWS) < 0.1),
            "big": place + 2**53,
            "f": pa.array(floats, pa.float64(), mask=rng.random(ROWS) < 0.1),
            "h": pa.array((place / 8).astype(np.float32)),
            "s": pa.array(words[place // 40], mask=rng.random(ROWS) < 0.1),
            "b": pa.array(place > 600, mask=rng.random(ROWS) < 0.1),
            "ts": pa.array(place * 86_400_000_000, pa.timestamp("us")),
            "empty": pa.array([None] * ROWS, pa.int64()),
            # Bytes have no codes; those of the first half are too long to be a bound.
            "raw": [
                b"w%03d" % (i // 40) + b"x" * (300 if i < ROWS // 2 else 0) for i in range(ROWS)
            ],
        }
    )


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """The table in blocks of 20 rows and shards of about 100."""
    folder: Path = tmp_path_factory.mktemp("pruning")
    pq.write_table(table(), folder / "source.parquet")
    options = tfstream.ConvertOptions(block_rows=20, shard_bytes=8_000)
    shards = tfstream.convert(
        folder / "source.parquet", folder / "out", group_by=["g"], options=options
    )
    return shards.subset.catalog


def literal(column: str) -> st.SearchStrategy[str]:
    """Literals near the column's values, as text."""
    if column in ("s", "raw"):
        return st.integers(0, 45).map(lambda i: f"'w{i:03}'")
    if column == "ts":
        return st.integers(0, 1_300).map(lambda d: f"'{np.datetime64(0, 'D') + d}'")
    if column == "b":
        return st.sampled_from(["true", "false"])
    if column == "big":
        return st.integers(-3, ROWS + 3).map(lambda i: str(i + 2**53))
    return st.one_of(st.integers(-3, 180).map(str), st.floats(-1, 160).map(lambda x: f"{x:.3f}"))


@st.composite
def leaves(draw: st.DrawFn) -> str:
    """One comparison, in or is null."""
    column = draw(st.sampled_from(["n", "big", "f", "h", "s", "b", "ts", "empty", "raw"]))
    kind = draw(st.sampled_from(["compare", "in", "null"]))
    if kind == "null":
        return f"{column} is null"
    if kind == "in":
        return f"{column} in ({', '.join(draw(st.lists(literal(column), min_size=1, max_size=3)))})"
    if column == "b":
        return f"{column} {draw(st.sampled_from(['=', '<>']))} {draw(literal(column))}"
    operator = draw(st.sampled_from(["=", "<>", "<", "<=", ">", ">="]))
    return f"{column} {operator} {draw(literal(column))}"


conditions = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        inner.map("not ({})".format),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            lambda parts: f"({parts[0]}) {parts[1]} ({parts[2]})"
        ),
    ),
    max_leaves=4,
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=conditions)
def test_no_block_with_a_row_that_fulfils_the_condition_is_ruled_out(
    catalog: Catalog, text: str
) -> None:
    """Whatever the condition, each row for which Arrow says true is in a possible block."""
    tree = expressions.parse(text)
    possible = pruning.possible_blocks(catalog, expressions.conjuncts(tree))
    rows = reader.take(catalog, np.arange(catalog.rows))
    truth = expressions.evaluate(tree, rows).fill_null(fill_value=False)
    block = np.searchsorted(
        catalog.block_first, np.flatnonzero(truth.to_numpy(zero_copy_only=False)), side="right"
    )
    assert possible[block - 1].all()


@pytest.mark.parametrize(
    "text",
    [
        "n = 3",
        "f < 0.5",
        "s = 'w001'",
        "s in ('w001', 'w002')",
        "ts < '1970-01-20'",
        "big = 9007199254740999",
    ],
)
def test_a_condition_on_clustered_values_leaves_few_blocks(catalog: Catalog, text: str) -> None:
    """Most blocks are ruled out where the values lie together."""
    possible = pruning.possible_blocks(catalog, [expressions.parse(text)])
    assert 0 < possible.sum() <= len(possible) // 4


def test_values_that_are_not_there_leave_no_block(catalog: Catalog) -> None:
    """Beyond all bounds, or in no vocabulary, nothing is read at all."""
    for text in ("n > 100000", "s = 'zebra'", "empty = 1", "h is null"):
        assert not pruning.possible_blocks(catalog, [expressions.parse(text)]).any(), text
