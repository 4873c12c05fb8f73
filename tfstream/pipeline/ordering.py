"""The spec of a stream: what was asked for, and the defaults for the rest."""

from __future__ import annotations

import math

from tfstream.entries import Layout
from tfstream.format.layout import rows_of
from tfstream.format.subset import Subset
from tfstream.pipeline.options import StreamOptions
from tfstream.spec import Spec

_WINDOW_ROWS = 1 << 20
"""Quality 1.22 at batches of 1,024, where groups are longer than blocks of 512 rows."""
_WINDOW_BYTES = 256 << 20
_ORDERED_WINDOW_ROWS = 1 << 16
"""Where no rows are permuted nothing is gained by more, but the first batch waits for it."""
_STRETCHES = 8


def spec_of(
    subset: Subset, layout: Layout | None, batch_size: int, seed: int, options: StreamOptions
) -> Spec:
    """The order, with its defaults filled in."""
    rows = subset.rows if layout is None else rows_of(layout)
    is_one = options.shuffle == "none" or options.batches == "group"
    full, tails = rows // batch_size, ()
    if layout is not None and layout.sizes is not None:
        full = int((layout.sizes == batch_size).sum())
        tails = tuple(layout.sizes[full:].tolist())
    return Spec(
        subset=subset.digest,
        rows=rows,
        blocks=len(subset.blocks),
        batch_size=batch_size,
        remainder=options.remainder,
        shuffle=options.shuffle,
        window_steps=window_steps(full, batch_size, _window_rows(subset, options, is_one)),
        stretches=options.stretches or (1 if is_one else math.gcd(_STRETCHES, batch_size)),
        seed=seed,
        batches=options.batches,
        weights=tuple((text, float(weight)) for text, weight in options.weights.items()),
        full_batches=full if options.batches == "group" else 0,
        tails=tails,
    )


def window_steps(full_steps: int, batch_size: int, rows: int) -> int:
    """Steps of a window of at most `rows` rows, for windows of an epoch that are about equal."""
    most = max(1, rows // batch_size)
    return math.ceil(full_steps / math.ceil(full_steps / most)) if full_steps else 1


def _window_rows(subset: Subset, options: StreamOptions, is_one: bool) -> int:  # noqa: FBT001 - of _spec
    """Rows of a window, by default so that what its blocks take in memory is bounded."""
    if options.window_rows:
        return options.window_rows
    catalog = subset.catalog
    read = int(catalog.block_rows[subset.blocks].sum())
    if not read:
        return 1
    row_bytes = max(1, int(catalog.block_size[subset.blocks].sum()) // read)
    if options.window_bytes:
        return options.window_bytes // row_bytes * subset.rows // read
    most = _ORDERED_WINDOW_ROWS if is_one else _WINDOW_ROWS
    return min(most, _WINDOW_BYTES // row_bytes) * subset.rows // read
