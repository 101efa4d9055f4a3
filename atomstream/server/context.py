"""The parts of one running server, as its request handlers see them."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from atomstream.server.catalogue.catalogue import Catalogue
from atomstream.server.catalogue.streams_table import StreamsTable
from atomstream.server.http.upload_urls import UrlSigner
from atomstream.server.live.manager import ResultsManager
from atomstream.server.live.stream_results import StreamResults
from atomstream.server.settings import ServerSettings
from atomstream.server.streams.ingest import Ingest
from atomstream.server.streams.lifecycle import Lifecycle
from atomstream.server.streams.registry import StreamRegistry
from atomstream.server.streams.signals import ServerSignals


@dataclass(frozen=True, slots=True)
class ServerContext:
    """Everything that a request may need; made once at the start, in :mod:`atomstream.server.runner`."""

    settings: ServerSettings
    catalogue: Catalogue
    entries: StreamsTable
    streams: StreamRegistry
    lifecycle: Lifecycle
    ingest: Ingest
    signer: UrlSigner
    events: ServerSignals
    live: ResultsManager


CONTEXT = web.AppKey("house", ServerContext)


def context_of(request: web.Request) -> ServerContext:
    """The server that got ``request``."""
    return request.app[CONTEXT]


async def results_of(request: web.Request) -> StreamResults:
    """The results of the stream that the path names; raises RefusedError 404."""
    return await context_of(request).live.desk(request.match_info["data_id"])
