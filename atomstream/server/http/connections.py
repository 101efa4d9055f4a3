"""A bound on connections, overall and per address, and an end for clients that do not read their replies.

Each connection takes a handle (file descriptor) of the process, of which Linux gives 1024 by default. Without a bound
a client that opens connections and sends nothing would take them all, and the archive could open no file. At a bound a
new connection replaces the least useful one: first one in the middle of a request's headers, then one that was never
used, then one that waits for its next request. Connections whose client has shown a valid key go last.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final, TypeAlias

from aiohttp import web
from aiohttp.typedefs import Handler

from atomstream.server.http.access import required_access
from atomstream.server.http.loop_rate_limiter import LoopRateLimiter
from atomstream.server.people.rights import Right
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")

HALF, UNUSED, IDLE, KNOWN, BUSY = range(5)
"""States: in a request without a key (yet), never used, waiting for a request, the same with a key, in a request."""
KEPT_UNUSED: Final = 64
"""Number of unused connections of an address, those opened first, that are closed last: they were there before any
flood."""
NO_KEY_BYTES: Final = 16 << 10
CLIENT_BYTES: Final = 256 << 10
"""Bytes that are received at once from a client without and with a key: hundreds of clients without a key take little
memory."""
CHECK_PERIOD_S: Final = 5.0
"""Interval, in s, at which the replies that are being sent are checked."""
RESUMED_BYTES: Final = 48 << 10
"""Bytes that a client has read, at least, when asyncio resumes writing: its high minus its low water mark."""


class Connection(asyncio.Protocol):
    """One connection. It passes all calls of the transport on to aiohttp's handler, and keeps track of the state."""

    def __init__(self, guard: ConnectionGuard, handler: web.RequestHandler) -> None:
        self.state = UNUSED
        self.counted = False
        self.known = False
        """True once the client has made a request that needs a key."""
        self.peer = _Peer("")
        self.transport: asyncio.Transport | None = None
        self.unread = 0
        """Bytes of replies that waited at the last check."""
        self.progress = 0
        """Bytes of replies that the client has read since the time ``since``. A lower bound: the system has buffers."""
        self.since = 0.0
        self.handler = handler
        self._guard = guard

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Add the connection to the count; one without a free place is closed at once."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self._guard.admit(self):
            self.receive_at_once(NO_KEY_BYTES)
            self.begin()
        else:
            self.transport = None
            transport.abort()

    def begin(self) -> None:
        """The connection has its place: let the handler begin."""
        assert self.transport is not None
        self.handler.connection_made(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection from the count."""
        if self.transport is not None:
            self.transport = None
            self._guard.remove(self)
            self.handler.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass on received bytes of a request."""
        if self.state != BUSY and self.state != HALF and not self.known:
            self.move(HALF)
        if self.transport is not None:
            self.handler.data_received(data)

    def eof_received(self) -> None:
        """The client has closed its sending side."""
        if self.transport is not None:
            self.handler.eof_received()

    def pause_writing(self) -> None:
        """The client reads more slowly than the server writes."""
        self.handler.pause_writing()

    def resume_writing(self) -> None:
        """The client has read most of what waited."""
        self.progress += RESUMED_BYTES
        self.handler.resume_writing()

    def waiting(self) -> int:
        """Bytes of replies that the client has not taken yet."""
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    def receive_at_once(self, nbytes: int) -> None:
        """Receive at most ``nbytes`` per call; asyncio's selector transports have this attribute."""
        transport: Any = self.transport
        if hasattr(transport, "max_size"):
            transport.max_size = nbytes

    def move(self, state: int) -> None:
        """Change the state; the connection becomes the newest one in it."""
        self.peer.by_state[self.state].pop(self, None)
        self.state = state
        if self.counted:
            self.peer.by_state[state][self] = None


class _Peer:
    """The connections of one address, by state and in the order in which they got it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.by_state: tuple[dict[Connection, None], ...] = ({}, {}, {}, {}, {})

    def __len__(self) -> int:
        return sum(map(len, self.by_state))

    def replaceable(self) -> Connection | None:
        """The connection to close for a new one; None if all are in a request."""
        half, unused, idle, known, _ = self.by_state
        for candidates in (half, islice(unused, KEPT_UNUSED, None), idle, unused, known):
            found: Connection | None = next(iter(candidates), None)
            if found is not None:
                return found
        return None


HandlerFactory: TypeAlias = Callable[[], web.RequestHandler]
ConnectionFactory: TypeAlias = "Callable[[ConnectionGuard, web.RequestHandler], Connection]"


class ConnectionGuard:
    """The protocol factory of a listening socket: at most ``total`` connections, ``per_address`` of one address.

    A client that has not read ``min_rate`` bytes/s of its waiting reply within ``window_s`` is cut off.
    """

    def __init__(self, total: int, per_address: int, min_rate: float, window_s: float) -> None:
        self._factory: HandlerFactory | None = None
        self._make: ConnectionFactory = Connection
        self._empty = asyncio.Event()
        self._total = total
        self._per_address = min(per_address, total)
        self._min_rate = min_rate
        self._window_s = window_s
        self._peers: dict[str, _Peer] = {}
        self._by_handler: dict[Any, Connection] = {}
        self._logged_at = -1e9
        self._limiter = LoopRateLimiter()

    def serve(self, factory: HandlerFactory, make: ConnectionFactory = Connection) -> None:
        """Make the handler of each connection with ``factory``, and the connection itself with ``make``."""
        self._factory, self._make = factory, make

    def __call__(self) -> Connection:
        """The protocol of a new connection."""
        assert self._factory is not None
        return self._make(self, self._factory())

    def __len__(self) -> int:
        return len(self._by_handler)

    def admit(self, connection: Connection) -> bool:
        """Count a new connection, if necessary in place of another one; False if there is no place."""
        assert connection.transport is not None
        address = address_of(connection.transport.get_extra_info("peername"))
        peer = self._peers.get(address) or _Peer(address)
        if len(peer) >= self._per_address:
            self._note(f"{address} has {len(peer)} connections")
            if not self._close(peer.replaceable()):
                return False
        elif len(self) >= self._total:
            self._note(f"there are {len(self)} connections")
            if not self._close(max(self._peers.values(), key=len).replaceable()):
                return False
        connection.peer, connection.counted = self._peers.setdefault(address, peer), True
        connection.move(UNUSED)
        self._by_handler[connection.handler] = connection
        return True

    def remove(self, connection: Connection) -> None:
        """Do not count a connection any more, which has ended. A second call has no effect."""
        if not connection.counted:
            return
        peer, connection.counted = connection.peer, False
        peer.by_state[connection.state].pop(connection, None)
        self._by_handler.pop(connection.handler, None)
        if not len(peer):
            self._peers.pop(peer.address, None)
        if not self._by_handler:
            self._empty.set()

    async def wait_until_empty(self) -> None:
        """Return once there is no connection."""
        while self._by_handler:
            self._empty.clear()
            await self._empty.wait()

    async def abort_all(self) -> None:
        """Close all connections at once; returns when they are."""
        for connection in tuple(self._by_handler.values()):
            if connection.transport is not None:
                connection.transport.abort()
        await self.wait_until_empty()

    def _close(self, connection: Connection | None) -> bool:
        if connection is None or connection.transport is None:
            return False
        connection.transport.abort()  # connection_lost follows in the next iteration of the loop
        self.remove(connection)
        return True

    def _note(self, what: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._logged_at >= 60.0:
            self._logged_at = now
            log.warning("%s, the limit: idle ones are closed, or new ones refused", what)

    def note_requests(self) -> Any:
        """A middleware, the outermost one, that keeps the state of a request's connection.

        Requests on connections that have not shown a key yet wait for the rate limiter. Uploads do not, because a
        signed URL is as good as a key; their handler lets an upload with a wrong signature wait by :meth:`pace`. A PUT
        that needs a key, or of an unknown path, is not an upload.

        A request that has not shown a key, such as a login, does not protect its connection: the server may let it
        wait, for its body or after a wrong key.
        """

        @web.middleware
        async def noted(request: web.Request, handler: Handler) -> web.StreamResponse:
            connection = self._by_handler.get(request.protocol)
            if connection is None:
                return await handler(request)
            try:
                if not connection.known and not _is_upload(request):
                    connection.move(IDLE)
                    await self._limiter.wait()
                    connection.move(HALF)
                reply = await handler(request)
                connection.known = connection.known or (connection.state == BUSY and reply.status < 400)
                return reply
            finally:
                connection.move(KNOWN if connection.known else IDLE)

        return noted

    async def pace(self) -> None:
        """Wait for the rate limiter: for the refusal of a request that did not wait before."""
        await self._limiter.wait()

    def note_allowed(self) -> Any:
        """A middleware, after the check of keys: from now on the connection is not closed for another one."""

        @web.middleware
        async def allowed(request: web.Request, handler: Handler) -> web.StreamResponse:
            connection = self._by_handler.get(request.protocol)
            # The URL of an upload is its key; a wrong one is answered at once.
            if connection is not None and (_needs_key(request) or _is_upload(request)):
                connection.move(BUSY)
                connection.receive_at_once(CLIENT_BYTES)
            return await handler(request)

        return allowed

    async def watch(self) -> None:
        """Cut off clients that do not read, for as long as the server runs."""
        while True:
            await asyncio.sleep(min(CHECK_PERIOD_S, self._window_s / 2))
            self.cut_off(asyncio.get_running_loop().time())

    def cut_off(self, now: float) -> None:
        """Check once all replies that wait to be read; ``now`` is the loop's time in s."""
        for connection in self._stuck(now):
            assert connection.transport is not None
            log.info("a client at %s does not read its reply and is cut off", connection.peer.address)
            connection.transport.abort()

    def _stuck(self, now: float) -> Iterator[Connection]:
        for connection in tuple(self._by_handler.values()):
            if connection.transport is None:
                continue
            unread = connection.waiting()
            connection.progress += max(0, connection.unread - unread)
            if not connection.unread or not unread:
                connection.progress, connection.since = 0, now
            elif now - connection.since >= self._window_s:
                if connection.progress < self._min_rate * (now - connection.since):
                    yield connection
                connection.progress, connection.since = 0, now
            connection.unread = unread


def _needs_key(request: web.Request) -> bool:
    """True for a request that the check of keys refuses without a key; one of an unknown path is among them."""
    return required_access(request.match_info.handler).right is not Right.NONE


def _is_upload(request: web.Request) -> bool:
    """True for a request whose URL is its key."""
    return request.method == "PUT" and not _needs_key(request)


GUARD: Final = web.AppKey("connection_guard", ConnectionGuard)


def address_of(peername: Any) -> str:
    """The address under which a connection is counted: of IPv6 the first 64 bits, because one client may use all
    addresses below.
    """
    try:
        address = ipaddress.ip_address(str(peername[0]).partition("%")[0])
    except (ValueError, TypeError, IndexError):
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False).network_address)
    return str(address)
