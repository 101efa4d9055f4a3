"""The names under which a local HTTP server may be reached: protection against other sites and DNS rebinding.

A page of another site can make a browser in the lab send requests to this server, and with DNS rebinding even under
that site's name. So a request's Host must be a name of this server, and its Origin, if present, must be the same.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit


class OwnHosts:
    """The names of a server: the loopback names, and ``names``.

    ``any_address`` accepts any IP address too, for a server that is bound to all addresses. That is safe: DNS rebinding
    needs a name that the attacker controls. ``public_origin`` is the host of a proxy in front of the server.
    """

    def __init__(
        self, names: Iterable[str] = (), *, any_address: bool = False, public_origin: str = ""
    ) -> None:
        self._names = {"localhost", *(name.lower() for name in names)}
        self._any_address = any_address
        self._public_origin = public_origin

    def accepts(self, host: str) -> bool:
        """True if the Host header ``host`` (with or without a port) names this server."""
        name = _bare_name(host)
        if name is None:
            return False
        address = ip_address(name)
        if address is not None and (address.is_loopback or self._any_address):
            return True
        return name in self._names

    def is_own_page(self, origin: str, host: str) -> bool:
        """True if a page with this Origin is of the server that the Host header ``host`` names.

        A proxy may send another Host than the browser, which uses the public address. The scheme is not
        compared: behind a proxy that terminates TLS the page is https and this server http.
        """
        try:
            return urlsplit(origin).netloc.lower() in filter(None, (host.lower(), self._public_origin))
        except ValueError:
            return False


def _bare_name(host: str) -> str | None:
    try:
        parts = urlsplit(f"//{host}")
        valid = parts.netloc == host and "@" not in host and parts.port is not False
    except ValueError:
        return None
    return parts.hostname if valid else None


def ip_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that ``name`` is; None for a name."""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
