"""An append adds rows at the end: nothing that was written changes, and old runs stay traceable."""

from __future__ import annotations

import shutil
from decimal import Decimal
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import tfstream
from tests.faults.kill_loop import contents
from tfstream.cli import main
from tfstream.conversion.progress import Progress
from tfstream.errors import DataError, ResumeError, TfstreamError, UsageError
from tfstream.format import provenance
from tfstream.format.check import check_dataset
from tfstream.format.manifest import Catalog, open_catalog

PARTS = (300, 200, 50)
WORDS = (["m", "k"], ["a", "k", "z"], ["c", "m"])
OPTIONS = tfstream.ConvertOptions(block_rows=16, shard_bytes=2_000)


def part(number: int, **changes: pa.Array) -> pa.Table:
    """The rows of a generation; `id` numbers them over all."""
    rng = np.random.default_rng(number)
    rows = PARTS[number]
    columns = {
        "id": pa.array(sum(PARTS[:number]) + np.arange(rows)),
        "g": pa.array(rng.integers(number, number + 5, rows)),
        "x": pa.array(rng.normal(size=rows), mask=rng.random(rows) < 0.2),
        "s": pa.array(rng.choice(WORDS[number], rows), mask=rng.random(rows) < 0.1),
        "raw": pa.array([rng.bytes(3) for _ in range(rows)]),
    }
    return pa.table(columns | changes)


def written(folder: Path, number: int, **changes: pa.Array) -> Path:
    """A source file of them."""
    path = folder / f"part-{number}.parquet"
    pq.write_table(part(number, **changes), path, row_group_size=60)
    return path


@pytest.fixture
def first(tmp_path: Path) -> tfstream.Shards:
    """A data set of the first part."""
    source = written(tmp_path, 0)
    return tfstream.convert(source, tmp_path / "out", group_by=["g"], options=OPTIONS)


@pytest.fixture
def grown(first: tfstream.Shards, tmp_path: Path) -> tfstream.Shards:
    """The data set after two appends."""
    options = tfstream.ConvertOptions(partition_bytes=2_000)
    tfstream.append(written(tmp_path, 1), tmp_path / "out", options=options)
    return tfstream.append(written(tmp_path, 2), tmp_path / "out")


def catalog_of(shards: tfstream.Shards) -> Catalog:
    """Its index."""
    return shards.subset.catalog


def test_rows_are_ordered_by_generation_group_source_and_row(grown: tfstream.Shards) -> None:
    """Each row of each part is there once, with its values and its way back."""
    catalog = catalog_of(grown)
    table = grown.take(np.arange(grown.rows))
    source, row = provenance.rows_of_sources(catalog, np.arange(grown.rows))
    parts = pa.concat_tables([part(i) for i in range(3)])
    starts = np.array([0, *np.cumsum(PARTS)])
    assert table.equals(parts.take(pa.array(starts[source] + row)).combine_chunks())
    order = np.lexsort((row, table["g"].to_numpy(), source))
    assert (order == np.arange(sum(PARTS))).all()
    assert catalog.sources["path"].to_pylist() == [f"part-{i}.parquet" for i in range(3)]
    for i, rows in enumerate(PARTS):
        back = provenance.row_ids_of(catalog, i, np.arange(rows))
        assert (source[back] == i).all()
        assert (row[back] == np.arange(rows)).all()
    assert list(check_dataset(catalog, sources=True)) == []


def test_nothing_that_was_written_changes(first: tfstream.Shards, tmp_path: Path) -> None:
    """But for the manifest, which is kept; row ids and codes stay."""
    before = contents(tmp_path / "out")
    rows = first.take(np.arange(first.rows))
    grown = tfstream.append(written(tmp_path, 1), tmp_path / "out")
    after = contents(tmp_path / "out")
    manifest = before.pop("manifest.json")
    assert before.items() <= after.items()
    assert after["generations/1/parent.json"] == manifest
    assert grown.take(np.arange(first.rows)).equals(rows)
    assert catalog_of(grown).vocabularies["s"].to_pylist() == ["k", "m", "a", "z"]


def test_each_generation_opens_by_its_digest(
    first: tfstream.Shards, grown: tfstream.Shards, tmp_path: Path
) -> None:
    """As it was; the digests follow each other in the manifest."""
    parents = [parent.digest for parent in catalog_of(grown).manifest.parents]
    assert parents[0] == first.digest
    assert len({*parents, grown.digest}) == 3
    for digest, rows in zip([*parents, grown.digest], np.cumsum(PARTS), strict=True):
        opened = tfstream.open(tmp_path / "out", digest=digest)
        assert (opened.digest, opened.rows) == (digest, rows)
        assert opened.take(np.arange(rows)).equals(grown.take(np.arange(rows)))
    with pytest.raises(UsageError) as caught:
        tfstream.open(tmp_path / "out", digest="0")
    assert str(caught.value) == (
        f"{tmp_path / 'out'} holds the data set {grown.digest}, which was never 0; "
        "give the folder of the latter"
    )


def test_groups_list_each_generation_and_statistics_merge(grown: tfstream.Shards) -> None:
    """A key that was there before has a second entry; conditions and statistics see both."""
    parts = pa.concat_tables([part(i) for i in range(3)])
    entries = [sorted(set(part(i)["g"].to_pylist())) for i in range(3)]
    assert grown.groups["g"].to_pylist() == sum(entries, [])
    assert grown.groups["first_row"].to_pylist() == sorted(grown.groups["first_row"].to_pylist())
    some = grown.where("g = 4")
    expected = parts.filter(pc.equal(parts["g"], 4))
    assert some.rows == expected.num_rows
    assert some.groups["rows"].to_pylist() == [
        pc.sum(pc.equal(part(i)["g"], 4)).as_py() for i in range(3)
    ]
    for subset, table in ((some, expected), (grown, parts)):
        x = subset.statistics["x"]
        assert (x.count, x.nulls) == (table.num_rows, table["x"].null_count)
        assert x.min == pc.min(table["x"]).as_py()
        assert x.mean == pytest.approx(pc.mean(table["x"]).as_py())
        assert x.variance == pytest.approx(pc.variance(table["x"]).as_py())


def test_an_append_s_bytes_depend_on_its_sources_alone(
    grown: tfstream.Shards, tmp_path: Path
) -> None:
    """Not on partitions or the scheduler."""
    out = tmp_path / "other"
    tfstream.convert(tmp_path / "part-0.parquet", out, group_by=["g"], options=OPTIONS)
    tfstream.append(tmp_path / "part-1.parquet", out, scheduler="synchronous")
    options = tfstream.ConvertOptions(partition_bytes=500, temp=str(tmp_path / "temp"))
    again = tfstream.append(tmp_path / "part-2.parquet", out, options=options)
    assert again.digest == grown.digest
    assert contents(out) == contents(tmp_path / "out")


def test_all_generations_are_streamed(grown: tfstream.Shards) -> None:
    """Each row once an epoch, as `row_ids` says."""
    stream = grown.stream(batch_size=16, features=["id", "s"], seed=3)
    seen = list(stream.dataset(epochs=range(1)).as_numpy_iterator())
    ids = np.concatenate([np.reshape(batch["id"], -1) for batch in seen])
    assert sorted(ids.tolist()) == list(range(sum(PARTS)))
    rows = np.concatenate([stream.row_ids(epoch=0, step=i) for i in range(len(seen))])
    assert ids.tolist() == grown.take(rows, ["id"])["id"].to_pylist()


def test_a_run_on_the_parent_stays_traceable(first: tfstream.Shards, tmp_path: Path) -> None:
    """It is opened, traced and verified on the data set that was appended to since."""
    stream = first.stream(batch_size=50, features=["id", "x"], label="g > 1")
    inputs, encoded = stream.keras_inputs()
    model = keras.Model(inputs, keras.layers.Dense(1)(encoded))
    model.compile("sgd", "mse")
    callback = tfstream.LineageCallback(tmp_path / "run", stream)
    model.fit(stream.dataset(), verbose=0, shuffle=False, callbacks=[callback])
    before = tfstream.open_run(tmp_path / "run")
    expected = before.rows(step=2)
    tfstream.append(written(tmp_path, 1), tmp_path / "out")
    run = tfstream.open_run(tmp_path / "run")
    assert run.catalog.digest == first.digest
    assert run.rows(step=2).equals(expected)
    assert run.verify(deep=True) == []


def test_an_append_that_was_stopped_goes_on(first: tfstream.Shards, tmp_path: Path) -> None:
    """A changed source is named; what is advised leaves the data set alone."""
    out, path = tmp_path / "out", written(tmp_path, 1)
    before = contents(out)

    def progress(now: Progress) -> None:
        if now.stage == "write shards":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tfstream.append(path, out, progress=progress)
    assert before.items() <= contents(out).items()
    assert tfstream.open(out).digest == first.digest
    written(tmp_path, 1, x=pa.array(np.zeros(PARTS[1])))
    with pytest.raises(ResumeError, match=f"; remove {out / '.tmp'} to begin anew$"):
        tfstream.append(path, out)
    shutil.rmtree(out / ".tmp")
    grown = tfstream.append(path, out)
    assert grown.take(np.arange(first.rows, grown.rows), ["x"])["x"].to_pylist() == [0.0] * PARTS[1]


def refused(source: Path, out: Path) -> TfstreamError:
    """The error of an append that leaves the data set as it was."""
    before = contents(out)
    with pytest.raises(TfstreamError) as caught:
        tfstream.append(source, out)
    assert contents(out) == before
    assert not (out / ".tmp").exists()
    return caught.value


def test_what_does_not_fit_is_refused(first: tfstream.Shards, tmp_path: Path) -> None:
    """File, column and what to do are named, and the data set stays as it was."""
    out = tmp_path / "out"
    path = tmp_path / "part-1.parquet"
    rows = PARTS[1]
    written(tmp_path, 1, id=pa.array(range(rows), pa.int32()))
    error = refused(path, out)
    assert isinstance(error, DataError)
    assert str(error) == (
        f"the sources differ from {out} in column 'id': it has int64, but {path} has int32; "
        "give them the same columns and types"
    )
    written(tmp_path, 1, more=pa.array(range(rows)))
    assert str(refused(path, out)) == (
        f"the sources differ from {out} in column 'more': it has no such column, but {path} has "
        "int64; give them the same columns and types"
    )
    written(tmp_path, 1, id=pa.array([None, *range(rows - 1)]))
    assert str(refused(path, out)) == (
        f"{path} has nulls in column 'id', which has none in {out}; "
        "fill them, or convert all sources again"
    )
    error = refused(tmp_path / "part-0.parquet", out)
    assert isinstance(error, UsageError)
    assert str(error) == (
        f"{tmp_path / 'part-0.parquet'} is a source of {out} already; name new files alone"
    )


def test_nested_columns_are_appended(tmp_path: Path) -> None:
    """Lists, tensors, decimals and nulls come back; a null in a list needs room for it."""
    types = {
        "g": pa.int64(),
        "l": pa.list_(pa.int32()),
        "t": pa.list_(pa.float32(), 2),
        "d": pa.decimal128(9, 2),
        "n": pa.null(),
    }

    def table(items: list[int | None]) -> pa.Table:
        values = {"g": 1, "l": items, "t": [0.5, 1.5], "d": Decimal("1.25"), "n": None}
        return pa.Table.from_pylist([values, values | {"l": []}], pa.schema(list(types.items())))

    paths = [tmp_path / f"{name}.parquet" for name in "abc"]
    for path, items in zip(paths, ([1], [2, 3], [None]), strict=True):
        pq.write_table(table(items), path)
    tfstream.convert(paths[0], tmp_path / "out", group_by=["g"])
    grown = tfstream.append(paths[1], tmp_path / "out")
    assert grown.take([2, 3]).to_pylist() == table([2, 3]).to_pylist()
    assert str(refused(paths[2], tmp_path / "out")) == (
        f"{paths[2]} has nulls in the lists of column 'l', which has none in {tmp_path / 'out'}; "
        "fill them, or convert all sources again"
    )


def test_a_vocabulary_that_grows_too_large_is_refused(
    first: tfstream.Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A column of codes stays one."""
    monkeypatch.setattr("tfstream.conversion.generations.VOCABULARY_SIZE", 3)
    error = refused(written(tmp_path, 1), tmp_path / "out")
    assert isinstance(error, DataError)
    assert str(error) == (
        f"column 's' of {tmp_path / 'out'} would have more than 3 values, too many for codes; "
        "convert all sources again"
    )


def test_a_source_elsewhere_is_refused(tmp_path: Path) -> None:
    """Its name would have to lead out of the folder that the others are named from."""
    inside = tmp_path / "inside"
    inside.mkdir()
    out = tmp_path / "out"
    tfstream.convert(written(inside, 0), out, group_by=["g"])
    path = written(tmp_path, 1)
    error = refused(path, out)
    assert isinstance(error, UsageError)
    assert str(error) == (
        f"{path} does not lie below {inside}, where the names of the sources of {out} begin; "
        "move it there"
    )


def test_csv_is_read_with_the_types_of_the_data_set(tmp_path: Path) -> None:
    """Where they can hold what the new file has."""
    paths = [tmp_path / f"{name}.csv" for name in "abc"]
    paths[0].write_text("g,x,s\n1,2.5,a\n2,,b\n")
    paths[1].write_text("g,x,s\n1,3,7\n")
    paths[2].write_text("g,x,s\nlate,3,7\n")
    tfstream.convert(paths[0], tmp_path / "out", group_by=["g"])
    grown = tfstream.append(paths[1], tmp_path / "out")
    assert grown.take([2]).to_pylist() == [{"g": 1, "x": 3.0, "s": "7"}]
    assert str(refused(paths[2], tmp_path / "out")) == (
        f"the sources differ from {tmp_path / 'out'} in column 'g': it has int64, but {paths[2]} "
        "has string; give them the same columns and types"
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_what_cannot_be_read_is_left_out_of_an_append_too(tmp_path: Path, suffix: str) -> None:
    """If the data set was made so; rows and quarantined ones are all of them, in each generation."""
    good = {".jsonl": '{"g":GG,"n":NN}', ".csv": "GG,NN"}[suffix]
    out = tmp_path / "out"
    options = tfstream.ConvertOptions(on_bad_rows="quarantine", dtypes={"n": "int16"})
    lost: tuple[set[int], ...] = ({4}, {0, 7}, set())
    for i, bad in enumerate(lost):
        head = ["g,n"] if suffix == ".csv" else []
        lines = [good.replace("GG", str(j % 3)).replace("NN", str(10 * i + j)) for j in range(9)]
        for j in bad:
            lines[j] = good.replace("GG", "1").replace("NN", "99999")
        path = tmp_path / f"x{i}{suffix}"
        path.write_text("\n".join([*head, *lines]) + "\n")
        if i:
            shards = tfstream.append(path, out)
        else:
            shards = tfstream.convert(path, out, group_by=["g"], options=options)
        held = open_catalog(out)
        assert held.sources["rows"].to_pylist() == [9] * (i + 1)
        assert held.sources["quarantined"].to_pylist() == [1, 2, 0][: i + 1]
    assert shards.rows + 3 == 27
    expected = [
        10 * i + j for i, bad in enumerate(({4}, {0, 7}, set())) for j in range(9) if j not in bad
    ]
    assert sorted(shards.take(range(shards.rows))["n"].to_pylist()) == expected
    places = pq.read_table(out / "generations" / "1" / "quarantine" / "00000.parquet")
    assert places["source_row"].to_pylist() == [0, 7]
    assert list(check_dataset(open_catalog(out))) == []


def test_the_command_line_appends(
    first: tfstream.Shards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says how many rows came, and `inspect` names the parent."""
    out = tmp_path / "out"
    assert main(["append", str(written(tmp_path, 1)), str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: 200 rows in ")
    assert main(["inspect", str(out)]) == 0
    assert f"parent    {first.digest}\n" in capsys.readouterr().out
