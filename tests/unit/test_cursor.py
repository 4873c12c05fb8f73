"""A place that is written down and compared."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tfstream.cursor import Cursor
from tfstream.errors import DataError, ResumeError, UsageError
from tfstream.order import Spec
from tfstream.skips import Skips

SPEC = Spec(
    subset="aa",
    rows=100,
    blocks=10,
    batch_size=8,
    remainder="keep",
    shuffle="global",
    window_steps=3,
    stretches=2,
    seed=7,
)
FULL = Cursor(epoch=2, step=5, dataset="dd", spec=SPEC)


@pytest.mark.parametrize("cursor", [FULL, Cursor(epoch=0, step=0)])
def test_a_cursor_survives_json(cursor: Cursor) -> None:
    """Whether it is full or not."""
    assert Cursor.from_json(cursor.to_json()) == cursor


def test_a_cursor_is_a_step_of_its_own_stream() -> None:
    """Counted over the run; one that names nothing fits any stream."""
    assert FULL.in_run("dd", SPEC) == 2 * 13 + 5
    assert Cursor(epoch=1, step=12).in_run("other", SPEC) == 25


def test_a_cursor_of_another_stream_is_refused_with_each_field_that_differs() -> None:
    """The data set and the fields of the spec, and no others."""
    with pytest.raises(ResumeError) as error:
        FULL.in_run("ee", replace(SPEC, seed=8, batch_size=16))
    assert str(error.value) == (
        "the cursor belongs to another stream: dataset is 'dd' there and 'ee' here, batch_size is 8 "
        "there and 16 here, seed is 7 there and 8 here; make the stream as it was, or begin anew"
    )


def test_a_place_that_cannot_be_is_refused() -> None:
    """Beyond the epoch, negative, or no integer."""
    with pytest.raises(UsageError, match="an epoch has steps 0 to 12, there is no step 13"):
        Cursor(epoch=0, step=13).in_run("dd", SPEC)
    for wrong in (-1, 1.0, True):
        with pytest.raises(UsageError, match="step of a Cursor must be an integer from 0 on"):
            Cursor(epoch=0, step=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"epoch": "2"},
            "epoch of a Cursor must be an integer from 0 on, got '2'. Where: the cursor",
        ),
        ({"dataset": 3}, "expected a string, found 3. Where: dataset"),
        ({"spec": [1]}, "expected an object, found [1]. Where: spec"),
        ({"spec": {}}, "expected a string, found None. Where: spec.subset"),
        ({"spec": {"rows": 1.5}}, "expected an integer, found 1.5. Where: spec.rows"),
        ({"spec": {"more": 1}}, "a spec has no more. Where: spec"),
        ({"spec": {"rows": 0}}, "the subset has no rows"),
        ({"place": 1}, "a cursor has no place. Where: the cursor"),
    ],
)
def test_json_that_is_no_cursor_is_refused_with_its_field(change: dict, message: str) -> None:
    """Each field is looked at."""
    values = json.loads(FULL.to_json())
    spec = change.get("spec")
    if isinstance(spec, dict) and spec:
        change = {"spec": values["spec"] | spec}
    with pytest.raises(DataError) as error:
        Cursor.from_json(json.dumps(values | change))
    assert message in str(error.value)
    with pytest.raises(DataError, match="the cursor is not JSON"):
        Cursor.from_json("{")
    with pytest.raises(DataError, match="expected an object"):
        Cursor.from_json("[]")


@pytest.mark.parametrize("wrong", [-1, range(0, 9, 2), "3", 1.0])
def test_what_are_no_steps_cannot_be_left_out(wrong: object) -> None:
    """Steps and ranges of them, counted from 0."""
    with pytest.raises(UsageError, match="skip_steps takes steps of the run, counted from 0"):
        Skips.of([wrong])  # type: ignore[list-item]
