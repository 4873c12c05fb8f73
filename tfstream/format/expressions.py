"""The small language of `where`, `label` and `group_by`, parsed by sqlglot with a white list.

Comparisons, in, is null, and, or, not over columns and key functions of a timestamp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import sqlglot
from sqlglot import exp

from tfstream.errors import UsageError

Literal = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Column:
    """The value of a column."""

    name: str


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a timestamp, such as its month, in a zone."""

    part: str
    column: str
    zone: str | None = None


@dataclass(frozen=True, slots=True)
class Compare:
    """A value against a literal or another value."""

    operator: str
    left: Node
    right: Node | Constant


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal."""

    value: Literal


@dataclass(frozen=True, slots=True)
class In:
    """A value that is one of some literals."""

    value: Node
    options: tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class IsNull:
    """A value that is missing."""

    value: Node


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    value: Node


@dataclass(frozen=True, slots=True)
class Logic:
    """Both ("and") or at least one ("or")."""

    operator: str
    left: Node
    right: Node


Node = Column | Part | Compare | Constant | In | IsNull | Not | Logic

_PARTS: dict[str, Callable[[Any], Any]] = {
    "year": pc.year,
    "month": pc.month,
    "day": pc.day,
    "hour": pc.hour,
    "weekday": pc.day_of_week,
    "date": lambda values: pc.cast(values, pa.date32()),
}
_COMPARISONS: dict[type[exp.Expr], str] = {
    exp.EQ: "==",
    exp.NEQ: "!=",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_MIRRORED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True, slots=True)
class Key:
    """One expression of `group_by`, and the name of the column that it makes."""

    name: str
    value: Column | Part


def parse(text: str) -> Node:
    """The tree of a condition.

    Raises:
        UsageError: if it does not parse, or has something else than the grammar allows.
    """
    return _node(_sql(text), text)


def parse_key(text: str) -> Key:
    """One expression of `group_by`: a column, or a part of a timestamp, with `AS name` if wanted.

    Raises:
        UsageError: if it is neither.
    """
    tree = _sql(text)
    alias = tree.alias if isinstance(tree, exp.Alias) else None
    value = _node(tree.this if isinstance(tree, exp.Alias) else tree, text)
    if isinstance(value, Column):
        return Key(alias or value.name, value)
    if isinstance(value, Part):
        return Key(alias or value.part, value)
    raise UsageError(
        f"cannot group by {text!r}: give a column or one of {', '.join(_PARTS)} "
        "of a timestamp column"
    )


def columns(node: Node) -> tuple[str, ...]:
    """The columns that an expression reads, each once."""
    return tuple(dict.fromkeys(_columns(node)))


def conjuncts(node: Node) -> list[Node]:
    """The conditions that must all hold."""
    if isinstance(node, Logic) and node.operator == "and":
        return conjuncts(node.left) + conjuncts(node.right)
    return [node]


def evaluate(node: Node, table: pa.Table) -> pa.ChunkedArray:
    """The value of an expression for every row; null where SQL would have null.

    Raises:
        UsageError: if a column is not there or its type does not allow it.
    """
    try:
        value = _evaluate(node, table)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise UsageError(f"cannot evaluate on {', '.join(columns(node))}: {error}") from error
    if isinstance(value, pa.Scalar):
        value = pa.chunked_array([pa.repeat(value, table.num_rows)])
    return value


def literal(value: Literal, type_: pa.DataType) -> pa.Scalar:
    """A literal as a value that compares with a column of this type without changing the column.

    Raises:
        UsageError: if the two cannot be compared.
    """
    scalar = pa.scalar(value)
    if isinstance(value, str) and pa.types.is_temporal(type_):
        try:
            naive = pa.timestamp("us") if pa.types.is_timestamp(type_) else type_
            return scalar.cast(naive).cast(type_)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UsageError(f"{value!r} is not a {type_}: {error}") from error
    text = pa.types.is_string(type_) or pa.types.is_binary(type_)
    if isinstance(value, str) != text or isinstance(value, bool) != pa.types.is_boolean(type_):
        raise UsageError(f"{value!r} cannot be compared with a column of type {type_}")
    return scalar


class _Grammar(sqlglot.Dialect):
    """SQL without its functions: a call is a name and arguments."""

    class Parser(sqlglot.Parser):
        """Knows no function, so that none is rewritten."""

        FUNCTIONS: ClassVar[dict[str, Any]] = {}
        FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {}
        NO_PAREN_FUNCTIONS: ClassVar[dict[Any, Any]] = {}


def _sql(text: str) -> exp.Expr:
    try:
        tree = sqlglot.parse_one(text, dialect=_Grammar)
    except sqlglot.errors.SqlglotError as error:
        reason = str(error).splitlines()[0].split(". Line")[0]
        raise UsageError(f"{text!r} does not parse: {reason}") from error
    return tree


def _node(tree: exp.Expr, text: str) -> Node:  # noqa: PLR0911 - one return a node of the grammar
    if isinstance(tree, exp.Paren):
        return _node(tree.this, text)
    if isinstance(tree, exp.Column):
        # A field of a struct is a column of a dotted name, which SQL takes for a table's column.
        return Column(".".join(part.name for part in tree.parts))
    if isinstance(tree, (exp.Literal, exp.Boolean, exp.Neg)):
        return Constant(_literal(tree, text))
    if type(tree) in _COMPARISONS:
        return _compare(_COMPARISONS[type(tree)], tree, text)
    if isinstance(tree, exp.In) and tree.expressions:
        options = tuple(_literal(option, text) for option in tree.expressions)
        return In(_node(tree.this, text), options)
    if isinstance(tree, exp.Is) and isinstance(tree.expression, exp.Null):
        return IsNull(_node(tree.this, text))
    if isinstance(tree, exp.Not):
        return Not(_node(tree.this, text))
    if isinstance(tree, (exp.And, exp.Or)):
        operator = "and" if isinstance(tree, exp.And) else "or"
        return Logic(operator, _node(tree.left, text), _node(tree.right, text))
    part = _part(tree)
    if part is not None:
        return part
    raise UsageError(
        f"{text!r} has {tree.sql()!r}, which is not part of the language: "
        "comparisons, in, is null, and, or, "
        f"not over columns and {', '.join(_PARTS)} of a timestamp column"
    )


def _compare(operator: str, tree: exp.Expr, text: str) -> Compare:
    left, right = _node(tree.this, text), _node(tree.expression, text)
    if isinstance(left, Constant):
        left, right, operator = right, left, _MIRRORED[operator]
    if isinstance(left, Constant):
        raise UsageError(f"{text!r} compares two literals; name a column")
    return Compare(operator, left, right)


def _part(tree: exp.Expr) -> Part | None:
    """`month(ts)` or `month(ts, 'zone')`."""
    if not isinstance(tree, exp.Anonymous) or str(tree.this).lower() not in _PARTS:
        return None
    column, *rest = tree.expressions or [None]
    zoned = len(rest) == 1 and isinstance(rest[0], exp.Literal) and rest[0].is_string
    if not isinstance(column, exp.Column) or (rest and not zoned):
        return None
    return Part(str(tree.this).lower(), column.name, rest[0].name if rest else None)


def _literal(tree: exp.Expr, text: str) -> Literal:
    if isinstance(tree, exp.Boolean):
        return bool(tree.this)
    if isinstance(tree, exp.Literal) and tree.is_string:
        return str(tree.this)
    if isinstance(tree, exp.Neg) and isinstance(tree.this, exp.Literal) and not tree.this.is_string:
        return -_number(tree.this.this)
    if isinstance(tree, exp.Literal):
        return _number(tree.this)
    raise UsageError(
        f"{text!r} has {tree.sql()!r} where a number, a string, true or false is expected"
    )


def _number(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def _columns(node: Node) -> Iterator[str]:
    if isinstance(node, Column):
        yield node.name
    elif isinstance(node, Part):
        yield node.column
    elif isinstance(node, (Compare, Logic)):
        yield from _columns(node.left)
        yield from _columns(node.right)
    elif isinstance(node, (In, IsNull, Not)):
        yield from _columns(node.value)


def _evaluate(node: Node, table: pa.Table) -> Any:  # noqa: ANN401, PLR0911 - one return a node of the grammar
    if isinstance(node, Column):
        return _column(node.name, table)
    if isinstance(node, Part):
        return _PARTS[node.part](_local(_column(node.column, table), node))
    if isinstance(node, Constant):
        return pa.scalar(node.value)
    if isinstance(node, Compare):
        left = _evaluate(node.left, table)
        right = (
            literal(node.right.value, left.type)
            if isinstance(node.right, Constant)
            else _evaluate(node.right, table)
        )
        names = {"==": "equal", "!=": "not_equal", "<": "less", "<=": "less_equal", ">": "greater"}
        return pc.call_function(names.get(node.operator, "greater_equal"), [left, right])
    if isinstance(node, In):
        value = _evaluate(node.value, table)
        options = [literal(option, value.type) for option in node.options]
        found = [pc.equal(value, option) for option in options]
        result = found[0]
        for other in found[1:]:
            result = pc.or_kleene(result, other)
        return result
    if isinstance(node, IsNull):
        return pc.is_null(_evaluate(node.value, table))
    if isinstance(node, Not):
        return pc.invert(_evaluate(node.value, table))
    combine = pc.and_kleene if node.operator == "and" else pc.or_kleene
    return combine(_evaluate(node.left, table), _evaluate(node.right, table))


def _column(name: str, table: pa.Table) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise UsageError(f"there is no column {name!r}; there are {', '.join(table.column_names)}")
    return table[name]


def _local(values: pa.ChunkedArray, part: Part) -> pa.ChunkedArray:
    """The wall clock in the part's zone; a timestamp without a zone counts as UTC."""
    if not pa.types.is_timestamp(values.type):
        if pa.types.is_date(values.type) and part.zone is None and part.part != "hour":
            return values
        raise UsageError(
            f"{part.part}({part.column}) needs a timestamp, but {part.column!r} is {values.type}"
        )
    if part.zone is None:
        return values if values.type.tz is None else pc.local_timestamp(values)
    if values.type.tz is None:
        values = pc.assume_timezone(values, "UTC")
    return pc.local_timestamp(values.cast(pa.timestamp(values.type.unit, part.zone)))
