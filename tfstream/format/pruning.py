"""Which blocks may hold a row that fulfils a condition, by the statistics alone."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tfstream.format import damage, expressions
from tfstream.format.manifest import Catalog
from tfstream.format.schema import FIRST_CODE, Column

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


def possible_blocks(catalog: Catalog, conditions: Sequence[expressions.Node]) -> NDArray[Any]:
    """Whether a block may hold a row that fulfils all conditions; (blocks,) bool.

    A block that cannot is told with certainty, one that may need not. The conditions must be about
    columns of the schema, else they decide nothing.
    """
    with damage.told(f"the statistics of {catalog.folder}"):
        return _possible_blocks(_Spans(catalog), conditions)


def _possible_blocks(spans: _Spans, conditions: Sequence[expressions.Node]) -> NDArray[Any]:
    catalog = spans.catalog
    some = np.ones(len(spans.firsts), bool)
    for condition in conditions:
        some &= _may(condition, spans).hold
    low = np.searchsorted(spans.firsts, catalog.block_first, side="right") - 1
    high = np.searchsorted(spans.firsts, catalog.block_first + catalog.block_rows, side="left")
    before = np.concatenate([[0], np.cumsum(some)])
    found: NDArray[Any] = before[high] > before[low]
    return found


@dataclass(frozen=True, slots=True)
class _May:
    """What may be in each span; (spans,) bool."""

    hold: NDArray[Any]
    """A row for which the condition is true."""
    fail: NDArray[Any]
    """A row for which it is false; where it is null it is neither."""


class _Spans:
    """The spans of a data set, and what is known of its columns in them."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.firsts: NDArray[Any] = np.unique(catalog.statistics["first_row"].to_numpy())

    @cached_property
    def anything(self) -> _May:
        """Where nothing is known."""
        every = np.ones(len(self.firsts), bool)
        return _May(every, every)

    def entries(self, name: str) -> pa.Table:
        """The statistics of a column, a line a span."""
        table = self.catalog.statistics
        found = table.filter(pc.equal(table["column"], name))
        return found.take(pc.sort_indices(found["first_row"]))

    def having(self, name: str, truth: NDArray[Any]) -> NDArray[Any]:
        """Where one of the values of a coded column is for which the truth, by place, is true."""
        table = self.catalog.vocabulary_counts
        counts = table.filter(pc.equal(table["column"], name))
        codes = counts["code"].to_numpy() - FIRST_CODE
        there = counts["first_row"].to_numpy()[truth[codes]]
        return np.isin(self.firsts, there)


def _may(node: expressions.Node, spans: _Spans) -> _May:  # noqa: PLR0911 - one return a kind of node
    if isinstance(node, expressions.Not):
        inner = _may(node.value, spans)
        return _May(inner.fail, inner.hold)
    if isinstance(node, expressions.Logic):
        left, right = _may(node.left, spans), _may(node.right, spans)
        if node.operator == "and":
            return _May(left.hold & right.hold, left.fail | right.fail)
        return _May(left.hold | right.hold, left.fail & right.fail)
    names = expressions.columns(node)
    schema = spans.catalog.schema
    if len(names) != 1 or names[0] not in schema.names:
        return spans.anything
    column = schema[names[0]]
    if isinstance(node, expressions.IsNull):
        if not isinstance(node.value, expressions.Column):
            return spans.anything
        entries = spans.entries(column.name)
        nulls, rows = entries["nulls"].to_numpy(), entries["count"].to_numpy()
        return _May(nulls > 0, nulls < rows)
    if column.coded:
        return _by_values(node, column, spans)
    if isinstance(node, expressions.In):
        equal = [
            expressions.Compare("==", node.value, expressions.Constant(v)) for v in node.options
        ]
        found = [_may(one, spans) for one in equal]
        hold, fail = [one.hold for one in found], [one.fail for one in found]
        return _May(np.any(hold, axis=0), np.all(fail, axis=0))
    if isinstance(node, expressions.Compare) and isinstance(node.right, expressions.Constant):
        return _by_bounds(node, node.right.value, column, spans)
    return spans.anything


def _by_values(node: expressions.Node, column: Column, spans: _Spans) -> _May:
    """A condition on one coded column, decided for each of its values."""
    values = spans.catalog.vocabularies[column.name]
    found = expressions.evaluate(node, pa.table({column.name: values}))
    if not pa.types.is_boolean(found.type):
        return spans.anything
    true, false = (
        np.asarray(part.fill_null(fill_value=False).to_numpy(zero_copy_only=False), bool)
        for part in (found, pc.invert(found))
    )
    return _May(spans.having(column.name, true), spans.having(column.name, false))


def _by_bounds(
    node: expressions.Compare, value: expressions.Literal, column: Column, spans: _Spans
) -> _May:
    """A comparison of a column with a literal, decided by the least and the greatest value."""
    plain = isinstance(node.left, expressions.Column) and not column.is_list and not column.shape
    if not plain or column.is_null or pa.types.is_decimal(column.arrow):
        return spans.anything
    entries = spans.entries(column.name)
    known = entries["min"].is_valid().to_numpy() & entries["max"].is_valid().to_numpy()
    valid = entries["valid"].to_numpy()
    # NaN is neither null nor valid; of comparisons only != is true for it.
    odd = entries["count"].to_numpy() - entries["nulls"].to_numpy() - valid > 0
    wanted = expressions.literal(value, column.arrow)
    low, high = (_bounds(entries[name], known, column) for name in ("min", "max"))
    constants = _constants(wanted, column)

    def may(name: str) -> NDArray[Any]:
        found = np.zeros(len(valid), bool)
        for constant in constants:
            if name == "!=":
                inside = (low != constant) | (high != constant)
            elif name == "==":
                inside = (low <= constant) & (high >= constant)
            else:
                end = low if name in ("<", "<=") else high
                inside = _OPERATORS[name](end, constant)
            found[known] |= np.asarray(inside, bool)
        found[~known & (valid > 0)] = True
        return found | odd if name == "!=" else found

    fail = may(_OPPOSITE[node.operator])
    return _May(may(node.operator), fail | odd if node.operator != "!=" else fail)


def _bounds(column: pa.ChunkedArray, known: NDArray[Any], kind: Column) -> NDArray[Any]:
    """The bounds that are known: numbers, or bytes as objects."""
    values = [value for value, there in zip(column.to_pylist(), known, strict=True) if there]
    if kind.dtype is None:
        return np.array(values, object)
    return np.frombuffer(b"".join(values), kind.dtype)


def _constants(wanted: pa.Scalar, column: Column) -> list[Any]:
    """What a literal may be taken for when it is compared.

    Arrow compares whole numbers with whole ones, and casts either side to a float otherwise, which
    may round: then a bound counts under both readings.
    """
    if column.dtype is None:
        text = wanted.as_py()
        return [text.encode() if isinstance(text, str) else text]
    if pa.types.is_temporal(wanted.type):
        return [wanted.value]
    value = wanted.as_py()
    if pa.types.is_floating(column.arrow) and isinstance(value, int):
        with np.errstate(over="ignore"):
            return [float(type_(value)) for type_ in (np.float64, np.float32, np.float16)]
    return [value]
