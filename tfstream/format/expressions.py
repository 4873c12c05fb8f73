"""The small language of `where`, `label` and `group_by`, parsed by sqlglot with a white list.

Comparisons, in, is null, and, or, not over columns and key functions: parts of a timestamp,
`hash(column, n)` and `bucket(column, width)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import sqlglot
from sqlglot import exp

from tfstream.errors import UsageError
from tfstream.format.key_functions import (
    FUNCTION_NAMES,
    FUNCTIONS,
    PARTS,
    Bucket,
    Derived,
    Hash,
    Part,
    derive,
    name_of,
)

Literal = bool | int | float | str

_DEPTH = 200
"""How deep a condition may be nested; each `and` of a chain is one deeper than the one before."""


@dataclass(frozen=True, slots=True)
class Column:
    """The value of a column."""

    name: str


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


Node = Column | Derived | Compare | Constant | In | IsNull | Not | Logic

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
    value: Column | Derived


def parse(text: str) -> Node:
    """The tree of a condition.

    Raises:
        UsageError: if it does not parse, or has something else than the grammar allows.
    """
    return _tree(_sql(text), text)


def parse_key(text: str) -> Key:
    """One expression of `group_by`: a column or a key function, with `AS name` if wanted.

    Without it, the key has the name of the column or the function.

    Raises:
        UsageError: if it is neither.
    """
    tree = _sql(text)
    alias = tree.alias if isinstance(tree, exp.Alias) else None
    value = _tree(tree.this if isinstance(tree, exp.Alias) else tree, text)
    if isinstance(value, Column):
        return Key(alias or value.name, value)
    if isinstance(value, Derived):
        return Key(alias or name_of(value), value)
    raise UsageError(f"cannot group by {text!r}: give a column or one of {FUNCTIONS}")


def columns(node: Node) -> tuple[str, ...]:
    """The columns that an expression reads, each once."""
    return tuple(dict.fromkeys(_columns(node)))


def conjuncts(node: Node) -> list[Node]:
    """The conditions that must all hold."""
    if isinstance(node, Logic) and node.operator == "and":
        return conjuncts(node.left) + conjuncts(node.right)
    return [node]


def with_keys(node: Node, keys: Iterable[Key]) -> Node:
    """The expression with the key columns in place of what they were derived from."""
    known = {key.value: Column(key.name) for key in keys if isinstance(key.value, Derived)}

    def replaced(node: Any) -> Any:  # noqa: ANN401 - a node, or a field of one
        if isinstance(node, Derived):
            return known.get(node, node)
        if isinstance(node, (Compare, Logic)):
            return replace(node, left=replaced(node.left), right=replaced(node.right))
        if isinstance(node, (In, IsNull, Not)):
            return replace(node, value=replaced(node.value))
        return node

    found: Node = replaced(node)
    return found


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
    try:
        scalar = pa.scalar(value)
    except OverflowError as error:
        raise UsageError(f"{value!r} has more than 64 bits") from error
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
        NO_PARENFUNCTION_NAMES: ClassVar[dict[Any, Any]] = {}


def _sql(text: str) -> exp.Expr:
    try:
        tree = sqlglot.parse_one(text, dialect=_Grammar)
    except RecursionError as error:
        raise _too_deep(text) from error
    except sqlglot.errors.SqlglotError as error:
        reason = str(error).splitlines()[0].split(". Line")[0]
        raise UsageError(f"{text!r} does not parse: {reason}") from error
    return tree


def _too_deep(text: str) -> UsageError:
    return UsageError(f"{text[:60]!r}… is nested more than {_DEPTH} deep; use `in`, or less")


def _tree(tree: exp.Expr, text: str) -> Node:
    """A node that is not so deep that Python's stack ends when it is evaluated."""
    try:
        node = _asked(tree, text)
    except RecursionError as error:
        raise _too_deep(text) from error
    level: list[Node | Constant] = [node]
    for _ in range(_DEPTH):
        level = [child for one in level for child in _children(one)]
        if not level:
            return node
    raise _too_deep(text)


def _children(node: Node | Constant) -> list[Node | Constant]:
    if isinstance(node, (Compare, Logic)):
        return [node.left, node.right]
    return [node.value] if isinstance(node, (In, IsNull, Not)) else []


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
        return In(_asked(tree.this, text), options)
    if isinstance(tree, exp.Is) and isinstance(tree.expression, exp.Null):
        return IsNull(_asked(tree.this, text))
    if isinstance(tree, exp.Not):
        return Not(_asked(tree.this, text))
    if isinstance(tree, (exp.And, exp.Or)):
        operator = "and" if isinstance(tree, exp.And) else "or"
        return Logic(operator, _asked(tree.left, text), _asked(tree.right, text))
    derived = _derived(tree, text)
    if derived is not None:
        return derived
    raise UsageError(
        f"{text!r} has {tree.sql()!r}, which is not part of the language: "
        "comparisons, in, is null, and, or, "
        f"not over columns and {FUNCTIONS}"
    )


def _asked(tree: exp.Expr, text: str) -> Node:
    """A node that is no number and no string by itself."""
    node = _node(tree, text)
    if isinstance(node, Constant) and not isinstance(node.value, bool):
        raise UsageError(
            f"{text!r} has {tree.sql()!r} where a column or a condition is expected; name a column"
        )
    return node


def _compare(operator: str, tree: exp.Expr, text: str) -> Compare:
    left, right = _node(tree.this, text), _node(tree.expression, text)
    if isinstance(left, Constant):
        left, right, operator = right, left, _MIRRORED[operator]
    if isinstance(left, Constant):
        raise UsageError(f"{text!r} compares two literals; name a column")
    return Compare(operator, left, right)


def _derived(tree: exp.Expr, text: str) -> Derived | None:
    """`month(ts)`, `month(ts, 'zone')`, `hash(id, 64)` or `bucket(price, 10)`."""
    name = str(tree.this).lower() if isinstance(tree, exp.Anonymous) else None
    column, *rest = tree.expressions or [None]
    if name not in FUNCTION_NAMES or not isinstance(column, exp.Column):
        return None
    if name in PARTS:
        zoned = len(rest) == 1 and isinstance(rest[0], exp.Literal) and rest[0].is_string
        return (
            Part(name, column.name, rest[0].name if rest else None) if zoned or not rest else None
        )
    if len(rest) != 1:
        return None
    number = _literal(rest[0], text)
    if name == "hash" and (type(number) is not int or not 1 <= number < 1 << 63):
        raise UsageError(f"{text!r}: hash needs a whole number from 1 to 2^63 - 1")
    if isinstance(number, (bool, str)) or not 0 < number < 1 << 63:
        raise UsageError(f"{text!r}: bucket needs a width above 0 and below 2^63")
    return Hash(column.name, int(number)) if name == "hash" else Bucket(column.name, number)


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
        pass
    try:
        return float(digits)
    except ValueError as error:
        raise UsageError(f"{digits[:60]!r} is no number") from error


def _columns(node: Node) -> Iterator[str]:
    if isinstance(node, Column):
        yield node.name
    elif isinstance(node, Derived):
        yield node.column
    elif isinstance(node, (Compare, Logic)):
        yield from _columns(node.left)
        yield from _columns(node.right)
    elif isinstance(node, (In, IsNull, Not)):
        yield from _columns(node.value)


def _evaluate(node: Node, table: pa.Table) -> Any:  # noqa: ANN401, PLR0911 - one return a node of the grammar
    if isinstance(node, Column):
        return _column(node.name, table)
    if isinstance(node, Derived):
        return derive(node, _column(node.column, table))
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
