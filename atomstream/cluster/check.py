"""Checks the services of a cluster. Nothing is changed, except for test objects in the store, which are removed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import text

from atomstream.counted import counted
from atomstream.errors import AtomstreamError, ConfigError
from atomstream.server.catalogue_errors import CatalogueUnavailableError
from atomstream.server.cluster_id import check_same, id_in_catalogue, id_in_store
from atomstream.server.ports.bus_address import BusAddress
from atomstream.server.ports.store import Store
from atomstream.server.ports.store_url import check_store, open_store
from atomstream.server.postgres.address import PostgresAddress
from atomstream.server.postgres.clock import clock_difference
from atomstream.server.postgres.documents import TableDocuments
from atomstream.server.postgres.migrate import EMPTY, examine
from atomstream.server.postgres.postgres import Postgres, opened, require_drivers

LEAST_CONNECTIONS: Final = 20
"""Connections that one atomstream server may use: twice as many as it keeps."""
_BUS_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class ClusterFinding:
    """The result of one check; ``text`` describes it in a sentence."""

    name: str
    ok: bool
    text: str


@dataclass(slots=True)
class _Seen:
    """What one check found for a later one."""

    store: Store | None = None
    cluster: str | None = None
    has_catalogue: bool = False
    findings: list[ClusterFinding] = field(default_factory=list)


async def check_cluster(
    catalogue: PostgresAddress | None, store_url: str | None, bus: BusAddress | None
) -> list[ClusterFinding]:
    """Ask each service that is given, in this order; then whether catalogue and store are of one cluster."""
    seen = _Seen()
    if catalogue is not None:
        await _note(seen, "catalogue", lambda: _check_catalogue(catalogue, seen))
    if store_url is not None:
        await _note(seen, "store", lambda: _check_store(store_url, seen))
    if bus is not None:
        await _note(seen, "bus", lambda: _check_bus(bus, seen.store))
    if seen.has_catalogue and seen.store is not None:
        store = seen.store
        await _note(seen, "one cluster", lambda: _check_identity(seen.cluster, store))
    return seen.findings


async def _note(seen: _Seen, name: str, check: Callable[[], Awaitable[str]]) -> None:
    try:
        seen.findings.append(ClusterFinding(name, True, await check()))
    except (AtomstreamError, OSError) as error:
        seen.findings.append(ClusterFinding(name, False, str(error)))


async def _check_catalogue(address: PostgresAddress, seen: _Seen) -> str:
    require_drivers()
    async with opened(address) as postgres:
        try:
            found, seen.cluster = await asyncio.to_thread(_ask_catalogue, postgres)
        except CatalogueUnavailableError:
            raise ConfigError(f"{address.text} can't be reached: {postgres.reachability.cause}") from None
    seen.has_catalogue = True
    return found


def _ask_catalogue(postgres: Postgres) -> tuple[str, str | None]:
    name = postgres.address.text
    with postgres.transaction() as connection:
        version = examine(connection, name)
        ahead, _ = clock_difference(connection)
        server = connection.execute(text("SHOW server_version")).scalar()
        most = int(connection.execute(text("SHOW max_connections")).scalar_one())
    if most < LEAST_CONNECTIONS:
        raise ConfigError(
            f"{name} allows {most} connections, and one atomstream server may use {LEAST_CONNECTIONS}. Set "
            "max_connections higher."
        )
    tables = "empty: the first start makes its tables" if version == EMPTY else f"tables of version {version}"
    tls = "TLS" if postgres.address.tls is not None else "no TLS"
    cluster = None if version == EMPTY else id_in_catalogue(TableDocuments(postgres))
    about = f"{name}: PostgreSQL {server}, {tls}, {tables}, {most} connections, clocks {ahead * 1000.0:+.0f} ms apart"
    return about, cluster


async def _check_store(url: str, seen: _Seen) -> str:
    store = open_store(url)
    await asyncio.to_thread(check_store, store)
    seen.store = store
    return f"{store.name}: creates objects only once, checks conditions, lists what was stored"


async def _check_identity(catalogue: str | None, store: Store) -> str:
    stored = await asyncio.to_thread(id_in_store, store)
    check_same(catalogue, stored, store.name)
    return "not joined yet: the first start does it" if stored is None else f"cluster {stored}"


async def _check_bus(address: BusAddress, store: Store | None) -> str:
    try:
        import nats
        import nats.errors
        from nats.js.errors import Error as JetStreamError
        from nats.js.errors import NotFoundError

        from atomstream.server.ports.bus import OWNER, check_owner
    except ModuleNotFoundError:
        raise ConfigError("--bus needs the package nats-py: pip install 'atomstream[cluster]'.") from None

    async def ignore(_error: Exception) -> None:
        """Do nothing: the requests report their own errors."""

    try:
        async with asyncio.timeout(_BUS_S):
            client = await nats.connect(
                address.text.split(","),
                max_reconnect_attempts=1,
                connect_timeout=2,
                error_cb=ignore,
                **{"reconnect_time_wait": 0.1, **address.arguments()},
            )
    except (TimeoutError, OSError, nats.errors.Error) as error:
        raise ConfigError(f"{address.text} can't be reached: {str(error) or type(error).__name__}") from None
    try:
        jetstream = client.jetstream(timeout=_BUS_S)
        account = await jetstream.account_info()
        owner = None
        with suppress(NotFoundError):  # the first start of a server creates it
            found = await jetstream.stream_info(f"{address.name}-notices")
            owner = (found.config.metadata or {}).get(OWNER)
    except (TimeoutError, nats.errors.Error, JetStreamError) as error:
        raise ConfigError(
            f"{address.text} has no JetStream ({str(error) or type(error).__name__}): set jetstream in the "
            "configuration of NATS (or start it with -js), and allow it for this user's account."
        ) from None
    finally:
        with suppress(nats.errors.Error, TimeoutError, OSError):
            await client.close()
    cluster = None if store is None else await asyncio.to_thread(id_in_store, store)
    if cluster is not None:
        check_owner(address.name, owner, cluster)
    tls = "TLS" if address.tls is not None else "no TLS"
    streams = counted(account.streams, "stream")
    return f"{address.text}: NATS {client.connected_server_version}, {tls}, JetStream with {streams}"
