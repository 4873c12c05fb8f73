"""Sources behind URLs: the data set of the same files on this machine, whatever their kind."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from pyarrow import orc

import tfstream
from tfstream import remote
from tfstream.conversion.sources import discover, refuse_changed
from tfstream.errors import DataError, StorageError, UsageError
from tfstream.evidence import evidence


def _json(table: pa.Table, path: Path) -> None:
    path.write_text(table.to_pandas().to_json(orient="records", lines=True), encoding="utf-8")


WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {
    "parquet": lambda table, path: pq.write_table(table, path, row_group_size=300),
    "csv": pyarrow.csv.write_csv,
    "jsonl": _json,
    "arrow": lambda table, path: pyarrow.feather.write_feather(table, path, chunksize=300),
    "orc": lambda table, path: orc.write_table(table, path, stripe_size=4096),
}


def numbers(first: int) -> pa.Table:
    """Rows with a key, a fraction and a text that needs quotes."""
    number = np.arange(first, first + 1000)
    texts = [f'a "{i % 9}",\nb' for i in number]
    return pa.table({"key": number % 7, "x": number / 8, "text": texts})


@pytest.fixture
def memory() -> str:
    """A URL below which there is nothing."""
    return f"memory://{uuid.uuid4().hex}/in"


def copied(folder: Path, suffix: str, url: str) -> None:
    """Two files here, and the same there."""
    folder.mkdir()
    for i, name in enumerate(("a", "b")):
        path = folder / f"{name}.{suffix}"
        WRITERS[suffix](numbers(1000 * i), path)
        remote.put_file(remote.join(url, path.name), path)


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("store", ["memory", "s3"])
def test_the_data_set_is_that_of_local_files(
    suffix: str, store: str, tmp_path: Path, memory: str, request: pytest.FixtureRequest
) -> None:
    """By digest; rows are compared with their sources, where these lie."""
    url = memory if store == "memory" else f"{request.getfixturevalue('bucket')}/in"
    copied(tmp_path / "in", suffix, url)
    options = tfstream.ConvertOptions(partition_bytes=10_000)
    made = [
        tfstream.convert(source, tmp_path / name, group_by=["key"], options=options)
        for source, name in ((tmp_path / "in", "here"), (f"{url}/*.{suffix}", "there"))
    ]
    assert made[0].digest == made[1].digest
    assert made[1].subset.catalog.manifest.root == url
    found = evidence(made[1].subset.catalog, np.arange(0, 2000, 400))
    assert (found.compared, found.missing) == (5, ())


def test_a_folder_and_its_hidden_files(memory: str) -> None:
    """What begins with a dot or an underscore is none, as on a disk."""
    for name in ("x/b.csv", "a.CSV", "_x/c.csv", ".d.csv", "e.txt"):
        remote.put(remote.join(memory, name), b"x\n1\n")
    assert [source.name for source in discover(memory).files] == ["a.CSV", "x/b.csv"]
    assert [source.name for source in discover(f"{memory}/*/b.csv").files] == ["b.csv"]
    with pytest.raises(UsageError, match=f"^there is no source {memory}/none"):
        discover(f"{memory}/none.csv")


def test_sources_without_a_common_folder_are_refused(memory: str, tmp_path: Path) -> None:
    """A disk and a store have none."""
    remote.put(remote.join(memory, "a.csv"), b"x\n1\n")
    (tmp_path / "a.csv").write_bytes(b"x\n1\n")
    with pytest.raises(UsageError, match="have no folder in common"):
        discover([f"{memory}/a.csv", tmp_path / "a.csv"])


def test_an_append_of_remote_sources(memory: str, tmp_path: Path) -> None:
    """They must lie where the first ones did, and may not come twice."""
    copied(tmp_path / "in", "csv", memory)
    tfstream.convert(f"{memory}/a.csv", tmp_path / "out", group_by=["key"])
    both = tfstream.append(f"{memory}/b.csv", tmp_path / "out")
    assert both.rows == 2000
    with pytest.raises(UsageError, match="is a source of .* already"):
        tfstream.append(f"{memory}/a.csv", tmp_path / "out")


def test_a_source_that_changes_is_refused(memory: str, tmp_path: Path) -> None:
    """As a file that does."""
    url = remote.join(memory, "a.csv")
    remote.put(url, b"x\n1\n")
    files = discover(url)

    refuse_changed(files)
    remote.put(url, b"x\n2\n")
    with pytest.raises(DataError, match="was changed while"):
        refuse_changed(files)


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_store_that_fails_is_no_bad_row(
    suffix: str, memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left out because it could not be reached; the same call goes on later."""
    copied(tmp_path / "in", suffix, memory)
    driver = type(fsspec.filesystem("memory"))
    inner, left = driver.cat_file, [0]

    def failing(self: Any, *args: Any, **kwargs: Any) -> bytes:
        left[0] -= 1
        if left[0] < 0:
            raise ConnectionResetError("reset by peer")
        data: bytes = inner(self, *args, **kwargs)
        return data

    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0)
    options = tfstream.ConvertOptions(partition_bytes=10_000, on_bad_rows="quarantine")

    def convert() -> tfstream.Shards:
        return tfstream.convert(
            memory, tmp_path / "out", group_by=["key"], options=options, scheduler="synchronous"
        )

    seen = 0
    for number in range(0, 40, 3):
        left[0] = number
        with monkeypatch.context() as patch:
            patch.setattr(driver, "cat_file", failing)
            try:
                convert()
            except StorageError as error:
                assert "reset by peer" in str(error)  # noqa: PT017 - it may also come to its end
                seen += 1
            else:
                break
    assert seen
    made = (
        tfstream.open(tmp_path / "out") if (tmp_path / "out/manifest.json").exists() else convert()
    )
    assert made.rows == 2000
    assert sum(made.subset.catalog.sources["quarantined"].to_pylist()) == 0
