"""``GET /rheed/stream/{data_id}/feed``: a WebSocket on which results come as they are made.

A reader has a place in the stream's numbered records and nothing else of its own: one that is slow holds no memory
here, it only falls behind, and is moved on when it is too far.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from aiohttp import WSMsgType, web

from atomstream.protocol import FEED_PATH
from atomstream.server.context import context_of, results_of
from atomstream.server.http.access import Access, access
from atomstream.server.http.requests import number
from atomstream.server.live.feed import encode
from atomstream.server.live.stream_results import StreamResults
from atomstream.server.routes.analysis import missing_chunks

routes = web.RouteTableDef()

PROTOCOLS: Final = {"atomstream.msgpack": "msgpack", "atomstream.json": "json"}
HEARTBEAT_S: Final = 5.0
PING_S: Final = 20.0
ENDED, STOPPING = 1000, 1001


class FeedSubscriber:
    """One reader of one stream's feed, from the record after ``after`` on."""

    def __init__(
        self, socket: web.WebSocketResponse, desk: StreamResults, columns: frozenset[str] | None, behind: int
    ) -> None:
        self._socket = socket
        self._desk = desk
        self._columns = columns
        self._kind = PROTOCOLS.get(socket.ws_protocol or "", "msgpack")
        self._behind = behind
        self._progress: float | None = None
        self._standing: dict[str, Any] = {"reanalysis": False, "missing": []}

    async def run(self, after: int) -> int:
        """Send what there is and what comes; returns the code to close with."""
        desk, place = self._desk, min(after, self._desk.feed.seq)
        if after < 0:
            place = max(0, desk.feed.seq + after)
        allowed = desk.feed.seq - place + self._behind
        await self._send(self._hello())
        while not desk.feed.closed:
            bell = desk.feed.bell
            lag = desk.feed.seq - place
            # Whoever resumes from far back may be as far behind as that, and less so as it catches up.
            allowed = max(self._behind, min(allowed, lag + self._behind))
            if lag > allowed:
                place = await self._move_on(place, lag - self._behind)
            elif lag:
                place += 1
                await self._send_record(place)
            elif desk.is_over:
                await self._send_missing()
                return await self._say_end()
            else:
                await self._wait(bell)
        return STOPPING

    def _hello(self) -> dict[str, Any]:
        desk, geometry = self._desk, self._desk.archive.geometry
        return {
            "type": "hello",
            "data_id": desk.about.data_id,
            "seq": desk.feed.seq,
            "status": desk.status,
            "origin_unix_ms": desk.archive.origin_unix_ms,
            "fps": desk.about.fps,
            "rpm": desk.about.rotations_per_min,
            "chunk_size": geometry.chunk_size if geometry else None,
        }

    async def _move_on(self, place: int, count: int) -> int:
        await self._send({"type": "lost", "count": count, "first": place + 1, "last": place + count})
        return place + count

    async def _send_record(self, seq: int) -> None:
        message = await self._desk.message(seq, self._columns)
        if message.plain["type"] != "end":
            await self._send_bytes(message.encoded(self._kind, self._columns))

    async def _say_end(self) -> int:
        # Not where its record stands: an analysis may have been made again since, and then more comes.
        await self._send({"type": "end", "seq": self._desk.feed.seq})
        return ENDED

    async def _wait(self, bell: asyncio.Event) -> None:
        progress = self._desk.feed.progress
        if progress != self._progress:
            self._progress = progress
            await self._send({"type": "progress", "fraction": progress})
            return
        if await self._send_missing():
            return
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await bell.wait()
        except TimeoutError:
            await self._send(
                {"type": "heartbeat", "seq": self._desk.feed.seq, "unix_ms": 1000.0 * time.time()}
            )

    async def _send_missing(self) -> bool:
        """Send which stored chunks are missing in the results, if that has changed."""
        standing = {"reanalysis": self._desk.reanalysis_pending, "missing": missing_chunks(self._desk)}
        if standing == self._standing:
            return False
        self._standing = standing
        await self._send({"type": "missing", **standing})
        return True

    async def _send(self, message: dict[str, Any]) -> None:
        await self._send_bytes(encode(self._kind, message))

    async def _send_bytes(self, body: bytes) -> None:
        if self._kind == "json":
            await self._socket.send_str(body.decode())
        else:
            await self._socket.send_bytes(body)


@routes.get(FEED_PATH)
@access(Access.BROWSER)
async def feed(request: web.Request) -> web.WebSocketResponse:
    """The handler; a stream that is not known is refused with 404 before the handshake."""
    desk = await results_of(request)
    after = number(request.query.get("after"), "after", -1, 1 << 53) or 0
    names = request.query.get("columns", "")
    columns = frozenset(filter(None, names.split(","))) if names and names != "all" else None
    if columns is not None and columns != {"none"}:
        columns |= {"time_seconds"}
    socket = web.WebSocketResponse(protocols=tuple(PROTOCOLS), heartbeat=PING_S, max_msg_size=1 << 16)
    socket.headers["Atomstream"] = "1"
    await socket.prepare(request)
    desk.readers += 1
    try:
        await _serve(
            socket,
            FeedSubscriber(socket, desk, columns, context_of(request).settings.feed_behind),
            int(after),
        )
    finally:
        desk.readers -= 1
    return socket


async def _serve(socket: web.WebSocketResponse, reader: FeedSubscriber, after: int) -> None:
    """Send until the end or until the other side goes, whose messages mean nothing here but are read."""
    sending = asyncio.create_task(reader.run(after))
    hearing = asyncio.create_task(_until_closed(socket))
    try:
        await asyncio.wait([sending, hearing], return_when=asyncio.FIRST_COMPLETED)
    finally:
        hearing.cancel()
        sending.cancel()
        await asyncio.wait([sending, hearing])
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
