"""``GET /rheed/stream/{data_id}/feed``: a WebSocket that sends results as soon as they are computed.

A subscriber has only a position in the stream's numbered records. A slow one uses no memory in the server: it falls
behind, and records are skipped for it when it is too far behind.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from aiohttp import WSMsgType, web

from atomstream.protocol import (
    ANNOUNCED,
    ANNOUNCEMENT,
    FEED_PATH,
    HEARTBEAT_S,
    JSON_SUBPROTOCOL,
    MSGPACK_SUBPROTOCOL,
)
from atomstream.server.context import context_of, results_of
from atomstream.server.http.access import access
from atomstream.server.http.memory_budget import MEMORY, MemoryBudget
from atomstream.server.http.open_sockets import SOCKETS
from atomstream.server.http.requests import number
from atomstream.server.live.feed import encode
from atomstream.server.live.messages import (
    EndMessage,
    FeedMessage,
    HeartbeatMessage,
    LostMessage,
    MissingMessage,
    ProgressMessage,
)
from atomstream.server.live.stored_results import StoredResults
from atomstream.server.people.rights import Right

routes = web.RouteTableDef()

PROTOCOLS: Final = {MSGPACK_SUBPROTOCOL: "msgpack", JSON_SUBPROTOCOL: "json"}
PING_S: Final = 20.0
ENDED, STOPPING = 1000, 1001


class FeedSubscriber:
    """One subscriber of a stream's feed."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        results: StoredResults,
        columns: frozenset[str] | None,
        behind: int,
        memory: MemoryBudget,
    ) -> None:
        self._socket = socket
        self._memory = memory
        self._expected = 0
        self._results = results
        self._columns = columns
        self._kind = PROTOCOLS.get(socket.ws_protocol or "", "msgpack")
        self._behind = behind
        self._progress: float | None = None
        self._missing = MissingMessage(reanalysis=False, missing=[])

    async def run(self, after: int) -> int:
        """Send the records after ``after`` and all new ones. Returns the WebSocket close code.

        A negative ``after`` counts from the newest record.
        """
        results, position = self._results, min(after, self._results.seq)
        if after < 0:
            position = max(0, results.seq + after)
        allowed = results.seq - position + self._behind
        await self._send(results.hello())
        while not results.closed:
            changed = results.changed
            lag = results.seq - position
            # A subscriber that resumes far back may be that far behind; the limit falls as it catches up.
            allowed = max(self._behind, min(allowed, lag + self._behind))
            if lag > allowed:
                position = await self._skip(position, lag - self._behind)
            elif lag:
                position += 1
                await self._send_record(position)
            elif results.is_over:
                await self._send_missing()
                return await self._send_end()
            else:
                await self._wait(changed)
        return STOPPING

    async def _skip(self, position: int, count: int) -> int:
        await self._send(LostMessage(count=count, first=position + 1, last=position + count))
        return position + count

    async def _send_record(self, seq: int) -> None:
        # Counted before it is read: a reader that does not read keeps its message in memory until it is cut off.
        async with self._memory.room(self._expected):
            message = await self._results.message(seq, self._columns)
            if not isinstance(message.record, EndMessage):
                body = message.encoded(self._kind, self._columns)
                self._expected = max(self._expected, 2 * len(body))
                await self._send_bytes(body)

    async def _send_end(self) -> int:
        # Not at the position of its record: a later analysis may have added more records.
        await self._send(EndMessage(seq=self._results.seq))
        return ENDED

    async def _wait(self, changed: asyncio.Event) -> None:
        progress = self._results.progress
        if progress != self._progress:
            self._progress = progress
            await self._send(ProgressMessage(fraction=progress))
            return
        if await self._send_missing():
            return
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await changed.wait()
        except TimeoutError:
            await self._send(HeartbeatMessage(seq=self._results.seq, unix_ms=1000.0 * time.time()))

    async def _send_missing(self) -> bool:
        """Send which stored chunks are missing in the results, if that has changed."""
        report = self._results.missing_report()
        if report == self._missing:
            return False
        self._missing = report
        await self._send(report)
        return True

    async def _send(self, message: FeedMessage) -> None:
        await self._send_bytes(encode(self._kind, message))

    async def _send_bytes(self, body: bytes) -> None:
        if self._kind == "json":
            await self._socket.send_str(body.decode())
        else:
            await self._socket.send_bytes(body)


@routes.get(FEED_PATH, allow_head=False)
@access(Right.READ)
async def feed(request: web.Request) -> web.WebSocketResponse:
    """The handler of the path above. An unknown stream is refused with 404 before the handshake."""
    results = await results_of(request)
    after = number(request.query.get("after"), "after", -1, 1 << 53) or 0
    names = request.query.get("columns", "")
    columns = frozenset(filter(None, names.split(","))) if names and names != "all" else None
    if columns is not None and columns != {"none"}:
        columns |= {"time_seconds"}
    # Not compressed: a compressor takes 256 KiB for each reader, and numbers hardly shrink.
    socket = web.WebSocketResponse(
        protocols=tuple(PROTOCOLS), heartbeat=PING_S, max_msg_size=1 << 16, compress=False
    )
    socket.headers[ANNOUNCEMENT] = ANNOUNCED
    await socket.prepare(request)
    results.followers += 1
    behind = context_of(request).settings.feed_behind
    subscriber = FeedSubscriber(socket, results, columns, behind, request.app[MEMORY])
    try:
        with request.app[SOCKETS].hold(request, socket):
            await _serve(socket, subscriber, int(after))
    finally:
        results.followers -= 1
    return socket


async def _serve(socket: web.WebSocketResponse, subscriber: FeedSubscriber, after: int) -> None:
    """Send until the end or until the client closes. Messages of the client are read and ignored."""
    sending = asyncio.create_task(subscriber.run(after))
    receiving = asyncio.create_task(_until_closed(socket))
    try:
        await asyncio.wait([sending, receiving], return_when=asyncio.FIRST_COMPLETED)
    finally:
        receiving.cancel()
        sending.cancel()
        await asyncio.wait([sending, receiving])
    code = STOPPING
    if not sending.cancelled() and sending.exception() is None:
        code = sending.result()
    elif not sending.cancelled() and not isinstance(sending.exception(), ConnectionError):
        sending.result()
    await socket.close(code=code)


async def _until_closed(socket: web.WebSocketResponse) -> None:
    while True:
        message = await socket.receive()
        if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
            return
