"""The two WebSockets of the page: the state of the recorder, and the live picture."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any, Final

from aiohttp import WSMsgType, web

from atomstream.record.picture import encoded, exposure
from atomstream.record.snapshot import snapshot
from atomstream.record.web.actions import RECORDER

STATE_S: Final = 0.25
"""Interval, in s, at which the state is sent while it does not change."""

PICTURE_S: Final = 0.02
"""Interval, in s, of the checks for a newer frame."""

MAX_MESSAGE: Final = 1024


class OpenSockets:
    """The WebSockets that are open, so that the end of the recorder can close them."""

    def __init__(self) -> None:
        self._open: set[Any] = set()

    def add(self, socket: Any) -> None:
        """Add an open WebSocket."""
        self._open.add(socket)

    def discard(self, socket: Any) -> None:
        """Remove a closed WebSocket."""
        self._open.discard(socket)

    async def close(self) -> None:
        """Close all."""
        for socket in list(self._open):
            await socket.close(code=1001)


SOCKETS: Final = web.AppKey("sockets", OpenSockets)

routes = web.RouteTableDef()


@routes.get("/record/state")
async def state_feed(request: web.Request) -> web.StreamResponse:
    """``GET /record/state`` (WebSocket): the state as JSON, at once when it changes, else four times a second."""
    socket, recorder = await _open(request), request.app[RECORDER]
    reading = asyncio.create_task(_read_to_end(socket))
    try:
        while not socket.closed and not reading.done():
            values = await snapshot(recorder)
            capture = recorder.capture
            newest = None if capture is None else capture.newest
            if capture is not None and newest is not None:
                values["exposure"] = await asyncio.to_thread(exposure, newest, capture.white_of(newest))
            await socket.send_str(json.dumps(values))
            with suppress(TimeoutError):
                async with asyncio.timeout(STATE_S), recorder.changed:
                    await recorder.changed.wait()
    except ConnectionError:
        pass
    finally:
        reading.cancel()
        request.app[SOCKETS].discard(socket)
    return socket


@routes.get("/record/pictures")
async def pictures(request: web.Request) -> web.StreamResponse:
    """``GET /record/pictures`` (WebSocket): each message is answered by the newest frame, as soon as there is one."""
    socket, recorder = await _open(request), request.app[RECORDER]
    shown: Any = None
    try:
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            while True:
                capture = recorder.capture
                newest = None if capture is None else capture.newest
                if capture is not None and newest is not None and newest is not shown:
                    break
                await asyncio.sleep(PICTURE_S)
                if socket.closed:
                    return socket
            shown = newest
            await socket.send_bytes(await asyncio.to_thread(encoded, newest, capture.white_of(newest)))
    except ConnectionError:
        pass
    finally:
        request.app[SOCKETS].discard(socket)
    return socket


async def _open(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE, heartbeat=20.0)
    await socket.prepare(request)
    request.app[SOCKETS].add(socket)
    return socket


async def _read_to_end(socket: web.WebSocketResponse) -> None:
    async for _ in socket:
        pass
