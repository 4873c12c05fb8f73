"""Random changes of bytes, of JSON, and of what lies inside frames and Parquet files."""

from __future__ import annotations

import copy
import io
import json
import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tfstream.format import framing

Mutator = Callable[[bytes, random.Random], bytes]

_NUMBERS = (0, 1, -1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64, -(2**63), 10**40)
_TEXTS = ("", "\0", "..", "../../x", "/etc/passwd", "a" * 300, "%s{0}", "\ud800", "string", "int64")
_TYPES = ("list<item: double>", "fixed_size_list<item: int8>[2147483647]", "decimal128(99, 1)")
_VALUES: tuple[Any, ...] = (
    *_NUMBERS,
    *_TEXTS,
    *_TYPES,
    *(None, True, False, 0.5, -1e308, float("inf"), float("nan"), [], {}, [[]], {"": None}),
)


def changed_bytes(data: bytes, rng: random.Random) -> bytes:
    """A few bytes or stretches that are others, gone, doubled or more."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        place = rng.randrange(len(out) + 1)
        length = rng.choice([1, 1, 2, 4, 8, 30])
        kind = rng.randrange(8)
        if kind <= 1 and place < len(out):
            out[place] ^= 1 << rng.randrange(8)
        elif kind == 2:
            out[place : place + length] = rng.randbytes(len(out[place : place + length]))
        elif kind == 3:
            width = rng.choice([1, 2, 4, 8])
            number = rng.choice(_NUMBERS[:7]) & (1 << 8 * width) - 1
            out[place : place + width] = number.to_bytes(width, "little")
        elif kind == 4:
            del out[place : place + rng.choice([length, length, len(out)])]
        elif kind == 5:
            out[place:place] = rng.randbytes(length)
        elif kind == 6:
            other = rng.randrange(len(out) + 1)
            out[place:place] = out[other : other + length]
        else:
            text = rng.choice([b'"', b",", b"\n", b"\r", b"\0", b"\xff", b"[", b"{", b"1e999"])
            out[place:place] = text * rng.choice([1, 1, 2, 5])
    return bytes(out)


def changed_json(data: bytes, rng: random.Random) -> bytes:
    """A document of which values are others, gone, more or elsewhere; sometimes only its bytes."""
    if rng.random() < 0.15:
        return changed_bytes(data, rng)
    if rng.random() < 0.02:
        return b"[" * 100_000
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):  # it was changed before
        return changed_bytes(data, rng)
    try:
        for _ in range(rng.choice([1, 1, 2, 4])):
            # Read anew: a value that stands in two places may come to hold itself.
            document = _changed_value(json.loads(json.dumps(document)), rng)
        return json.dumps(document).encode()
    except RecursionError:
        return changed_bytes(data, rng)


def _changed_value(document: Any, rng: random.Random) -> Any:
    held = list(_places(document))
    if not held or rng.random() < 0.02:
        return rng.choice(_VALUES)
    place, key = rng.choice(held)
    kind = rng.randrange(6)
    if kind == 0:
        del place[key]
    elif kind == 1 and isinstance(place, dict):
        place[rng.choice(_TEXTS)] = rng.choice(_VALUES)
    elif kind == 1:
        place.append(place[key])
    elif kind == 2:
        other, name = rng.choice(held)
        place[key] = copy.deepcopy(other[name]) if name in _keys(other) else None
    else:
        place[key] = rng.choice(_VALUES)
    return document


def _keys(value: Any) -> Any:
    return value if isinstance(value, dict) else range(len(value))


def _places(value: Any) -> Any:
    if isinstance(value, (dict, list)):
        for key in list(_keys(value)):
            yield value, key
            yield from _places(value[key])


def changed_frames(inside: Mutator) -> Mutator:
    """Records that are others but have right CRCs; sometimes the bytes of the file."""

    def change(data: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.15:
            return changed_bytes(data, rng)
        found = list(framing.frames(data))
        for _ in range(rng.choice([1, 1, 2])):
            place = rng.randrange(len(found))
            kind = rng.randrange(8)
            if kind == 0:
                del found[place]
            elif kind == 1:
                found.insert(place, rng.choice(found))
            else:
                found[place] = inside(found[place], rng)
            if not found:
                break
        return b"".join(map(framing.frame, found))

    return change


def changed_head(record: bytes, rng: random.Random) -> bytes:
    """A record of JSON behind a letter, or of numbers."""
    start = record.find(b"{", 0, 2)
    if start < 0 or rng.random() < 0.2:
        return changed_bytes(record, rng)
    return record[:start] + changed_json(record[start:], rng)


def changed_parquet(data: bytes, rng: random.Random) -> bytes:
    """A Parquet file with other values, types, rows or columns; often only its bytes."""
    if rng.random() < 0.4:
        return changed_bytes(data, rng)
    table = pq.ParquetFile(io.BytesIO(data)).read()
    names = table.column_names
    place = rng.randrange(len(names))
    kind = rng.randrange(8)
    if kind == 0:
        table = table.remove_column(place)
    elif kind == 1:
        table = table.slice(rng.randrange(table.num_rows + 1))
    elif kind == 2:
        table = pa.concat_tables([table, table])
    elif kind == 3:
        table = table.set_column(place, names[place], pa.nulls(table.num_rows))
    else:
        values = table[place].to_pylist()
        for _ in range(rng.choice([1, 1, 3])):
            if values:
                values[rng.randrange(len(values))] = rng.choice(_VALUES)
        type_ = rng.choice([table.schema[place].type] * 3 + [None])
        try:
            table = table.set_column(place, names[place], pa.array(values, type_))
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            return changed_bytes(data, rng)
    sink = io.BytesIO()
    try:
        pq.write_table(table, sink)
    except pa.ArrowException:
        return changed_bytes(data, rng)
    return sink.getvalue()


_TOKENS = (
    *("g", "x", "s", "i", "t", "l", "nothere", "1", "0", "-1", "2.5", "1e400", "1e-400", "9" * 40),
    *("'u'", "''", "'2020-01-01'", "true", "false", "null", "=", "!=", "<", "<=", ">", ">=", "in"),
    *("is", "not", "and", "or", "(", ")", ",", ".", "*", "+", "--", ";", "/*", "month(t)", "hash"),
    *("hash(g, 3)", "bucket(x, 0.5)", "bucket(", "month(t, 'Nowhere/X')", "like", "between"),
    *("case", "select", "cast(x as int)", "x[1]", "{x}", "@x", "'", '"', "\\", "\0", "é", "as"),
)


def changed_text(data: bytes, rng: random.Random) -> bytes:
    """A condition of other words; sometimes deep in brackets."""
    if rng.random() < 0.2:
        return changed_bytes(data, rng)
    if rng.random() < 0.03:
        depth = rng.choice([10, 1000, 20_000])
        before, after = rng.choice([("(", ")"), ("not ", ""), ("- ", ""), ("g = 1 and ", "")])
        return (before * depth + data.decode(errors="replace") + after * depth).encode()
    words = data.decode(errors="replace").split() or ["g"]
    for _ in range(rng.choice([1, 1, 2, 5])):
        place = rng.randrange(len(words) + 1)
        words[place : place + rng.randrange(2)] = [rng.choice(_TOKENS)]
    return " ".join(words).encode()
