"""Connections with TLS, which count towards the limit of connections from the moment they are accepted.

If asyncio did the handshake itself, it would call the protocol only afterwards. Connections that never complete the
handshake would then not be counted, and a client without a key could open any number of them. So a
:class:`TlsConnection` is counted first and starts TLS then. Its handshake counts as an incomplete request.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from atomstream.server.http.connections import HALF, NO_KEY_BYTES, UNUSED, Connection, address_of
from atomstream.server.http.tally import Tally
from atomstream.system.log_privacy import get_logger

if TYPE_CHECKING:
    from atomstream.server.http.certificate import ServerCertificate
    from atomstream.server.http.connections import ConnectionGuard

log = get_logger("atomstream.server")

HANDSHAKE_S: Final = 10.0
"""Longest handshake."""
CLOSE_S: Final = 2.0
"""Time in which clients can take part in closing TLS when the server stops."""


class TlsConnections:
    """Makes the connections of one server with TLS. Close it after the application."""

    def __init__(self, certificate: ServerCertificate) -> None:
        self.certificate = certificate
        self._handshakes: set[asyncio.Task[None]] = set()
        self._failures = Tally(log.warning, "a TLS handshake failed", "TLS handshakes failed")

    def __call__(self, guard: ConnectionGuard, handler: web.RequestHandler) -> TlsConnection:
        """A new connection, for :meth:`ConnectionGuard.serve`."""
        return TlsConnection(guard, handler, self)

    def start(self, connection: TlsConnection) -> None:
        """Begin the handshake of a connection."""
        task = asyncio.create_task(connection.shake_hands(), name="atomstream TLS handshake")
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    def note_failure(self, address: str, error: OSError) -> None:
        """Log a failed handshake: one line for many."""
        reason = getattr(error, "reason", None)
        if reason == "HTTP_REQUEST":
            about = " (the client speaks plain HTTP: its URL must begin with https://)"
        elif reason:
            about = f" ({str(reason).lower().replace('_', ' ')})"
        else:
            about = " (the client ended it, or took too long)"
        self._failures.note(address, about)

    async def close(self, guard: ConnectionGuard) -> None:
        """End all handshakes, and close what has not closed by itself within ``CLOSE_S``."""
        for task in tuple(self._handshakes):
            task.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await guard.wait_until_empty()
        await guard.abort_all()
        self._failures.close()


class TlsConnection(Connection):
    """A connection that begins with a TLS handshake.

    ``transport`` is the one below TLS during the handshake, then that of TLS.
    """

    def __init__(
        self, guard: ConnectionGuard, handler: web.RequestHandler, connections: TlsConnections
    ) -> None:
        super().__init__(guard, handler)
        self._connections = connections
        self._wire: asyncio.Transport | None = None
        self._ready = False
        self._early: list[bytes] = []
        """Bytes that arrived together with the end of the handshake."""
        self._early_end = False

    def begin(self) -> None:
        """Start TLS instead of a request."""
        assert self.transport is not None
        self._wire = self.transport
        self._wire.pause_reading()  # TLS resumes reading
        self.move(HALF)
        self._connections.start(self)

    async def shake_hands(self) -> None:
        """Do the handshake, then let the handler begin."""
        wire = self._wire
        assert wire is not None
        address = address_of(wire.get_extra_info("peername"))
        tls: asyncio.Transport | None = None
        # start_tls makes the protocol at once, and then waits.
        asyncio.get_running_loop().call_soon(self.receive_at_once, NO_KEY_BYTES)
        try:
            if not wire.is_closing():
                tls = await asyncio.get_running_loop().start_tls(
                    wire,
                    self,
                    self._connections.certificate.context,
                    server_side=True,
                    ssl_handshake_timeout=HANDSHAKE_S,
                )
        except OSError as error:  # ssl.SSLError and TimeoutError are subclasses
            if self.counted:  # False if it was closed to make room for another one
                self._connections.note_failure(address, error)
        finally:
            if tls is None or self.transport is None:
                self._fail(wire)
        if tls is not None and self.transport is not None:
            self._start(tls)

    def _fail(self, wire: asyncio.Transport) -> None:
        wire.abort()
        if self.transport is not None:
            self.transport = None
            self._guard.remove(self)

    def _start(self, tls: asyncio.Transport) -> None:
        self.transport = tls
        self._ready = True
        self.move(UNUSED)
        self.handler.connection_made(tls)
        early, self._early = self._early, []
        for data in early:
            self.data_received(data)
        if self._early_end:
            self.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the count; the handler counts a connection itself after its handshake."""
        if self._ready:
            super().connection_lost(exc)
        elif self.transport is not None:
            self.transport = None
            self._guard.remove(self)

    def data_received(self, data: bytes) -> None:
        """Decrypted bytes of a request."""
        if self._ready:
            super().data_received(data)
        else:
            self._early.append(data)

    def eof_received(self) -> None:
        """The client sends nothing more."""
        if self._ready:
            super().eof_received()
        else:
            self._early_end = True

    def receive_at_once(self, nbytes: int) -> None:
        """Receive at most ``nbytes`` per call.

        asyncio allocates 256 KiB for each connection with TLS. Hundreds of clients without a key must not take that
        much.
        """
        protocol: Any = None if self._wire is None else self._wire.get_protocol()
        if hasattr(protocol, "_ssl_buffer"):
            protocol.max_size = nbytes
            if len(protocol._ssl_buffer) > nbytes:
                protocol._ssl_buffer = bytearray(nbytes)
                protocol._ssl_buffer_view = memoryview(protocol._ssl_buffer)

    def waiting(self) -> int:
        """Bytes of replies that wait, above and below TLS."""
        below = 0 if self._wire is None else self._wire.get_write_buffer_size()
        return super().waiting() + (below if self._ready else 0)
