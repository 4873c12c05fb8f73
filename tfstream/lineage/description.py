"""run.json: what a run trained on, so that its rows can be found again."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from tfstream import storage
from tfstream.cursor import parse_spec
from tfstream.errors import DataError, ResumeError, UsageError
from tfstream.format import index_files, recipe, strict_json
from tfstream.format.document import FORMAT
from tfstream.format.recipe import Step
from tfstream.format.subset import Subset
from tfstream.remote_path import RemotePath
from tfstream.spec import Spec
from tfstream.storage import Place

NAME = "run.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """One stream of a run."""

    dataset: str
    """Digest of the data set."""
    folder: str
    """The data set's folder, absolute, as the training machine knew it."""
    relative_folder: str
    """The same from the run's folder, which holds after both were moved together."""
    recipe: tuple[Step, ...]
    """The steps that make the subset of the whole data set, one after the other."""
    spec: Spec
    """The order."""
    spec_digest: str
    """The stream's digest of it."""
    features: tuple[str, ...]
    """Columns that the model got."""
    label: str | None
    """Column or condition."""
    weight: str | None
    """Column of sample weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What all attempts of a run have in common."""

    training: Feed
    """What the model was trained on."""
    validation: Feed | None = None
    """What it was validated on, if that was told."""

    @property
    def digest(self) -> str:
        """SHA-256 in hex of all but the folders, which may change: what a log must belong to."""
        values = _to_json(self)
        for feed in (values["training"], values["validation"]):
            if feed is not None:
                del feed["folder"], feed["relative_folder"]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def write(folder: Path, description: Description) -> None:
    """Write run.json into the folder of a run.

    Raises:
        StorageError: if it cannot be written.
    """
    storage.publish(folder / NAME, json.dumps(_to_json(description), indent=2).encode() + b"\n")


def read(folder: Place) -> Description:
    """Read the run.json of a folder.

    Raises:
        UsageError: if there is none.
        DataError: if it is none of this format, with the field.
    """
    path = folder / NAME
    if not path.is_file():
        raise UsageError(
            f"there is no run in {folder}: {path} does not exist; give LineageCallback's folder"
        )
    try:
        values: Any = strict_json.parsed(index_files.read_inside(folder, path))
    except ValueError as error:
        raise DataError(f"the run's description is not JSON: {error}. Where: {path}") from error
    parser = _Parser(path)
    found = parser.mapping(values, "")
    if found.get("format") != FORMAT:
        raise parser.error("format", f"format {FORMAT}", found.get("format"))
    validation = found.get("validation")
    return Description(
        training=parser.feed(found.get("training"), "training"),
        validation=None if validation is None else parser.feed(validation, "validation"),
    )


def claim(folder: Path, wanted: Description, place: Place) -> None:
    """Make a folder a run's, or see that it is this run's.

    Args:
        folder: where its files are written.
        wanted: the run.
        place: where they belong.

    Raises:
        ResumeError: if it holds something else, or a run on other streams.
        StorageError: if it cannot be written.
    """
    if (folder / NAME).is_file():
        found = read(folder)
        if found.digest != wanted.digest:
            raise ResumeError(
                f"{place} holds a run on other streams ({difference(found, wanted)}); "
                "give another folder"
            )
        return
    others = folder.iterdir() if folder.exists() else ()
    # Another worker may be just writing the same description.
    if any(not path.name.endswith(storage.DRAFT) for path in others):
        raise ResumeError(f"{place} holds something else than a run; give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, wanted)


def relative(folder: Place, start: Place) -> str:
    """The way from `start` to `folder`; the absolute path or URL where there is none."""
    if isinstance(folder, RemotePath) or isinstance(start, RemotePath):
        return folder.resolve().as_posix()
    try:
        return Path(os.path.relpath(folder, start)).as_posix()
    except ValueError:  # another drive
        return folder.resolve().as_posix()


def _to_json(description: Description) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(asdict(description)))
    for name in ("training", "validation"):
        feed = getattr(description, name)
        if feed is not None:
            values[name]["recipe"] = [step.to_json() for step in feed.recipe]
    return {"format": FORMAT} | values


@dataclass(frozen=True, slots=True)
class _Parser:
    path: Place

    def error(self, field: str, expected: str, found: object) -> DataError:
        return DataError(
            f"expected {expected}, found {found!r}. Where: {self.path}: {field or 'the document'}"
        )

    def mapping(self, value: object, field: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise self.error(field, "an object", value)
        return value

    def text(self, value: object, field: str) -> str:
        if not isinstance(value, str):
            raise self.error(field, "a string", value)
        return value

    def texts(self, value: object, field: str) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise self.error(field, "a list", value)
        return tuple(self.text(item, f"{field}[{i}]") for i, item in enumerate(value))

    def steps(self, value: object, field: str) -> tuple[Step, ...]:
        if not isinstance(value, list):
            raise self.error(field, "a list", value)
        return tuple(self.step(item, f"{field}[{i}]") for i, item in enumerate(value))

    def step(self, value: object, field: str) -> Step:
        try:
            return recipe.parse(value)
        except ValueError as error:
            raise self.error(field, str(error), value) from error

    def feed(self, value: object, field: str) -> Feed:
        found = self.mapping(value, field)

        def optional(name: str) -> str | None:
            return None if found.get(name) is None else self.text(found[name], f"{field}.{name}")

        spec = parse_spec(found.get("spec"), f"{self.path}: {field}.spec")
        # Of the values as they stand there: a later tfstream may know more fields.
        text = json.dumps(found["spec"], sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()
        if found.get("spec_digest") != digest:
            raise self.error(f"{field}.spec_digest", digest, found.get("spec_digest"))
        return Feed(
            dataset=self.text(found.get("dataset"), f"{field}.dataset"),
            folder=self.text(found.get("folder"), f"{field}.folder"),
            relative_folder=self.text(found.get("relative_folder"), f"{field}.relative_folder"),
            recipe=self.steps(found.get("recipe"), f"{field}.recipe"),
            spec=spec,
            spec_digest=digest,
            features=self.texts(found.get("features"), f"{field}.features"),
            label=optional("label"),
            weight=optional("weight"),
        )


def subset_of(feed: Feed, whole: Subset) -> Subset:
    """The subset of a feed, made again from the whole data set.

    Raises:
        DataError: if the data set is another one, or the steps keep other rows today.
    """
    if whole.catalog.digest != feed.dataset:
        raise DataError(
            f"the run was trained on the data set {feed.dataset}, but {whole.catalog.folder} holds "
            f"{whole.catalog.digest}; give the folder of the former"
        )
    try:
        subset = whole.made_by(feed.recipe)
    except UsageError as error:
        raise DataError(f"the run's subset cannot be made again: {error}") from error
    if subset.digest != feed.spec.subset:
        raise DataError(
            f"the steps {[str(step) for step in feed.recipe]} keep the rows {subset.digest} of "
            f"{whole.catalog.folder}, but the run was trained on {feed.spec.subset}; "
            "this tfstream may read them in another way"
        )
    return subset


def difference(found: Description, wanted: Description) -> str:
    """The first thing in which two runs differ."""
    for name in ("dataset", "recipe", "spec", "features", "label", "weight"):
        if (a := getattr(found.training, name)) != (b := getattr(wanted.training, name)):
            return f"{name}: {a} there, {b} here"
    return "its validation stream is another one"


def versions() -> dict[str, str]:
    """Versions of what a run depends on."""
    found = {"python": platform.python_version()}
    for name in ("tfstream", "tensorflow", "keras", "numpy"):
        distribution = next(iter(metadata.distributions(name=name)), None)
        found[name] = "unknown" if distribution is None else distribution.version
    return found


def feed_of(stream: Any, folder: Place) -> Feed:  # noqa: ANN401 - of the pipeline, which is not loaded
    """What the run in a folder says of a stream."""
    catalog = stream.subset.catalog
    return Feed(
        dataset=catalog.digest,
        folder=catalog.folder.resolve().as_posix(),
        relative_folder=relative(catalog.folder.resolve(), folder.resolve()),
        recipe=stream.subset.recipe,
        spec=stream.spec,
        spec_digest=stream.digest,
        features=tuple(stream.features),
        label=stream.label_text,
        weight=stream.weight_text,
    )
