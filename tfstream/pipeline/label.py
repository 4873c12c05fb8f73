"""Labels and weights: what they may be, and that none of them is null."""

from __future__ import annotations

from typing import Literal

import pyarrow as pa

from tfstream.errors import DataError, UsageError
from tfstream.format import expressions, kept_statistics, key_functions
from tfstream.format.manifest import Catalog
from tfstream.format.subset import Subset

_EQUALITY = ("==", "!=")


def parse_label(catalog: Catalog, text: str) -> expressions.Node:
    """The tree of a label: a column, or a condition that the graph can evaluate.

    Raises:
        UsageError: if it is neither, with the reason.
    """
    tree = expressions.parse(text)
    schema = catalog.schema
    columns = [schema[name] for name in expressions.columns(tree)]
    for column in columns:
        if column.is_null:
            raise UsageError(f"the label's column {column.name!r} has no value in any row")
    if isinstance(tree, expressions.Column):
        column = columns[0]
        if column.is_text and not column.coded:
            raise UsageError(f"the label {tree.name!r} is text; compare it with a value")
        if column.is_list or column.shape:
            raise UsageError(f"the label {tree.name!r} is a {column.type}; give one value a row")
        return tree
    empty = pa.schema([(column.name, column.arrow) for column in columns]).empty_table()
    _check(tree, catalog)
    type_ = expressions.evaluate(tree, empty).type
    if not pa.types.is_boolean(type_):
        raise UsageError(f"the label {text!r} is a {type_}, not a column or a condition")
    return tree


def parse_weight(catalog: Catalog, name: str) -> str:
    """The column of weights.

    Raises:
        UsageError: if there is none of this name, or it is no number.
    """
    column = catalog.schema[name]
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    numeric = any(is_number(column.arrow) for is_number in numbers)
    if column.is_text or not (numeric or pa.types.is_boolean(column.arrow)):
        raise UsageError(f"the weight {name!r} is {column.type}; give a column of numbers")
    return column.name


def without_nulls(subset: Subset, label: str, policy: Literal["error", "drop"]) -> Subset:
    """The subset whose labels are all there.

    Raises:
        DataError: if some are null and the policy is "error", with their count.
    """
    tree = expressions.parse(label)
    if not kept_statistics.may_be_null(subset, expressions.columns(tree)):
        return subset
    if policy == "drop":
        kept = subset.where(f"({label}) is not null")
        return subset if kept.rows == subset.rows else kept
    nulls = subset.where(f"({label}) is null").rows
    if nulls:
        raise DataError(
            f"the label {label!r} is null in {nulls} of {subset.rows} rows; leave them out with "
            'StreamOptions(null_label="drop") or a condition'
        )
    return subset


def check_weights(subset: Subset, name: str) -> None:
    """Refuse weights that are missing.

    Raises:
        DataError: with their count.
    """
    if not kept_statistics.may_be_null(subset, [name]):
        return
    nulls = subset.where(f'"{name}" is null').rows
    if nulls:
        raise DataError(
            f"the weight {name!r} is null in {nulls} of {subset.rows} rows; "
            "leave them out with where"
        )


def _check(node: expressions.Node, catalog: Catalog) -> None:
    """Refuse a condition that the graph cannot evaluate."""
    if isinstance(node, key_functions.Derived):
        raise UsageError(
            f"{key_functions.name_of(node)}({node.column}) cannot be part of a label; "
            "make it a column of the source"
        )
    if isinstance(node, expressions.IsNull):
        if not isinstance(node.value, expressions.Column):
            raise UsageError("a label asks of a column whether it is null, not of a condition")
    elif isinstance(node, expressions.Not):
        _check(node.value, catalog)
    elif isinstance(node, expressions.Logic):
        _check(node.left, catalog)
        _check(node.right, catalog)
    elif isinstance(node, expressions.In):
        for option in node.options:
            equal = expressions.Compare("==", node.value, expressions.Constant(option))
            _check_comparison(equal, catalog)
    elif isinstance(node, expressions.Compare):
        _check_comparison(node, catalog)


def _check_comparison(node: expressions.Compare, catalog: Catalog) -> None:
    for side in (node.left, node.right):
        if isinstance(side, key_functions.Derived):
            _check(side, catalog)
    if not isinstance(node.left, expressions.Column) or not isinstance(
        node.right, (expressions.Column, expressions.Constant)
    ):
        raise UsageError("a label compares a column with a literal or with another column")
    column = catalog.schema[node.left.name]
    if isinstance(node.right, expressions.Constant):
        expressions.literal(node.right.value, column.arrow)
        if column.is_text and pa.types.is_decimal(column.arrow):
            raise UsageError(
                f"a label cannot compare {column.name!r}, a {column.type} that is stored as text; "
                "make it a column of the source"
            )
        if column.is_text and node.operator not in _EQUALITY:
            raise UsageError(f"a label compares the text {column.name!r} with = or <> only")
        return
    other = catalog.schema[node.right.name]
    if column.is_text or other.is_text or column.arrow != other.arrow:
        raise UsageError(
            f"a label compares columns of one number type; {column.name!r} is {column.type} and "
            f"{other.name!r} is {other.type}"
        )
