"""Opens the catalogue that a server's settings name: SQLite in its data folder, or PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atomstream.server.catalogue.catalogue import Catalogue
from atomstream.server.catalogue.database import Database
from atomstream.server.catalogue.names_log import NamesLog
from atomstream.server.catalogue.streams_table import StreamsTable
from atomstream.server.settings import ServerSettings

if TYPE_CHECKING:
    from atomstream.server.postgres.postgres import Postgres


@dataclass(frozen=True, slots=True)
class OpenCatalogue:
    """The parts of an open catalogue."""

    database: Database
    streams: StreamsTable
    names: Catalogue


@asynccontextmanager
async def open_catalogue(settings: ServerSettings, postgres: Postgres | None) -> AsyncIterator[OpenCatalogue]:
    """The catalogue for as long as the block lasts: that of ``postgres``, or without it of the data folder.

    Raises:
        ConfigError: the database can't be used. CatalogueUnavailableError: it can't be reached.
    """
    if postgres is None:
        database = await Database.open(settings.data_dir)
        try:
            yield OpenCatalogue(
                database, StreamsTable(database), Catalogue(database, NamesLog(settings.data_dir))
            )
        finally:
            await database.close()
        return
    # Imported here: a server with its own data folder needs none of it.
    from atomstream.server.catalogue.shared_catalogue import SharedCatalogue
    from atomstream.server.catalogue.shared_database import SharedDatabase
    from atomstream.server.catalogue.shared_streams import SharedStreams

    shared = await SharedDatabase.prepared(postgres)
    streams = SharedStreams(shared)
    streams.start()
    try:
        yield OpenCatalogue(shared, streams, SharedCatalogue(shared))
    finally:
        await streams.close()
