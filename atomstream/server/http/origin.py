"""Host and Origin check: protection against cross-site requests and DNS rebinding.

A page of another site can make a browser in the lab send requests to this server, and with DNS rebinding even under
that site's name. So a request's Host must be a name of this server, and its Origin, if present, must be the same.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from atomstream.server.http.responses import HttpError
from atomstream.server.settings import ServerSettings


class HostGuard:
    """The names of this server: its bind address, the loopback names, and the configured ones.

    If it is bound to all addresses, also the machine's name and any IP address. That is safe: DNS rebinding needs a
    name that the attacker controls.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._names = {"localhost", settings.host.lower(), *(name.lower() for name in settings.allowed_hosts)}
        if settings.public_host:
            self._names.add(settings.public_host)
        self._public_origin = urlsplit(settings.public_url or "").netloc
        self._any_address = _is_wildcard(settings.host)
        if self._any_address:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    def knows(self, host: str) -> bool:
        """True if the Host header ``host`` (with or without a port) names this server."""
        name = _bare_name(host)
        if name is None:
            return False
        address = _address(name)
        if address is not None and (address.is_loopback or self._any_address):
            return True
        return name in self._names

    def is_own_page(self, origin: str, host: str) -> bool:
        """True if a page with this Origin is of the server that the Host header ``host`` names.

        A proxy may send another Host than the browser, which knows the public address alone. The scheme is not
        compared: behind a proxy that terminates TLS the page is https and this server http.
        """
        try:
            return urlsplit(origin).netloc.lower() in filter(None, (host.lower(), self._public_origin))
        except ValueError:
            return False


def guard_origin(guard: HostGuard) -> Any:
    """A middleware that refuses unknown Host and Origin headers with 403 before anything else is checked."""

    @web.middleware
    async def check_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        if not guard.knows(host):
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


def _bare_name(host: str) -> str | None:
    try:
        parts = urlsplit(f"//{host}")
        valid = parts.netloc == host and "@" not in host and parts.port is not False
    except ValueError:
        return None
    return parts.hostname if valid else None


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _is_wildcard(host: str) -> bool:
    address = _address(host)
    return address is not None and address.is_unspecified
