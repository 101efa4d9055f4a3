"""The end of the connections to PostgreSQL."""

from __future__ import annotations

import asyncio

from atomstream.cluster.engines import PostgreSQL
from atomstream.server.postgres.postgres import Postgres
from tests.databases import make_database


async def test_a_connection_in_use_is_closed_when_it_is_returned(postgres_server: PostgreSQL) -> None:
    """A thread that still asks while the server stops leaves no open socket."""
    postgres = Postgres(await asyncio.to_thread(make_database, postgres_server))
    used = await asyncio.to_thread(postgres.blocking.connect)
    driver = used.connection.driver_connection
    assert driver is not None
    await postgres.close()
    await asyncio.to_thread(used.close)
    assert driver._usock is None  # closed
