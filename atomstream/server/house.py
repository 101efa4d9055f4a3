"""The parts of one running server, as its request handlers see them."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from atomstream.server.catalogue import Catalogue
from atomstream.server.entries import Entries
from atomstream.server.events import Events
from atomstream.server.ingest import Ingest
from atomstream.server.lifecycle import Lifecycle
from atomstream.server.live.service import Live
from atomstream.server.settings import ServerSettings
from atomstream.server.signing import UrlSigner
from atomstream.server.streams import Streams


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
