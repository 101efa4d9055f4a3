"""Fixtures with the real services of a cluster. A test process starts each at its first use and keeps it to the end.

Each test uses separate names (subject, key prefix, database) in the shared service. A test that kills a service makes
its own: ``Nats(tmp_path / "nats")``. Where a program is missing, the tests that need it are skipped with the reason.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from atomstream.cluster.engine import Engine
from atomstream.cluster.engines import Nats, PostgreSQL, SeaweedFS
from atomstream.errors import ConfigError

E = TypeVar("E", bound=Engine)


@contextmanager
def running(make: Callable[[Path], E]) -> Iterator[E]:
    """A started service in a separate folder, which any user may enter: PostgreSQL does not run as root."""
    with tempfile.TemporaryDirectory(prefix="atomstream-engine-", ignore_cleanup_errors=True) as folder:
        try:
            engine = make(Path(folder) / make.__name__.lower())
            Path(folder).chmod(0o755)
            engine.start()
        except ConfigError as error:
            if "not installed" in str(error):
                pytest.skip(str(error))
            raise
        try:
            yield engine
        finally:
            engine.kill()


@pytest.fixture(scope="session")
def nats_server() -> Iterator[Nats]:
    """A NATS server with JetStream."""
    with running(Nats) as engine:
        yield engine


@pytest.fixture(scope="session")
def s3_server() -> Iterator[SeaweedFS]:
    """An S3 server with a bucket, see :data:`atomstream.cluster.engines.BUCKET`; the key is ``.environment``."""
    with running(SeaweedFS) as engine:
        yield engine


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgreSQL]:
    """A PostgreSQL server with an empty database."""
    with running(PostgreSQL) as engine:
        yield engine
