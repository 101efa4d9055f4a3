"""``atomstream cluster``: check the services of a cluster, and migrate its catalogue."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from atomstream.cli.configuration import DEFAULTS, merged
from atomstream.cli.exit_codes import ExitCode, require_server
from atomstream.cli.service_urls import CATALOGUE_HELP, service_url
from atomstream.errors import ConfigError

if TYPE_CHECKING:
    from atomstream.server.documents import Documents
    from atomstream.server.ports.store import Store
    from atomstream.server.postgres.postgres import Postgres

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def cluster() -> None:
    """Run a cluster on this computer, or check and maintain the services that several servers share."""


config_option: Final = click.option(
    "--config",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="The file with the settings of the servers (TOML) [else $ATOMSTREAM_SERVER_CONFIG].",
)
catalogue_option: Final = service_url("--catalogue", CATALOGUE_HELP)
store_option: Final = service_url("--store", "S3 bucket: s3://BUCKET/PREFIX?endpoint=https://HOST")


def services(config: Path | None, **flags: str | None) -> dict[str, str | None]:
    """The URLs of the services by name, from flags, environment and file, as ``atomstream serve`` reads them."""
    given = {name: url for name, url in flags.items() if url is not None}
    require_server()
    from atomstream.server import ServerSettings

    known = {name: url for name, url in given.items() if name in DEFAULTS}
    found = merged(known, os.environ, config, ServerSettings.limits())
    return {name: given.get(name, found.get(name)) for name in ("catalogue", "store", "bus")}


@cluster.command()
@config_option
@catalogue_option
@store_option
@service_url("--bus", "Message bus: nats://HOST:4222, several servers with commas between them")
def check(config: Path | None, **flags: str | None) -> int:
    """Check each service, and print a line for each.

    Needs no data folder, and starts nothing. In the store, small objects are made and removed again. Services and
    secrets are those of `atomstream serve`: options, environment, or the file of --config.

    \b
    Example:
      atomstream cluster check --catalogue postgresql://atomstream@db.lab.example/atomstream \\
        --store "s3://rheed?endpoint=https://s3.lab.example" --bus nats://nats.lab.example:4222
    """
    from atomstream.cluster.check import check_cluster
    from atomstream.server.ports.bus_address import BusAddress
    from atomstream.server.postgres.address import PostgresAddress

    urls = services(config, **flags)
    if not any(urls.values()):
        raise ConfigError("There is nothing to check: name a service by --catalogue, --store or --bus.")
    catalogue, bus = urls["catalogue"], urls["bus"]
    findings = asyncio.run(
        check_cluster(
            None if catalogue is None else PostgresAddress.parse(catalogue, os.environ),
            urls["store"],
            None if bus is None else BusAddress.parse(bus, os.environ),
        )
    )
    for finding in findings:
        click.echo(f"{'ok    ' if finding.ok else 'FAILS '} {finding.name:12} {finding.text}")
    return ExitCode.DONE if all(finding.ok for finding in findings) else ExitCode.USAGE


@cluster.command()
@config_option
@catalogue_option
def migrate(config: Path | None, catalogue: str | None) -> int:
    """Bring the tables of the catalogue to the version of this atomstream.

    Make a backup first (pg_dump). A migration only adds: servers of the version before run on, and are replaced one
    after another afterwards.
    """
    from atomstream.server.postgres.migrate import EMPTY
    from atomstream.server.postgres.migrate import migrate as migrate_tables

    def run(postgres: Postgres) -> str:
        before, now = migrate_tables(postgres)
        if before == now:
            return f"The tables have the version {now} already; nothing was changed."
        if before == EMPTY:
            return f"The tables were made, in version {now}."
        return f"The tables have the version {now} now; before it was {before}."

    click.echo(with_catalogue(services(config, catalogue=catalogue)["catalogue"], run))
    return ExitCode.DONE


@cluster.command()
@config_option
@catalogue_option
@store_option
def adopt(config: Path | None, **flags: str | None) -> int:
    """Let a new catalogue take the place of a lost one: it gets the id of the cluster that the store belongs to.

    Restore a backup of the database instead where there is one: it has the names, people and keys, and the id.
    """
    urls = services(config, **flags)
    if urls["store"] is None:
        raise ConfigError("Name the store by --store.")
    store_url = urls["store"]

    def run(postgres: Postgres) -> str:
        from atomstream.server.cluster_id import adopt as adopt_store
        from atomstream.server.ports.store_url import open_store
        from atomstream.server.postgres.documents import TableDocuments
        from atomstream.server.postgres.migrate import prepare

        store: Store = open_store(store_url)
        prepare(postgres)
        documents: Documents = TableDocuments(postgres)
        return f"The catalogue belongs to the cluster {adopt_store(documents, store)} now, as the store {store.name}."

    click.echo(with_catalogue(urls["catalogue"], run))
    return ExitCode.DONE


def with_catalogue(url: str | None, run: Callable[[Postgres], str]) -> str:
    """The result of ``run`` with the connections to the catalogue at ``url``.

    Raises:
        ConfigError: there is no URL, or the database can't be reached or used.
    """
    require_server()
    from atomstream.server.catalogue_errors import CatalogueUnavailableError
    from atomstream.server.postgres.address import PostgresAddress
    from atomstream.server.postgres.postgres import opened, require_drivers

    if url is None:
        raise ConfigError("Name the catalogue by --catalogue postgresql://USER@HOST/DATABASE.")
    require_drivers()
    address = PostgresAddress.parse(url, os.environ)

    async def connected() -> str:
        async with opened(address) as postgres:
            try:
                return await asyncio.to_thread(run, postgres)
            except CatalogueUnavailableError as error:
                raise ConfigError(postgres.describe(error)) from None

    return asyncio.run(connected())
