"""What is converted to a URL, or from one, is what is converted here, whatever the options."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

import tfstream
from tfstream import remote, storage


@settings(deadline=None, max_examples=12)
@given(
    counts=st.lists(st.integers(1, 300), min_size=1, max_size=3),
    seed=st.integers(0, 2**31),
    groups=st.integers(1, 40),
    block_rows=st.integers(1, 64),
    shard_bytes=st.sampled_from([200, 2000, 1 << 20]),
    suffix=st.sampled_from(["parquet", "csv"]),
    appended=st.booleans(),
)
def test_urls_change_no_byte(
    *,
    counts: list[int],
    seed: int,
    groups: int,
    block_rows: int,
    shard_bytes: int,
    suffix: str,
    appended: bool,
) -> None:
    """Nor do they add a file; the digest is the same."""
    rng, url = np.random.default_rng(seed), f"memory://{uuid.uuid4().hex}"
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        options = tfstream.ConvertOptions(
            block_rows=block_rows, shard_bytes=shard_bytes, temp=str(home / "temp")
        )
        sources = []
        for i, rows in enumerate(counts):
            table = pa.table(
                {"key": rng.integers(0, groups, rows), "x": rng.normal(size=rows).round(3)}
            )
            path = home / f"{i}.{suffix}"
            write = pq.write_table if suffix == "parquet" else pyarrow.csv.write_csv
            write(table, path)
            remote.put_file(f"{url}/in/{path.name}", path)
            sources.append(path.name)
        first = sources if len(sources) == 1 or not appended else sources[:-1]
        made = []
        for root, out in ((str(home), str(home / "out")), (f"{url}/in", f"{url}/out")):
            given_first = [f"{root}/{name}" for name in first]
            shards = tfstream.convert(given_first, out, group_by=["key"], options=options)
            for later in sources[len(first) :]:
                shards = tfstream.append(f"{root}/{later}", out, options=options)
            made.append(shards)
        assert made[0].digest == made[1].digest
        there = {name: remote.read(f"{url}/out/{name}") for name in remote.below(f"{url}/out")}
        here = {name: (home / "out" / name).read_bytes() for name in storage.below(home / "out")}
        for files in (here, there):
            for name in list(files):
                # They tell the folder of the sources.
                if name.endswith(("manifest.json", "parent.json")):
                    files[name] = b""
        assert here == there
