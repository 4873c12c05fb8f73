"""What many tests ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.object_store import new_bucket, served
from tests import object_store


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server."""
    with served() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket, which s3:// reaches."""
    object_store.use(s3_server, monkeypatch)
    return new_bucket(s3_server)
