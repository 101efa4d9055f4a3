"""Sessions, and one request on them: a reply that succeeded, or an error of ours.

Sessions of their own, so that uploads never wait behind calls nor calls behind uploads or open feeds, and so that
the one that reaches foreign hosts (signed upload URLs) never knows the key. Redirects are never followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from atomstream.config import normalise_endpoint
from atomstream.errors import ClosedError
from atomstream.protocol import API_KEY_HEADER
from atomstream.records import Json
from atomstream.service import error_mapping as faults
from atomstream.service.error_mapping import RequestContext
from atomstream.service.upload_body import UploadBody
from atomstream.version import __version__

# Which proxy of the environment, if any, a URL goes through.
#
# The library's own ``trust_env`` would also take logins from ``~/.netrc`` and add them to signed upload URLs,
# which S3 refuses; so the standard library's look-up is asked instead, once for each server.

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


T = TypeVar("T")

CONNECT_TIMEOUT_S: Final = 10.0

ERROR_BODY_BYTES: Final = 64 << 10

REPLY_BODY_BYTES: Final = 16 << 20

_STORED: Final = frozenset({200, 201, 204})

# The library would add these by itself; the recorded requests have neither.
_SKIPPED: Final = ("Accept-Encoding", "Content-Type")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the API. ``what`` completes "Could not ...", ``path`` is percent-encoded already."""

    what: str
    method: str
    path: str
    query: str = ""
    body: bytes | None = None
    keyed: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """A success: its status, headers (any case) and body."""

    attempt: RequestContext
    status: int
    headers: Mapping[str, str]
    body: bytes

    def parse(self, read: Callable[[Json], T]) -> T:
        """``read`` the JSON of the body.

        Raises:
            ServerBusyError: the body is not JSON, or not what ``read`` expects.
        """
        why = "it is too large"
        if len(self.body) <= REPLY_BODY_BYTES:
            try:
                return read(json.loads(self.body))
            except RecursionError:
                why = "it is nested too deeply"
            except ValueError as error:
                why = "it is not JSON" if isinstance(error, json.JSONDecodeError) else str(error)
        raise faults.garbled(self.attempt, self.status, why)


class Transport:
    """The way to one server. Sessions are made at the first request, in the loop that makes it.

    ``request_timeout_s`` bounds a whole call; ``upload_timeout_s`` how long an upload may stand still.
    """

    def __init__(
        self,
        endpoint: str,
        api_key: str,
        *,
        request_timeout_s: float,
        upload_timeout_s: float,
        connections: int,
    ) -> None:
        self.endpoint = normalise_endpoint(endpoint)
        self._api_key = api_key
        self._request_timeout_s = request_timeout_s
        self._upload_timeout_s = upload_timeout_s
        self._connections = connections
        self._proxies = Proxies()
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._closed = False

    async def call(self, call: Call) -> Reply:
        """Make one attempt at ``call``; any 2xx is a success."""
        attempt = RequestContext(call.what, self.endpoint, (self._api_key,))
        url = self.endpoint + call.path + (f"?{call.query}" if call.query else "")
        timeout = aiohttp.ClientTimeout(
            total=self._request_timeout_s, connect=min(CONNECT_TIMEOUT_S, self._request_timeout_s)
        )
        reply = await self._attempt(
            self._session("api"),
            attempt,
            call.method,
            url,
            timeout,
            headers=self._headers(call),
            data=call.body,
        )
        if not 200 <= reply.status < 300:
            raise faults.from_reply(attempt, reply.status, reply.headers, reply.body)
        return reply

    def _headers(self, call: Call) -> dict[str, str]:
        headers = dict(call.headers)
        if call.keyed:
            headers[API_KEY_HEADER] = self._api_key
        if call.body is not None:
            headers["Content-Type"] = "application/json"
        return headers

    async def open_socket(self, call: Call, protocol: str) -> aiohttp.ClientWebSocketResponse:
        """Make one attempt at a WebSocket; close it when done. Errors as those of :meth:`call`."""
        attempt = RequestContext(call.what, self.endpoint, (self._api_key,))
        url = f"{self.endpoint}{call.path}?{call.query}"
        proxy = await self._proxies.for_url(url)
        try:
            async with asyncio.timeout(self._request_timeout_s):
                return await self._session("sockets").ws_connect(
                    URL(url, encoded=True),
                    protocols=(protocol,),
                    headers=self._headers(call),
                    proxy=proxy,
                    max_msg_size=REPLY_BODY_BYTES,
                )
        except aiohttp.WSServerHandshakeError as error:
            problem: Exception = faults.from_reply(attempt, error.status, error.headers or {}, b"")
        except (aiohttp.ClientError, OSError) as error:
            problem = faults.from_exception(attempt, error)
        raise problem

    async def receive(
        self, call: Call, socket: aiohttp.ClientWebSocketResponse, silence_s: float
    ) -> aiohttp.WSMessage | None:
        """The next message of a socket, None once the server has closed it in order.

        Raises:
            ConnectionFailedError: the connection broke, or said nothing for ``silence_s``.
        """
        attempt = RequestContext(call.what, self.endpoint, (self._api_key,))
        try:
            message = await socket.receive(timeout=silence_s)
        except TimeoutError as error:
            raise faults.from_exception(attempt, error) from None
        if message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
            return message
        if (
            message.type is aiohttp.WSMsgType.ERROR
            or socket.close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE
        ):
            raise faults.from_exception(attempt, ConnectionResetError())
        return None

    async def put(self, what: str, url: str, body: UploadBody) -> Reply:
        """Make one attempt at an upload; only 200, 201 and 204 are a success, and only for the whole body."""
        parts = urlsplit(url)
        attempt = RequestContext(
            what, f"{parts.scheme}://{parts.hostname}", (self._api_key, parts.query), upload=True
        )
        reply = await self._put(attempt, url, body)
        if reply.status not in _STORED:
            raise faults.from_reply(attempt, reply.status, reply.headers, reply.body)
        if not body.complete:
            raise faults.garbled(attempt, reply.status, "it answered before it had the whole body")
        return reply

    async def _put(self, attempt: RequestContext, url: str, body: UploadBody) -> Reply:
        limit_s = self._upload_timeout_s
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=min(CONNECT_TIMEOUT_S, limit_s), sock_read=limit_s
        )
        stalled = False
        try:
            async with asyncio.timeout(limit_s) as watch:
                body.on_progress = lambda: _push_back(watch, limit_s)
                headers = {"Content-Length": str(body.nbytes)}
                return await self._attempt(
                    self._session("uploads"), attempt, "PUT", url, timeout, headers=headers, data=body
                )
        except TimeoutError:
            stalled = True
        except Exception:
            if body.failure is None:
                raise
        # Raised out here so that no chained exception of the library's carries the URL's signature along.
        raise faults.stalled(attempt, limit_s) if stalled or body.failure is None else body.failure

    async def _attempt(
        self,
        session: aiohttp.ClientSession,
        attempt: RequestContext,
        method: str,
        url: str,
        timeout: aiohttp.ClientTimeout,
        **request: Any,
    ) -> Reply:
        proxy = await self._proxies.for_url(url)
        try:
            async with session.request(
                method,
                URL(url, encoded=True),
                timeout=timeout,
                proxy=proxy,
                allow_redirects=False,
                skip_auto_headers=_SKIPPED,
                **request,
            ) as response:
                body = await _read(response)
                return Reply(attempt, response.status, response.headers.copy(), body)
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            problem = faults.from_exception(attempt, error)
        raise problem

    def _session(self, name: str) -> aiohttp.ClientSession:
        if self._closed:
            raise ClosedError("This connection to the server was closed; make a new streamer.")
        if name not in self._sessions:
            self._sessions[name] = aiohttp.ClientSession(
                # A feed stays open for hours: it must take no connection from those who call.
                connector=aiohttp.TCPConnector(limit=0 if name == "sockets" else self._connections),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": f"atomstream/{__version__}"},
            )
        return self._sessions[name]

    async def close(self) -> None:
        """Close all connections; harmless when they are closed already."""
        self._closed = True
        sessions = list(self._sessions.values())
        self._sessions.clear()
        for session in sessions:
            await session.close()


def _push_back(watch: asyncio.Timeout, limit_s: float) -> None:
    # A new timer for each block would cost the loop more than the block itself, so a tenth of the limit is
    # let pass first.
    now, due = asyncio.get_running_loop().time(), watch.when()
    if due is not None and due - now > 0.9 * limit_s:
        return
    # A writer may ask for one more block while the watch is going off or the reply is already there.
    with contextlib.suppress(RuntimeError):
        watch.reschedule(now + limit_s)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body; of one that is too long the beginning, one byte over the limit, and the connection goes."""
    limit = REPLY_BODY_BYTES if 200 <= response.status < 300 else ERROR_BODY_BYTES
    body = bytearray()
    async for part in response.content.iter_chunked(ERROR_BODY_BYTES):
        body += part
        if len(body) > limit:
            response.close()
            break
    return bytes(body[: limit + 1])
