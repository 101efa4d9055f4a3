"""Host and Origin check of the server: which names it has, and the middleware that refuses others."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from atomstream.pages.own_hosts import OwnHosts, ip_address
from atomstream.server.http.responses import HttpError
from atomstream.server.settings import ServerSettings


class HostGuard(OwnHosts):
    """The names of this server: its bind address, the loopback names, and the configured ones.

    If it is bound to all addresses, also the machine's name and any IP address.
    """

    def __init__(self, settings: ServerSettings) -> None:
        names = {settings.host, *settings.allowed_hosts}
        if settings.public_host:
            names.add(settings.public_host)
        any_address = _is_wildcard(settings.host)
        if any_address:
            names |= {socket.gethostname(), socket.getfqdn()}
        public = urlsplit(settings.public_url or "").netloc
        super().__init__(names, any_address=any_address, public_origin=public)


def guard_origin(guard: HostGuard) -> Any:
    """A middleware that refuses unknown Host and Origin headers with 403 before anything else is checked."""

    @web.middleware
    async def check_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        # ``request.host`` is the name in the request line if the address there is complete, as for a proxy.
        if not (guard.accepts(host) and guard.accepts(request.host)):
            raise HttpError(
                403,
                "The Host header names another server. If clients use that name for this server, add it to the "
                "allowed hosts when starting it.",
            )
        origin = request.headers.get("Origin")
        if origin is not None and not guard.is_own_page(origin, host):
            raise HttpError(403, "Requests from pages of other sites are not accepted (Origin).")
        return await handler(request)

    return check_origin


def _is_wildcard(host: str) -> bool:
    address = ip_address(host)
    return address is not None and address.is_unspecified
