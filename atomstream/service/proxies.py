"""Finds the HTTP proxy for a URL, and checks addresses."""

from __future__ import annotations

import asyncio
import encodings.idna  # noqa: F401  (for is_address(): an import while a stream runs would block the loop)
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from atomstream.config import is_loopback
from atomstream.system.log_privacy import get_logger

_log = get_logger(__name__)


class Proxies:
    """Finds the proxy for a URL in the environment.

    aiohttp's ``trust_env`` is not used: it would also add logins of ``~/.netrc`` to signed upload URLs, which S3 then
    refuses. The look-up is that of :mod:`urllib.request`: ``HTTP_PROXY`` and ``HTTPS_PROXY`` (or lower case, which goes
    before), and ``NO_PROXY`` with names, suffixes of names, addresses, each with or without a port, or ``*``; networks
    (CIDR) are not known there. It may block (it reads the registry on Windows), so it runs in a thread, once a server.
    """

    def __init__(self) -> None:
        self._cached: dict[tuple[str, str], str | None] = {}

    async def for_url(self, url: str) -> str | None:
        """The URL of the proxy, or None for a direct connection. Loopback addresses are always direct."""
        parts = urlsplit(url)
        if is_loopback(parts.hostname or ""):
            return None
        # With the port, as urllib does: NO_PROXY may name it.
        key = (parts.scheme, parts.netloc.rpartition("@")[2])
        if key not in self._cached:
            self._cached[key] = await asyncio.to_thread(_look_up, *key)
        return self._cached[key]


def is_address(url: str) -> bool:
    """True if ``url`` has a port from 0 to 65535 or none, and a host name that the DNS can have.

    The labels of such a name have 1 to 63 characters (RFC 1035, 2.3.4).
    """
    try:
        parts = urlsplit(url)
        host, _ = (parts.hostname or "").encode("idna"), parts.port
    except ValueError:  # raised by urlsplit, by the port, or the UnicodeError of the encoding
        return False
    return bool(host)


def _look_up(scheme: str, host: str) -> str | None:
    proxy = getproxies().get(scheme)
    if not proxy or proxy_bypass(host):
        return None
    url = proxy if "://" in proxy else f"http://{proxy}"
    if url.partition("://")[0].lower() not in {"http", "https"}:
        _log.warning("The proxy for %s is not an http proxy; connecting directly.", host)
        return None
    return url
