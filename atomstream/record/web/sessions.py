"""Who may use the page: browsers that were opened by the one-time link, or that log in with the key of this run.

Other programs and pages of other sites on the same computer must not be able to use it: every request for data needs
the cookie, and every request must name this server as its Host and come from its own page.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from atomstream.errors import AtomstreamError, ConfigError
from atomstream.pages.own_hosts import OwnHosts
from atomstream.system.log_privacy import hide

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

KEY_PREFIX: Final = "rec_"

OPEN_PATHS: Final = ("/dashboard/static/", "/record/static/")
OPEN_PAGES: Final = frozenset({"/", "/login", "/session"})
"""Pages without data, and the login itself."""

MAX_TRIES: Final = 100
"""Wrong keys until the login by key is closed for this run. A key has 256 bits, so nobody needs as many."""


class RefusedError(AtomstreamError):
    """Ends a request with an error status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Sessions:
    """The key of this run, its one-time links, and the cookies of the browsers that have used one of them."""

    def __init__(self) -> None:
        self.key = KEY_PREFIX + secrets.token_urlsafe(32)
        self._links: set[str] = set()
        self._cookies: set[str] = set()
        self._wrong = 0
        hide(self.key)

    def make_link(self) -> str:
        """The path of a page that logs in once."""
        token = secrets.token_urlsafe(32)
        self._links.add(token)
        return f"/login#link={token}"

    def open(self, link: str, key: str) -> str:
        """The value of a new cookie, for a link or a key.

        Raises:
            RefusedError: both are wrong, or too many wrong keys were tried.
        """
        if link:
            if link not in self._links:
                raise RefusedError(
                    401, "This login link was used already: log in with the key that the terminal shows."
                )
            self._links.remove(link)
        else:
            self._check_key(key)
        cookie = secrets.token_urlsafe(32)
        self._cookies.add(cookie)
        return cookie

    def _check_key(self, key: str) -> None:
        if self._wrong >= MAX_TRIES:
            raise RefusedError(
                429,
                f"{MAX_TRIES} wrong keys were tried, so this recorder accepts no key any more. Browsers that are "
                "logged in stay so. For a new key end `atomstream record` with Ctrl-C, which saves a running "
                "recording, and run it again.",
            )
        if not hmac.compare_digest(key.encode("utf-8", "surrogatepass"), self.key.encode()):
            self._wrong += 1
            raise RefusedError(
                401, "This is not the key of this recorder. The terminal in which it runs shows it."
            )

    def is_open(self, cookie: str) -> bool:
        """Whether a browser with this cookie is logged in."""
        return cookie in self._cookies

    def close(self, cookie: str) -> None:
        """End a session."""
        self._cookies.discard(cookie)


SESSIONS: Final = web.AppKey("sessions", Sessions)


def cookie_name(request: web.Request) -> str:
    """The cookie's name. It contains the port, because browsers share cookies between ports of one host."""
    return f"atomstream_record_{request.url.port or 0}"


def guard(hosts: OwnHosts, sessions: Sessions) -> Any:
    """The middleware that refuses requests of others, and makes replies of errors."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            _check_origin(request, hosts)
            path = request.path
            if not (path in OPEN_PAGES or path.startswith(OPEN_PATHS)) and not sessions.is_open(
                request.cookies.get(cookie_name(request), "")
            ):
                raise RefusedError(401, "Open this page by the link of the recorder, or log in with its key.")
            return await handler(request)
        except web.HTTPException as error:
            return refusal(error.status, error.reason)
        except RefusedError as error:
            return refusal(error.status, str(error))
        except (ConfigError, TypeError) as error:
            return refusal(400, str(error))
        except AtomstreamError as error:
            return refusal(409, str(error))

    return check


def _check_origin(request: web.Request, hosts: OwnHosts) -> None:
    host = request.headers.get("Host", "")
    if not hosts.accepts(host):
        raise RefusedError(403, "The Host header names another server.")
    origin = request.headers.get("Origin")
    if origin is not None and not hosts.is_own_page(origin, host):
        raise RefusedError(403, "Requests from pages of other sites are not accepted (Origin).")
    changes = request.method not in {"GET", "HEAD"} or "Upgrade" in request.headers
    if changes and origin is None:
        raise RefusedError(403, "This request needs an Origin header of this page; it has none.")
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in {"same-origin", "none"}:
        raise RefusedError(403, "Requests from pages of other sites are refused (Sec-Fetch-Site).")


def refusal(status: int, sentence: str) -> web.Response:
    """An error reply."""
    return json_reply({"detail": sentence}, status)


def json_reply(value: Any, status: int = 200) -> web.Response:
    """``value`` as a JSON reply that browsers neither cache nor interpret as another type."""
    return web.Response(
        text=json.dumps(value),
        status=status,
        content_type="application/json",
        headers={"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"},
    )


async def read_body(request: web.Request) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        RefusedError: the body is not a JSON object, or contains text that no file and no server could store.
    """
    if request.content_type != "application/json":
        raise RefusedError(415, "The request needs the Content-Type application/json.")
    try:
        body = json.loads(await request.read())
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise RefusedError(
            400, "The body of the request contains an invalid character (half of a surrogate pair)."
        ) from None
    except (ValueError, RecursionError):
        raise RefusedError(400, "The body of the request is not JSON.") from None
    if not isinstance(body, dict):
        raise RefusedError(400, "The body of the request is not a JSON object.")
    return body
