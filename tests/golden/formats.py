"""A small data set of each format: `python -m tests.golden.formats` keeps one of today's.

What lies under `tests/golden/format-N` may never change: data sets of the format N are out there.
The command refuses to make it again.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import tfstream
from tfstream.format.document import FORMAT

HOME = Path(__file__).parent
_ROWS = 24


def table(first: int) -> pa.Table:
    """Numbers, times, codes, texts, lists and tensors, some of them null."""
    ids = range(first, first + _ROWS)
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "g": pa.array([i % 2 for i in ids], pa.int16()),
            "x": pa.array([None if i % 5 == 0 else i / 7 for i in ids], pa.float64()),
            "s": pa.array([None if i % 7 == 0 else "abc"[i % 3] for i in ids]),
            "raw": pa.array([bytes([i]) * (i % 3) for i in ids], pa.binary()),
            "t": pa.array([i * 10**6 for i in ids], pa.timestamp("us")),
            "l": pa.array([list(range(i % 3)) for i in ids], pa.list_(pa.int32())),
            "v": pa.array([[i, -i] for i in ids], pa.list_(pa.float32(), 2)),
        }
    )


def make(folder: Path) -> None:
    """A data set of two generations in `data`, and what it must hold in `expected.json`."""
    with tempfile.TemporaryDirectory() as name:
        sources = Path(name)
        for i in range(2):
            pq.write_table(table(i * _ROWS), sources / f"{i}.parquet")
        options = tfstream.ConvertOptions(block_rows=8)
        tfstream.convert(sources / "0.parquet", folder / "data", group_by=["g"], options=options)
        shards = tfstream.append(sources / "1.parquet", folder / "data", options=options)
    (folder / "expected.json").write_text(json.dumps(found(shards), indent=1) + "\n")


def found(shards: tfstream.Shards) -> dict[str, object]:
    """What a data set holds."""
    rows = shards.take(range(shards.rows))
    condition = shards.where("x > 2 and s != 'a'")
    stream = shards.stream(
        batch_size=5,
        features=["x"],
        label="g = 1",
        seed=3,
        options=tfstream.StreamOptions(nulls={"x": 0.0}),
    )
    return {
        "digest": shards.digest,
        "rows": hashlib.sha256(str(rows.to_pylist()).encode()).hexdigest(),
        "subset": condition.subset.digest,
        "stream": stream.digest,
        "labels": [float(sum(y.numpy())) for _, y in stream.dataset(epochs=range(1))],
    }


def main() -> None:
    """Keep one of today's format."""
    folder = HOME / f"format-{FORMAT}"
    folder.mkdir()
    make(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size:,} bytes")


if __name__ == "__main__":
    main()
