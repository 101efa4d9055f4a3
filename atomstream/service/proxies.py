"""Which proxy of the environment, if any, a URL goes through.

The library's own ``trust_env`` would also take logins from ``~/.netrc`` and add them to signed upload URLs,
which S3 refuses; so the standard library's look-up is asked instead, once for each server.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

_log = logging.getLogger(__name__)


class Proxies:
    """Remembers the answer for each server: the look-up reads the registry on Windows, and may block."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str | None] = {}

    async def for_url(self, url: str) -> str | None:
        """The proxy's URL, or None for a direct connection; a loopback server is always direct."""
        parts = urlsplit(url)
        key = (parts.scheme, parts.hostname or "")
        if key not in self._known:
            direct = is_loopback(key[1])
            self._known[key] = None if direct else await asyncio.to_thread(_look_up, *key)
        return self._known[key]


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine itself."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _look_up(scheme: str, host: str) -> str | None:
    proxy = getproxies().get(scheme)
    if not proxy or proxy_bypass(host):
        return None
    url = proxy if "://" in proxy else f"http://{proxy}"
    if urlsplit(url).scheme not in {"http", "https"}:
        _log.warning("The proxy for %s is not an http proxy; connecting directly.", host)
        return None
    return url
