"""Empty PostgreSQL databases for tests, and the same tests over SQLite or files and over PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from sqlalchemy import create_engine, text

from atomstream.cluster.engines import PostgreSQL
from atomstream.server.postgres.address import PostgresAddress

BOTH = pytest.mark.parametrize("kind", ["embedded", "postgresql"])
"""For tests of what both kinds of catalogue do; ``kind`` selects one."""

NewDatabase = Callable[..., PostgresAddress]


def execute(address: PostgresAddress, statement: str) -> list[tuple[object, ...]]:
    """Run one statement outside of a transaction; returns its rows."""
    engine = create_engine(address.url("pg8000"), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            done = connection.execute(text(statement))
            return [tuple(row) for row in done] if done.returns_rows else []
    finally:
        engine.dispose()


def make_database(server: PostgreSQL, options: str = "") -> PostgresAddress:
    """The address of a new, empty database."""
    name = f"test_{uuid.uuid4().hex}"
    execute(PostgresAddress.parse(server.url, {}), f"CREATE DATABASE {name} {options}")
    return PostgresAddress.parse(urlsplit(server.url)._replace(path=f"/{name}").geturl(), {})
