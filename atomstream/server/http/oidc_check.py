"""Whether people could sign in by the OpenID Connect provider now: for ``atomstream serve --check``."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies

import aiohttp

from atomstream.counted import counted
from atomstream.errors import ConfigError
from atomstream.server.http.oidc_provider import LEEWAY_S, OidcError, OidcProvider
from atomstream.server.oidc_settings import OidcSettings

CHECK_S: Final = 10.0
"""Longest duration of the check, in s."""

WARN_S: Final = 5.0
"""Least difference of the clocks, in s, that the text of the check states."""


def check_provider(settings: OidcSettings, limit_s: float = CHECK_S) -> str:
    """Contact the provider as a sign-in does, for at most ``limit_s``; returns the result as a sentence. Blocks.

    Raises:
        ConfigError: it can't be reached, states another issuer, has no usable keys or addresses, or its clock differs
        from that of this computer by more than tokens tolerate.
    """
    return asyncio.run(_check(OidcProvider(settings), limit_s))


async def _check(provider: OidcProvider, limit_s: float) -> str:
    issuer = provider.settings.issuer
    try:
        async with asyncio.timeout(limit_s):
            if not getproxies():
                await _look_up(urlsplit(issuer).hostname or "")
            found = await provider.contact()
    except TimeoutError:
        raise ConfigError(f"The provider {issuer} did not answer in {limit_s:g} s.") from None
    except OidcError as error:
        raise ConfigError(_reason(issuer, error)) from None
    if "code" not in found.response_types:
        raise ConfigError(f"The provider {issuer} does not support the authorization code flow.")
    difference = found.clock_difference_s
    if difference is not None and abs(difference) > LEEWAY_S:
        raise ConfigError(
            f"The provider's clock is {_apart(difference)} that of this computer; {LEEWAY_S:g} s are tolerated, so "
            "no sign-in would be accepted. Set the clock that is wrong."
        )
    text = (
        f"{issuer} answers and has {counted(found.keys, 'key')}; the client id is first checked at a sign-in"
    )
    if difference is not None and abs(difference) > WARN_S:
        text += f". Its clock is {_apart(difference)} that of this computer"
    return text


def _apart(difference_s: float) -> str:
    return f"{abs(difference_s):.0f} s {'ahead of' if difference_s > 0 else 'behind'}"


def _reason(issuer: str, error: OidcError) -> str:
    cause = error.__cause__
    if cause is None:
        return f"{issuer}: {error}"
    found = f"The provider {issuer} can't be reached"
    if isinstance(cause, (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError)):
        return f"{found}: its certificate is not trusted here. Name the authority's file by SSL_CERT_FILE."
    if isinstance(cause, aiohttp.ClientConnectorError):
        return f"{found}: {cause.os_error.strerror or cause.os_error}."
    return f"{found}: {str(cause) or type(cause).__name__}."


async def _look_up(host: str) -> None:
    """Wait until the name is known, or unknown.

    Nothing ends a look-up before its own time limit, and the pool of the event loop would be waited for at the end:
    so it runs in a separate thread, which is not waited for.
    """
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def look_up() -> None:
        with suppress(OSError, UnicodeError):  # the request reports it
            socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=look_up, name="atomstream provider look-up", daemon=True).start()
    await done.wait()
