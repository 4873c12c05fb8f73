"""A place in a stream, as it is written down and compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from tfstream.errors import DataError, ResumeError, TfstreamError, UsageError
from tfstream.format import strict_json
from tfstream.spec import CHOICES, Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """A place: the next step to be delivered. `stream.cursor(step)` makes a full one."""

    epoch: int
    """0-based."""
    step: int
    """0-based within the epoch."""
    dataset: str | None = None
    """Digest of the data set; None fits any."""
    spec: Spec | None = None
    """What determined the order, field by field, so that a refusal can name what differs; None
    fits any."""

    def __post_init__(self) -> None:
        """Refuse what is no place.

        Raises:
            UsageError: with the name of the number.
        """
        for name, value in (("epoch", self.epoch), ("step", self.step)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise UsageError(f"{name} of a Cursor must be an integer from 0 on, got {value!r}")

    def in_run(self, dataset: str, spec: Spec) -> int:
        """The step counted over the run, if the cursor belongs to this stream.

        Raises:
            ResumeError: if it belongs to another data set or spec, with each field that differs.
            UsageError: if an epoch has no such step.
        """
        there: dict[str, Any] = {} if self.dataset is None else {"dataset": self.dataset}
        here: dict[str, Any] = {"dataset": dataset} | asdict(spec)
        there |= {} if self.spec is None else asdict(self.spec)
        differing = [
            f"{name} is {value!r} there and {here[name]!r} here"
            for name, value in there.items()
            if value != here[name]
        ]
        if differing:
            raise ResumeError(
                f"the cursor belongs to another stream: {', '.join(differing)}; "
                "make the stream as it was, or begin anew"
            )
        if self.step >= spec.steps_per_epoch:
            raise UsageError(
                f"an epoch has steps 0 to {spec.steps_per_epoch - 1}, there is no step {self.step}"
            )
        return self.epoch * spec.steps_per_epoch + self.step

    def to_json(self) -> str:
        """As `from_json` reads it."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Cursor:
        """A cursor as `to_json` wrote it.

        Raises:
            DataError: if it is none, with the field.
        """
        try:
            values: Any = strict_json.parsed(text)
        except ValueError as error:
            raise DataError(f"the cursor is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise DataError(f"expected an object, found {values!r}. Where: the cursor")
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise DataError(f"a cursor has no {', '.join(unknown)}. Where: the cursor")
        dataset, spec = values.get("dataset"), values.get("spec")
        if dataset is not None and not isinstance(dataset, str):
            raise DataError(f"expected a string, found {dataset!r}. Where: dataset")
        place: dict[str, Any] = {name: values.get(name) for name in ("epoch", "step")}
        try:
            return cls(
                **place,
                dataset=dataset,
                spec=None if spec is None else parse_spec(spec, "spec"),
            )
        except UsageError as error:
            raise DataError(f"{error}. Where: the cursor") from error


def parse_spec(values: object, where: str) -> Spec:
    """A spec out of JSON.

    Args:
        values: an object with the fields of `Spec`.
        where: what a message calls the object.

    Raises:
        DataError: if it is none, with the field.
    """
    if not isinstance(values, Mapping):
        raise DataError(f"expected an object, found {values!r}. Where: {where}")
    known = {field.name: field for field in fields(Spec)}
    if unknown := sorted(set(values) - set(known)):
        raise DataError(f"a spec has no {', '.join(unknown)}. Where: {where}")
    found = {
        name: _value(values.get(name), f"{where}.{name}", str(field.type))
        for name, field in known.items()
        if name in values or field.default is MISSING
    }
    for name, choices in CHOICES.items():
        if name in found and found[name] not in choices:
            expected = " or ".join(map(repr, choices))
            raise DataError(f"expected {expected}, found {found[name]!r}. Where: {where}.{name}")
    try:
        return Spec(**found)
    except TfstreamError as error:
        raise DataError(f"{error}. Where: {where}") from error


def _value(value: object, where: str, type_: str) -> Any:  # noqa: ANN401 - what the type says
    """A value of a spec, by the annotation of its field: lists are tuples."""
    if type_ == "int":
        if not isinstance(value, int) or isinstance(value, bool):
            raise DataError(f"expected an integer, found {value!r}. Where: {where}")
        return value
    if type_ == "float":
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise DataError(f"expected a number, found {value!r}. Where: {where}")
        return float(value)
    if not type_.startswith("tuple["):
        if not isinstance(value, str):
            raise DataError(f"expected a string, found {value!r}. Where: {where}")
        return value
    if not isinstance(value, list):
        raise DataError(f"expected a list, found {value!r}. Where: {where}")
    inner = type_.removeprefix("tuple[").removesuffix("]")
    if inner.endswith(", ..."):
        types = [inner.removesuffix(", ...")] * len(value)
    elif len(types := inner.split(", ")) != len(value):
        raise DataError(f"expected {len(types)} values, found {value!r}. Where: {where}")
    return tuple(
        _value(item, f"{where}[{i}]", kind)
        for i, (item, kind) in enumerate(zip(value, types, strict=True))
    )
