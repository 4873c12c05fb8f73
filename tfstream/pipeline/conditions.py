"""Conditions evaluated in the graph, for labels, as `expressions.evaluate` does by Arrow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import tensorflow as tf

from tfstream.format import expressions
from tfstream.format.manifest import Catalog
from tfstream.format.schema import FIRST_CODE, NULL_CODE, UNSEEN_CODE, Column
from tfstream.pipeline.columns import WindowColumns

Tensor = Any

_OPERATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "==": tf.equal,
    "!=": tf.not_equal,
    "<": tf.less,
    "<=": tf.less_equal,
    ">": tf.greater,
    ">=": tf.greater_equal,
}


def evaluate(node: expressions.Node, columns: WindowColumns, catalog: Catalog) -> Tensor:
    """A condition as (steps, rows) bool, for rows where it is not null.

    Where a part of it is null and the whole is not, the whole does not depend on that part, so that
    the 0 in a null slot does no harm.
    """
    if isinstance(node, expressions.Column):
        return tf.cast(columns.stored(node.name), tf.bool)
    if isinstance(node, expressions.Not):
        return tf.logical_not(evaluate(node.value, columns, catalog))
    if isinstance(node, expressions.Logic):
        left, right = (evaluate(part, columns, catalog) for part in (node.left, node.right))
        return tf.logical_and(left, right) if node.operator == "and" else tf.logical_or(left, right)
    if isinstance(node, expressions.IsNull):
        return _is_null(node, columns, catalog)
    if isinstance(node, expressions.In):
        found = [
            _compare(
                expressions.Compare("==", node.value, expressions.Constant(option)),
                columns,
                catalog,
            )
            for option in node.options
        ]
        return tf.reduce_any(tf.stack(found), axis=0)
    if not isinstance(node, expressions.Compare):
        raise TypeError(f"{node} is no condition")
    return _compare(node, columns, catalog)


def _is_null(node: expressions.IsNull, columns: WindowColumns, catalog: Catalog) -> Tensor:
    column = catalog.schema[_name(node.value)]
    if column.coded:
        return columns.stored(column.name) == NULL_CODE
    if column.nullable:
        return columns.missing(column.name)
    return tf.zeros_like(columns.places, tf.bool)


def _compare(node: expressions.Compare, columns: WindowColumns, catalog: Catalog) -> Tensor:
    column = catalog.schema[_name(node.left)]
    left = columns.stored(column.name)
    if not isinstance(node.right, expressions.Constant):
        return _OPERATORS[node.operator](left, columns.stored(_name(node.right)))
    right = _stored_literal(node.right.value, column, catalog)
    if isinstance(right, float) or left.dtype.is_floating:
        return _OPERATORS[node.operator](
            tf.cast(left, tf.float64), tf.constant(float(right), tf.float64)
        )
    if isinstance(right, int):
        return _OPERATORS[node.operator](tf.cast(left, tf.int64), tf.constant(right, tf.int64))
    return _OPERATORS[node.operator](left, tf.constant(right))


def _name(node: expressions.Node) -> str:
    if not isinstance(node, expressions.Column):
        raise TypeError(f"{node} is no column")
    return node.name


def _stored_literal(value: expressions.Literal, column: Column, catalog: Catalog) -> Any:  # noqa: ANN401
    """A literal as the column's values are stored."""
    scalar = expressions.literal(value, column.arrow)
    if column.coded:
        place = catalog.vocabularies[column.name].index(scalar).as_py()
        return place + FIRST_CODE if place >= 0 else UNSEEN_CODE
    if pa.types.is_temporal(column.arrow) and isinstance(value, str):
        return int(scalar.value)
    return int(value) if isinstance(value, bool) else value
