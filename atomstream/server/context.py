"""The parts of one running server, as its request handlers see them."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from atomstream.server.catalogue.catalogue import Catalogue
from atomstream.server.catalogue.streams_table import Entries
from atomstream.server.http.upload_urls import UrlSigner
from atomstream.server.live.manager import Live
from atomstream.server.live.stream_results import Desk
from atomstream.server.settings import ServerSettings
from atomstream.server.streams.ingest import Ingest
from atomstream.server.streams.lifecycle import Lifecycle
from atomstream.server.streams.registry import Streams
from atomstream.server.streams.signals import Events


@dataclass(frozen=True, slots=True)
class House:
    """Everything that a request may need; made once at the start, in :mod:`atomstream.server.runner`."""

    settings: ServerSettings
    catalogue: Catalogue
    entries: Entries
    streams: Streams
    lifecycle: Lifecycle
    ingest: Ingest
    signer: UrlSigner
    events: Events
    live: Live


HOUSE = web.AppKey("house", House)


def house_of(request: web.Request) -> House:
    """The server that got ``request``."""
    return request.app[HOUSE]


async def desk_of(request: web.Request) -> Desk:
    """The results of the stream that the path names; raises RefusedError 404."""
    return await house_of(request).live.desk(request.match_info["data_id"])
