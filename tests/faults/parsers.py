"""Every parser of tfstream, as something that takes the bytes of one file of a stranger.

The hashes around a changed file are made anew, as a stranger would: what is found behind them must
hold too. The law: `parse` returns, or raises one of our errors.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.orc
import pyarrow.parquet as pq

from tests.faults import mutators
from tests.faults.mutators import Mutator
from tfstream.conversion import receipts, workspace
from tfstream.conversion.convert import append, convert
from tfstream.conversion.options import ConvertOptions
from tfstream.conversion.reading import Bad
from tfstream.cursor import Cursor, parse_spec
from tfstream.errors import TfstreamError
from tfstream.format import block, framing, kept_statistics, manifest, provenance, reader, recipe
from tfstream.format.check import check_dataset
from tfstream.format.document import document_sha256
from tfstream.format.manifest import Catalog, open_catalog
from tfstream.format.subset import Subset
from tfstream.lineage import description, log, records, run, table
from tfstream.pipeline.training_state import TrainingState, Variable
from tfstream.spec import Spec

INDEX = ("shards", "blocks", "groups", "sources", "vocabularies", "statistics", "vocabulary_counts")
_ROWS = 60


@dataclass(frozen=True, slots=True)
class Parser:
    """One kind of file."""

    sound: tuple[bytes, ...]
    """Files as they are written."""
    change: Mutator
    parse: Callable[[bytes], object]


def _table() -> pa.Table:
    rng = np.random.default_rng(0)
    null = rng.random(_ROWS) < 0.1
    numbers = rng.integers(0, 1000, _ROWS)
    return pa.table(
        {
            "g": rng.integers(0, 3, _ROWS),
            "x": pa.array(rng.normal(size=_ROWS), mask=null),
            "s": pa.array(np.array(list("uvw"))[rng.integers(0, 3, _ROWS)], mask=null),
            "t": pa.array(numbers * 10**9, pa.timestamp("ns")),
            "l": pa.array([list(range(n % 4)) for n in numbers.tolist()], pa.list_(pa.int32())),
            "v": pa.array([[n, 0.5] for n in numbers.tolist()], pa.list_(pa.float32(), 2)),
            "raw": pa.array([bytes([n % 256]) for n in numbers.tolist()], pa.binary()),
        }
    )


class Workshop:
    """A folder with a data set, a run of it, and a checkpoint."""

    def __init__(self, folder: Path) -> None:
        """Make all of it, anew."""
        self._folder, self._data, self._run = folder, folder / "data", folder / "run"
        (folder / "sources").mkdir()
        pq.write_table(_table(), folder / "sources/a.parquet")
        pq.write_table(_table(), folder / "sources/b.parquet")
        options = ConvertOptions(block_rows=16)
        (folder / "bad.csv").write_text("g,x\n" + "1,2\n" * 20 + "1,broken\n", encoding="utf-8")
        lenient = ConvertOptions(dtypes={"x": "float64"}, on_bad_rows="quarantine")
        for source, out, wished in (
            ("sources/a.parquet", self._data, options),
            ("bad.csv", folder / "quarantined", lenient),
        ):
            convert(folder / source, out, group_by=["g"], options=wished, scheduler="synchronous")
        append(folder / "sources/b.parquet", self._data, options=options, scheduler="synchronous")
        self._make_run()
        catalog = open_catalog(self._data)
        self._paths = {
            "manifest": self._data / "manifest.json",
            "shard": catalog.shard_path(0),
            "provenance by row": provenance.by_row_path(self._data, 0),
            "provenance by source": provenance.by_source_path(self._data, 0),
            "run": self._run / "run.json",
            "log": self._run / "attempt-000.log",
            "log parquet": self._run / "attempt-000.parquet",
        } | {f"index {name}": self._data / f"generations/1/index/{name}.parquet" for name in INDEX}
        self._logs = self._paths["log"].read_bytes(), self._frames
        self._manifest = self._paths["manifest"].read_bytes()
        self.parsers = self._parsers()

    def _make_run(self) -> None:
        subset = Subset.whole(open_catalog(self._data)).made_by(
            [recipe.Where(text="g < 2"), recipe.Without(ranges=((3, 5),))]
        )
        self._run.mkdir()
        self._spec = Spec(
            subset=subset.digest,
            rows=subset.rows,
            blocks=len(subset.blocks),
            batch_size=8,
            remainder="keep",
            shuffle="global",
            window_steps=3,
            stretches=2,
            seed=7,
        )
        feed = description.Feed(
            dataset=subset.catalog.digest,
            folder=self._data.as_posix(),
            relative_folder="../data",
            recipe=subset.recipe,
            spec=self._spec,
            spec_digest=hashlib.sha256(
                json.dumps(asdict(self._spec), sort_keys=True, separators=(",", ":")).encode()
            ).hexdigest(),
            features=("x",),
            label="g = 1",
            weight=None,
        )
        told = description.Description(training=feed, validation=feed)
        description.write(self._run, told)
        self._digest = subset.catalog.digest
        attempt = records.Attempt(
            number=0, first_step=0, run=told.digest, versions={"keras": "3"}, metrics=("loss",)
        )
        prints = np.arange(6, dtype=np.uint64)
        piece = records.Piece(
            first_step=0, generation=0, row_fingerprints=prints, label_fingerprints=prints
        )
        steps = records.Steps(piece=piece, time_s=1.0)
        path = self._run / "attempt-000.log"
        log.Writer(path, attempt).append(
            [
                steps,
                records.Metrics(first_step=0, values=np.ones((6, 1), np.float32)),
                records.WindowShards(epoch=0, window=0, shards=np.arange(2)),
                records.Checked(phase="validation", at_step=6, steps=steps),
                records.End(consumed=6),
            ]
        )
        self._frames = path.read_bytes()
        found = log.read(path)
        log.compact(path, table.publish(table.path_of(path), 0, found.consumed, self._spec))

    def _parsers(self) -> dict[str, Parser]:
        def of(name: str, change: Mutator, ask: Callable[[bytes], object]) -> Parser:
            return Parser((self._paths[name].read_bytes(),), change, ask)

        files = {
            name: of(name, mutators.changed_parquet, partial(self._data_set, name))
            for name in self._paths
            if name.startswith(("index", "provenance"))
        }
        quarantined = self._folder / "quarantined/quarantine/00000.parquet"
        feed = json.loads(self._paths["run"].read_bytes())["training"]
        cursor = Cursor(epoch=1, step=2, dataset="d", spec=self._spec).to_json().encode()
        shard = self._paths["shard"].read_bytes()
        return {
            "manifest": of("manifest", mutators.changed_json, self._parse_manifest),
            **files,
            "quarantine": Parser(
                (quarantined.read_bytes(),), mutators.changed_parquet, self._parse_quarantine
            ),
            "shard": of(
                "shard",
                mutators.changed_frames(mutators.changed_bytes),
                partial(self._data_set, "shard"),
            ),
            "wire": Parser(tuple(framing.frames(shard)), mutators.changed_bytes, _parse_wire),
            "framing": Parser((shard[:4000],), mutators.changed_bytes, _parse_frames),
            "log": Parser(
                self._logs, mutators.changed_frames(mutators.changed_head), self._parse_log
            ),
            "log parquet": of("log parquet", mutators.changed_parquet, self._parse_log_table),
            "run": of("run", mutators.changed_json, partial(self._ask_run, "run")),
            "checkpoint": self._checkpoint(),
            "cursor": Parser((cursor,), mutators.changed_json, Cursor.from_json),
            "spec": Parser(
                (json.dumps(feed["spec"]).encode(),), mutators.changed_json, _parse_spec
            ),
            "recipe": Parser(
                (json.dumps(feed["recipe"]).encode(),), mutators.changed_json, self._parse_recipe
            ),
            "where": Parser(
                (b"g = 1 and x > 0.5", b"s in ( 'u' , 'v' ) or not l is null", b"month(t) < 3"),
                mutators.changed_text,
                self._parse_where,
            ),
            "receipt": self._receipt(),
            "purpose": self._purpose(),
            **self._sources(),
        }

    def _sources(self) -> dict[str, Parser]:
        plain = _table()
        folder = self._folder / "sound"
        folder.mkdir()
        flat = plain.drop_columns(["l", "v", "raw"])
        pyarrow.csv.write_csv(flat, folder / "a.csv")
        rows = flat.drop_columns(["t"]).to_pylist()
        (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        pq.write_table(plain, folder / "a.parquet", row_group_size=25)
        with pa.ipc.new_file(folder / "a.arrow", plain.schema) as writer:
            writer.write_table(plain, max_chunksize=25)
        pyarrow.orc.write_table(plain.drop_columns(["v"]), folder / "a.orc")
        changes = {"parquet": mutators.changed_parquet}
        return {
            f"source {suffix}": Parser(
                ((folder / f"a.{suffix}").read_bytes(),),
                changes.get(suffix, mutators.changed_bytes),
                partial(self._convert, suffix),
            )
            for suffix in ("csv", "jsonl", "parquet", "arrow", "orc")
        }

    def _convert(self, suffix: str, data: bytes) -> None:
        source, out = self._folder / f"tried.{suffix}", self._folder / "tried"
        source.write_bytes(data)
        lenient = ConvertOptions(on_bad_rows="quarantine" if len(data) % 2 else "raise")
        try:
            convert(source, out, group_by=["g"], options=lenient, scheduler="synchronous")
        finally:
            shutil.rmtree(out, ignore_errors=True)

    def _checkpoint(self) -> Parser:
        path = self._folder / "latest.checkpoint"
        values = [Variable(path="a/b", value=np.ones((2, 3), np.float32))]
        cursor = Cursor(epoch=0, step=1, dataset="d", spec=self._spec)
        TrainingState(cursor=cursor, parts={"model": values, "optimizer": values}).write(path)

        def parse(data: bytes) -> None:
            path.write_bytes(data)
            TrainingState.read(path)

        change = mutators.changed_frames(mutators.changed_head)
        return Parser((path.read_bytes(),), change, parse)

    def _receipt(self) -> Parser:
        path = self._folder / "receipt.json"
        bad = Bad(first_row=0, rows=1, reason="r", byte=1, raw=b"x")
        held = [1, None, "a", bad, np.arange(3), _table().slice(0, 2), _table().schema, path]
        path.write_bytes(b"")

        def parse(data: bytes) -> None:
            path.write_bytes(data)
            receipts._kept(path)

        return Parser((json.dumps(receipts.encode(held)).encode(),), mutators.changed_json, parse)

    def _purpose(self) -> Parser:
        out, source = self._folder / "stopped", self._folder / "sources/a.parquet"
        state = [source.stat().st_size, source.stat().st_mtime_ns]
        document = {"out": "x", "parents": [], "sources": {str(source): state}, "options": {}}

        def parse(data: bytes) -> None:
            (out / ".tmp/0123").mkdir(parents=True)
            (out / ".tmp/0123/purpose.json").write_bytes(data)
            try:
                convert(source, out, group_by=["g"], scheduler="synchronous")
            finally:
                shutil.rmtree(out)

        assert workspace.UNFINISHED == ".tmp"
        return Parser((json.dumps(document).encode(),), mutators.changed_json, parse)

    def _parse_manifest(self, data: bytes) -> None:
        self._paths["manifest"].write_bytes(data)
        try:
            self._seal()
            _ask(self._data)
        finally:
            self._paths["manifest"].write_bytes(self._manifest)

    def _data_set(self, name: str, data: bytes) -> None:
        path = self._paths[name]
        before = path.read_bytes()
        path.write_bytes(data)
        try:
            self._seal()
            _ask(self._data)
        finally:
            path.write_bytes(before)
            self._paths["manifest"].write_bytes(self._manifest)

    def _seal(self) -> None:
        """Make the hashes of the data set anew, as far as its files can be read."""
        path = self._paths["manifest"]
        with contextlib.suppress(Exception):  # then the hashes are wrong, as many as were
            document = json.loads(path.read_bytes())
            for name in INDEX:
                data = self._paths[f"index {name}"].read_bytes()
                document["index_sha256"][name] = hashlib.sha256(data).hexdigest()
            for _ in range(2):  # the digest is in what the second hash is of
                document["manifest_sha256"] = document_sha256(document)
                path.write_bytes(json.dumps(document).encode())
                document["digest"] = self._digest(document)

    def _digest(self, document: dict[str, object]) -> object:
        with contextlib.suppress(Exception):
            parsed = manifest._parse(self._data, self._paths["manifest"])[1]
            tables = {
                name: pq.ParquetFile(self._paths[f"index {name}"]).read(use_threads=False)
                for name in INDEX[:5]
                if pq.read_metadata(self._paths[f"index {name}"]).num_rows < 100_000
            }
            return manifest._digest(parsed, tables)
        return document["digest"]

    def _parse_quarantine(self, data: bytes) -> None:
        path = self._folder / "quarantined/quarantine/00000.parquet"
        path.write_bytes(data)
        list(check_dataset(open_catalog(self._folder / "quarantined")))

    def _parse_log(self, data: bytes) -> None:
        self._ask_run("log", data)

    def _parse_log_table(self, data: bytes) -> None:
        before = self._paths["log"].read_bytes()
        frames = [*framing.frames(before)][:-1]
        moved = records.encode(records.Moved(sha256=hashlib.sha256(data).hexdigest()))
        self._paths["log"].write_bytes(b"".join(map(framing.frame, [*frames, moved])))
        try:
            self._ask_run("log parquet", data)
        finally:
            self._paths["log"].write_bytes(before)

    def _ask_run(self, name: str, data: bytes) -> None:
        before = self._paths[name].read_bytes()
        # A file that was kept knows the data set of its day.
        data = re.sub(rb'(?<="dataset": ")[0-9a-f]{64}', self._digest.encode(), data)
        self._paths[name].write_bytes(data)
        try:
            found = run.open_run(self._run)
            for ask in (
                found.verify,
                lambda: (found.steps, found.tests, found.windows, found.coverage()),
                lambda: found.rows(step=found.steps["step"][0].as_py() if len(found.steps) else 0),
                lambda: found.steps_of(row_ids=[0, 7]),
                lambda: found.composition(steps=[0, 1]),
            ):
                with contextlib.suppress(TfstreamError):
                    ask()
        finally:
            self._paths[name].write_bytes(before)

    def _parse_recipe(self, data: bytes) -> None:
        with contextlib.suppress(ValueError):  # what a rule of the format raises, for its caller
            steps = [recipe.parse(value) for value in _list(data)]
            Subset.whole(open_catalog(self._data)).made_by(steps)

    def _parse_where(self, data: bytes) -> None:
        Subset.whole(open_catalog(self._data)).where(data.decode(errors="replace"))


def _list(data: bytes) -> list[object]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return []
    return found if isinstance(found, list) else [found]


def _parse_spec(data: bytes) -> None:
    for values in _list(data):
        spec = parse_spec(values, "spec")
        spec.window_of(0), spec.first_step(spec.windows_per_epoch - 1)


def _parse_wire(data: bytes) -> None:
    with contextlib.suppress(ValueError):  # what a rule of the format raises, for its caller
        block.decode(data)


def _parse_frames(data: bytes) -> None:
    with contextlib.suppress(ValueError):  # what a rule of the format raises, for its caller
        list(framing.frames(data))


def _ask(folder: Path) -> None:
    """All that reads a data set, each until its error."""
    catalog = open_catalog(folder)
    asked: tuple[Callable[[Catalog], object], ...] = (
        lambda c: list(check_dataset(c)),
        lambda c: reader.take(c, np.arange(min(c.rows, 1000))),
        lambda c: kept_statistics.describe(Subset.whole(c)),
        lambda c: kept_statistics.describe(Subset.whole(c).where("x > 0 or s = 'u'")),
        lambda c: Subset.whole(c).where("g = 1").groups,
        lambda c: provenance.rows_of_sources(c, np.arange(min(c.rows, 1000))),
        lambda c: provenance.row_ids_of(c, 0, np.array([0, 3])),
    )
    for ask in asked:
        with contextlib.suppress(TfstreamError):
            ask(catalog)
