"""What libraries say of bytes that nobody should have written, as one of our errors."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from tfstream.errors import CorruptionError, StorageError, TfstreamError

_FOREIGN = (
    *(ValueError, TypeError, LookupError, ArithmeticError, AttributeError, NotImplementedError),
    *(RecursionError, MemoryError, struct.error, pa.ArrowException),
)
"""Errors of Python, numpy and pyarrow that values lead to which have not the expected form."""


@contextmanager
def told(what: str) -> Iterator[None]:
    """Raise what others raise inside as damage of a file; only around what reads its values.

    Args:
        what: begins the message, such as "the statistics of /data".

    Raises:
        CorruptionError: for errors of the values.
        StorageError: if the system cannot read.
    """
    try:
        yield
    except TfstreamError:
        raise
    except OSError as error:
        # pyarrow also raises OSError, without a number, for bytes that do not decode.
        if error.errno is not None:
            raise StorageError(f"cannot read {what}: {error.strerror or error}") from error
        raise _damaged(what, error) from error
    except _FOREIGN as error:
        raise _damaged(what, error) from error


def _damaged(what: str, error: Exception) -> CorruptionError:
    said = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
    return CorruptionError(f"{what}: not what was written: {said}; restore it or convert again")
