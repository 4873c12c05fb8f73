"""The language of conditions and keys."""

import datetime as dt

import pyarrow as pa
import pytest

from tfstream.errors import UsageError
from tfstream.format import expressions, key_functions

TABLE = pa.table(
    {
        "ts": pa.array([dt.datetime(2013, 1, 1, 3), None], pa.timestamp("us", "UTC")),
        "day": pa.array([dt.date(2013, 1, 1), None], pa.date32()),
        "a": [1, None],
        "s": ["UA", "x"],
        "flag": [True, False],
    }
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a < 2", [True, None]),
        ("2 > a", [True, None]),
        ("a <> 1", [False, None]),
        ("a in (1, 5)", [True, None]),
        ("a is null", [False, True]),
        ("a is not null", [True, False]),
        ("not a > 5", [True, None]),
        ("a > 0 or s = 'x'", [True, True]),
        ("a > 0 and s = 'x'", [False, None]),
        ("s in ('UA', 'DL')", [True, False]),
        ("flag = true", [True, False]),
        ("not flag", [False, True]),
        ("a = -1", [False, None]),
        ("ts >= '2013-01-01 02:00'", [True, None]),
        ("day = '2013-01-01'", [True, None]),
        ("month(ts) = 1", [True, None]),
        ("month(ts, 'America/New_York') = 12", [True, None]),
        ("hour(ts, 'America/New_York') = 22", [True, None]),
        ("weekday(ts) = 1", [True, None]),
        ("year(day) = 2013", [True, None]),
        ("date(ts, 'America/New_York') = '2012-12-31'", [True, None]),
    ],
)
def test_a_condition_has_the_value_that_sql_gives_it(
    text: str, expected: list[bool | None]
) -> None:
    """Null is neither true nor false, and is carried on as in SQL."""
    assert expressions.evaluate(expressions.parse(text), TABLE).to_pylist() == expected


@pytest.mark.parametrize(
    "text",
    [
        "a + 1 > 2",
        "foo(a) = 1",
        "a; drop table x",
        "exists(select 1)",
        "a in (select b from c)",
        "a like 'x'",
    ],
)
def test_what_the_grammar_lacks_is_refused_by_name(text: str) -> None:
    """Nothing but the white list is evaluated."""
    with pytest.raises(UsageError, match="which is not part of the language"):
        expressions.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 = 2", "'1 = 2' compares two literals; name a column"),
        ("a in (b)", "'a in (b)' has 'b' where a number, a string, true or false is expected"),
    ],
)
def test_a_condition_without_sense_is_refused(text: str, message: str) -> None:
    """The message repeats the condition."""
    with pytest.raises(UsageError) as caught:
        expressions.parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["a >", "", "((a)"])
def test_what_does_not_parse_is_refused(text: str) -> None:
    """The message repeats the text and gives the parser's reason."""
    with pytest.raises(UsageError, match="does not parse: "):
        expressions.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s > 1", "1 cannot be compared with a column of type string"),
        ("a = 'x'", "'x' cannot be compared with a column of type int64"),
        ("flag = 1", "1 cannot be compared with a column of type bool"),
        ("b = 1", "there is no column 'b'; there are ts, day, a, s, flag"),
        ("month(a) = 1", "month(a) needs a timestamp, but 'a' is int64"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused(text: str, message: str) -> None:
    """Types are never converted silently."""
    with pytest.raises(UsageError) as caught:
        expressions.evaluate(expressions.parse(text), TABLE)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("month", expressions.Key("month", expressions.Column("month"))),
        ("day(ts)", expressions.Key("day", key_functions.Part("day", "ts"))),
        ("day(ts, 'UTC') as d", expressions.Key("d", key_functions.Part("day", "ts", "UTC"))),
        ('"my col"', expressions.Key("my col", expressions.Column("my col"))),
    ],
)
def test_a_key_is_a_column_or_a_part_of_a_timestamp(text: str, key: expressions.Key) -> None:
    """Its name is the column's, the part's, or the one given."""
    assert expressions.parse_key(text) == key


def test_a_condition_is_no_key() -> None:
    """The message says what a key may be."""
    with pytest.raises(
        UsageError, match="^cannot group by 'a > 1': give a column or one of year, "
    ):
        expressions.parse_key("a > 1")
