"""HTTP sessions, and single requests on them. A request returns a successful reply or raises a ServiceError.

Calls, uploads and WebSockets have one session each, so they never wait for a connection of another kind. Uploads go to
other hosts (signed URLs), so their session does not have the API key. Redirects are never followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from atomstream.config import normalise_endpoint, pinned_certificate
from atomstream.errors import ClosedError, ServiceError
from atomstream.protocol import API_KEY_HEADER, CRC_HEADER
from atomstream.service import error_mapping
from atomstream.service.error_mapping import RequestContext
from atomstream.service.proxies import Proxies, is_address
from atomstream.service.replies import REPLY_BODY_BYTES, Call, Reply, read_body
from atomstream.service.upload_body import UploadBody
from atomstream.system import tracing
from atomstream.system.log_privacy import get_logger, hide, protect_libraries
from atomstream.version import __version__

_log = get_logger(__name__)

LARGE_BYTES: Final = 1 << 20
"""Longer bodies are sent in pieces."""

CONNECT_TIMEOUT_S: Final = 10.0
"""The longest time for a connection to be established, in seconds."""

MAX_CONTROL_FRAMES: Final = 100
"""Most pings and pongs of a feed between two messages; a server pings every 20 s and sends a message every 5 s."""

DOWNLOAD_SILENCE_S: Final = 3600.0
"""Longest wait for the next bytes of a download: the server makes the file first."""

CLOSE_S: Final = 2.0
"""Longest closing handshake of a WebSocket."""

_STORED: Final = frozenset({200, 201, 204})
"""The statuses that confirm an upload."""

_SKIPPED_HEADERS: Final = ("Accept-Encoding", "Content-Type")
"""Headers that aiohttp would add; the recorded protocol does not have them."""


class Transport:
    """The connections to one server. Sessions are created at the first request, on the loop that makes it.

    ``request_timeout_s`` limits a whole call. ``upload_timeout_s`` limits the time without progress of an upload.
    ``connections`` limits the open connections per session; 0 means no limit.

    Certificates are verified by the system's trusted authorities, or those in ``$SSL_CERT_FILE``. If the environment
    pins the endpoint's certificate, its SHA-256 is compared instead, on every connection to that host and port.

    Raises:
        ConfigError: the endpoint is not a URL, or the pinned fingerprint is not one or does not fit it.
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
        protect_libraries()
        hide(api_key)
        self.endpoint = normalise_endpoint(endpoint)
        pin = pinned_certificate(self.endpoint)
        self._pin = None if pin is None else aiohttp.Fingerprint(pin)
        self._api_key = api_key
        self._request_timeout_s = request_timeout_s
        self._upload_timeout_s = upload_timeout_s
        self._connections = connections
        self._proxies = Proxies()
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._closed = False

    async def call(self, call: Call) -> Reply:
        """Make one attempt at ``call``. Any 2xx status is a success."""
        context = RequestContext(call.what, self.endpoint, (self._api_key,))
        url = self.endpoint + call.path + (f"?{call.query}" if call.query else "")
        timeout = aiohttp.ClientTimeout(
            total=self._request_timeout_s, connect=min(CONNECT_TIMEOUT_S, self._request_timeout_s)
        )
        reply = await self._request(
            self._session("api"),
            context,
            call.method,
            url,
            timeout,
            headers=self._headers(call),
            # aiohttp would send large bytes in one piece, which blocks the loop.
            data=call.body if call.body is None or len(call.body) < LARGE_BYTES else io.BytesIO(call.body),
        )
        if not reply.is_success:
            raise reply.error()
        return reply

    async def download(self, call: Call, write: Callable[[bytes], object]) -> Mapping[str, str]:
        """Make one attempt at ``call`` and pass the body to ``write`` in pieces; returns the headers.

        The body may have any length.

        ``write`` blocks for a short time only. The server may take long until it begins to send.

        Raises:
            ServiceError: an error status, or the connection broke; a part may have been written.
        """
        context = RequestContext(call.what, self.endpoint, (self._api_key,))
        url = self.endpoint + call.path + (f"?{call.query}" if call.query else "")
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=DOWNLOAD_SILENCE_S
        )
        proxy = await self._proxy(context, url)
        try:
            async with self._session("api").request(
                call.method,
                URL(url, encoded=True),
                timeout=timeout,
                proxy=proxy,
                ssl=self._trust(url),
                allow_redirects=False,
                headers=self._headers(call),
                skip_auto_headers=_SKIPPED_HEADERS,
            ) as response:
                if 200 <= response.status < 300:
                    async for piece in response.content.iter_chunked(1 << 20):
                        write(piece)
                    return response.headers.copy()
                reply = Reply(context, response.status, response.headers.copy(), await read_body(response))
        except aiohttp.ClientError as error:
            problem: ServiceError = error_mapping.from_exception(context, error)
        except TimeoutError as error:
            problem = error_mapping.from_exception(context, error)
        else:
            problem = reply.error()
        raise problem

    def _headers(self, call: Call) -> dict[str, str]:
        headers = dict(call.headers)
        if call.keyed:
            headers[API_KEY_HEADER] = self._api_key
        if call.body is not None:
            headers["Content-Type"] = "application/json"
        return headers

    async def open_socket(self, call: Call, protocol: str) -> aiohttp.ClientWebSocketResponse:
        """Open a WebSocket, in one attempt. The caller closes it. Raises the same errors as :meth:`call`."""
        context = RequestContext(call.what, self.endpoint, (self._api_key,))
        url = f"{self.endpoint}{call.path}?{call.query}"
        proxy = await self._proxy(context, url)
        try:
            async with asyncio.timeout(self._request_timeout_s):
                return await self._session("sockets").ws_connect(
                    URL(url, encoded=True),
                    protocols=(protocol,),
                    headers=self._headers(call),
                    proxy=proxy,
                    ssl=self._trust(url),
                    autoping=False,  # receive() answers pings, and limits their number
                    max_msg_size=REPLY_BODY_BYTES,
                )
        except aiohttp.WSServerHandshakeError as error:
            problem: Exception = error_mapping.from_reply(context, error.status, error.headers or {}, b"")
        except (aiohttp.ClientError, OSError) as error:
            problem = error_mapping.from_exception(context, error)
        raise problem

    async def receive(
        self, call: Call, socket: aiohttp.ClientWebSocketResponse, silence_s: float
    ) -> aiohttp.WSMessage | None:
        """The next message of a WebSocket; None after the server has closed it normally.

        Raises:
            ConnectionFailedError: the connection broke, or no message arrived for ``silence_s`` seconds.
        """
        context = RequestContext(call.what, self.endpoint, (self._api_key,))
        try:
            async with asyncio.timeout(silence_s):
                message = await _next_message(socket)
        except (TimeoutError, ConnectionError) as error:
            raise error_mapping.from_exception(context, error) from None
        if message is None:
            raise error_mapping.invalid_reply(context, 101, "it sends control frames without end")
        if message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
            return message
        if (
            message.type is aiohttp.WSMsgType.ERROR
            or socket.close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE
        ):
            raise error_mapping.from_exception(context, ConnectionResetError())
        return None

    async def put(self, what: str, url: str, body: UploadBody) -> Reply:
        """Make one attempt at an upload. Success: status 200, 201 or 204, and the whole body was sent."""
        parts = urlsplit(url)
        context = RequestContext(
            what,
            f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}",
            (self._api_key, parts.query),
            upload=True,
            elsewhere=error_mapping.elsewhere(self.endpoint, url),
        )
        reply = await self._put(context, url, body)
        if reply.status not in _STORED:
            raise reply.error()
        if context.elsewhere and CRC_HEADER not in reply.headers:
            raise error_mapping.misdirected(context, f"{context.server} answered HTTP {reply.status}")
        if not body.complete:
            raise error_mapping.invalid_reply(
                context, reply.status, "it answered before it had received the whole body"
            )
        return reply

    async def _put(self, context: RequestContext, url: str, body: UploadBody) -> Reply:
        limit_s = self._upload_timeout_s
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=min(CONNECT_TIMEOUT_S, limit_s), sock_read=limit_s
        )
        stalled = False
        try:
            async with asyncio.timeout(limit_s) as timeout_scope:
                body.on_progress = lambda: _postpone(timeout_scope, limit_s)
                headers = {"Content-Length": str(body.nbytes)}
                if error_mapping.is_own_upload(url):  # other services sign what is sent
                    headers |= tracing.headers()
                return await self._request(
                    self._session("uploads"), context, "PUT", url, timeout, headers=headers, data=body
                )
        except TimeoutError:
            stalled = True
        except Exception:
            if body.failure is None:
                raise
        # Raised outside of the except clause, because a chained exception of aiohttp would contain the URL's signature.
        raise error_mapping.stalled(context, limit_s) if stalled or body.failure is None else body.failure

    async def _request(
        self,
        session: aiohttp.ClientSession,
        context: RequestContext,
        method: str,
        url: str,
        timeout: aiohttp.ClientTimeout,
        **request: Any,
    ) -> Reply:
        proxy = await self._proxy(context, url)
        try:
            async with session.request(
                method,
                URL(url, encoded=True),
                timeout=timeout,
                proxy=proxy,
                ssl=self._trust(url),
                allow_redirects=False,
                skip_auto_headers=_SKIPPED_HEADERS,
                **request,
            ) as response:
                return Reply(context, response.status, response.headers.copy(), await read_body(response))
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            problem = error_mapping.from_exception(context, error)
        raise problem

    def _trust(self, url: str) -> aiohttp.Fingerprint | bool:
        """How a connection verifies the certificate: by the pin, or (True) as the system does.

        Upload URLs may lead to another host, which has another certificate.
        """
        return self._pin if self._pin is not None and _origin(url) == _origin(self.endpoint) else True

    async def _proxy(self, context: RequestContext, url: str) -> str | None:
        """The proxy for ``url``, None for a direct connection.

        Raises:
            ConnectionFailedError: the host or the port of the server or of the proxy is not a valid one.
        """
        if not is_address(url):
            raise error_mapping.not_connected(context, "its host name or port is not valid")
        proxy = await self._proxies.for_url(url)
        if proxy is not None and not is_address(proxy):
            raise error_mapping.not_connected(context, "the host name or port of the proxy is not valid")
        return proxy

    def _session(self, name: str) -> aiohttp.ClientSession:
        if self._closed:
            raise ClosedError("This connection to the server was closed; make a new streamer.")
        if name not in self._sessions:
            is_sockets = name == "sockets"
            self._sessions[name] = aiohttp.ClientSession(
                # Feeds stay open for hours, so the number of WebSockets is not limited.
                connector=aiohttp.TCPConnector(limit=0 if is_sockets else self._connections),
                trace_configs=[_refusing_redirects()] if is_sockets else None,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # aiohttp does not limit the decompressed size; decompress() does
                headers={"User-Agent": f"atomstream/{__version__}"},
            )
        return self._sessions[name]

    async def close(self) -> None:
        """Close all connections. Repeated calls have no effect."""
        self._closed = True
        sessions = list(self._sessions.values())
        self._sessions.clear()
        for session in sessions:
            await session.close()


async def close_socket(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Close a WebSocket: with a closing handshake if the server takes part, without it after ``CLOSE_S``."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_S):
            await socket.close()


async def _next_message(socket: aiohttp.ClientWebSocketResponse) -> aiohttp.WSMessage | None:
    """The next message that is not a ping or pong; None after ``MAX_CONTROL_FRAMES`` of those."""
    for _ in range(MAX_CONTROL_FRAMES):
        message = await socket.receive()
        if message.type is aiohttp.WSMsgType.PING:
            await socket.pong(message.data)
        elif message.type is not aiohttp.WSMsgType.PONG:
            return message
    return None


def _refusing_redirects() -> aiohttp.TraceConfig:
    """Makes a redirected handshake fail: ``ws_connect`` has no argument for it, and would send the key along."""

    async def refuse(_session: object, _context: object, params: aiohttp.TraceRequestRedirectParams) -> None:
        reply = params.response
        reply.close()
        raise aiohttp.WSServerHandshakeError(
            reply.request_info, (), status=reply.status, message="redirected", headers=reply.headers
        )

    config = aiohttp.TraceConfig()
    config.on_request_redirect.append(refuse)
    return config


def _postpone(timeout: asyncio.Timeout, limit_s: float) -> None:
    # A new timer for each block would cost the loop more than the block itself. So the timer is moved only once a
    # tenth of the limit has passed.
    now, due = asyncio.get_running_loop().time(), timeout.when()
    if due is not None and due - now > 0.9 * limit_s:
        return
    # The timeout may just be expiring, or the reply may have arrived, while aiohttp requests one more block.
    with contextlib.suppress(RuntimeError):
        timeout.reschedule(now + limit_s)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
