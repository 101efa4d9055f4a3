"""Pictures to browsers: a WebSocket on which each picture is asked for, and single ones of any moment."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import suppress
from typing import Annotated, Any

import msgspec
import numpy as np
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from atomstream.errors import ShardError
from atomstream.server.archive import StreamArchive
from atomstream.server.dashboard.pictures import Picture, make_picture
from atomstream.server.dashboard.player import PICTURE_S, Player, frame_at_azimuth
from atomstream.server.dashboard.series import READER, number
from atomstream.server.dashboard.sockets import open_socket
from atomstream.server.house import house_of
from atomstream.server.replies import RefusedError

log = logging.getLogger("atomstream.server")
IDLE_S = 0.25
"""How often a stream at rest is looked at for new frames."""


class Ask(msgspec.Struct, frozen=True):
    """What a browser asks: the next picture, of the azimuth ``angle_deg`` where one is given."""

    angle_deg: Annotated[float, msgspec.Meta(ge=-360.0, le=360.0)] | None = None


class PictureSource:
    """Pictures of one stream for one browser. Its methods block."""

    def __init__(self, archive: StreamArchive, about: Any, app: web.Application) -> None:
        self._archive = archive
        self._rpm = about.rotations_per_min
        self._fps = about.fps
        self._columns = archive.folder / "frames.zarr"
        self._reader = app[READER]
        self._level = 0
        self._player: Player | None = None

    def next(self, shown: int, angle_deg: float | None) -> Picture | None:
        """The picture to show now; None where that is the frame ``shown``, or there is none."""
        geometry_chunk = self._chunk_size()
        if geometry_chunk is None:
            return None
        if self._player is None:
            self._player = Player(self._fps, geometry_chunk)
        frame = self._player.next(time.monotonic(), self._archive.n_frames())
        if angle_deg is not None and self._rpm > 0 and frame > 0:
            frame = self._aligned(frame, angle_deg)
        return None if frame in (shown, -1) else self.picture(frame)

    def picture(self, frame: int) -> Picture | None:
        """The picture of that frame; None where it is not stored."""
        frames = self._archive.frames(frame, frame + 1)
        if not frames.size:
            return None
        time_s = float(self._reader.values(self._columns / "time", frame, frame + 1)[0])
        made = make_picture(frame, time_s, frames[0], self._level)
        self._level = made.level
        return made

    def frame_at(self, time_s: float) -> int:
        """The stored frame next to that time."""
        last = self._archive.n_frames() - 1
        guess = min(max(0, round(time_s * self._fps)), last) if last >= 0 else 0
        reach = max(64, last // 50)
        first = max(0, guess - reach)
        times = self._reader.values(self._columns / "time", first, min(last + 1, guess + reach))
        return first + int(np.nanargmin(np.abs(times - time_s))) if np.isfinite(times).any() else guess

    def _aligned(self, upto: int, angle_deg: float) -> int:
        per_turn = 60.0 * self._fps / self._rpm
        first = max(0, upto + 1 - math.ceil(per_turn))
        angles = self._reader.values(self._columns / "azimuth_angle", first, upto + 1)
        return frame_at_azimuth(upto, angle_deg, angles, per_turn)

    def _chunk_size(self) -> int | None:
        geometry = self._archive.about.get("geometry")
        return int(geometry["chunk_size"]) if geometry else None


async def source_of(request: web.Request) -> PictureSource:
    """The pictures of the stream that the path names; raises RefusedError 404."""
    streams, data_id = house_of(request).streams, request.match_info["data_id"]
    return PictureSource(await streams.archive(data_id), await streams.about(data_id), request.app)


async def single_picture(request: web.Request) -> web.Response:
    """``GET /dashboard/streams/{id}/picture?time=S``: the frame next to that moment, as :class:`Picture` bytes."""
    at = number(request.query, "time", math.inf, 0.0, math.inf)
    source = await source_of(request)
    picture = await asyncio.to_thread(lambda: source.picture(source.frame_at(min(at, 1e12))))
    if picture is None:
        raise RefusedError(404, "This stream has no frames yet.")
    return web.Response(
        body=picture.to_bytes(),
        content_type="application/octet-stream",
        headers={"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"},
    )


async def live_pictures(request: web.Request) -> web.StreamResponse:
    """``GET /dashboard/streams/{id}/pictures`` (WebSocket): each text message :class:`Ask` is answered by one picture.

    A browser asks for the next one when it has drawn the last: a slow one gets fewer, and none piles up. Another
    question takes the place of one that is not answered yet.
    """
    source = await source_of(request)
    async with open_socket(request) as socket:
        watcher, answer = Watcher(socket, source), None
        try:
            async for message in socket:
                await _leave(answer)
                question = _question(message)
                if question is None:
                    await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"not understood")
                    break
                answer = asyncio.create_task(watcher.answer(question.angle_deg), name="dashboard picture")
        finally:
            await _leave(answer)
    return socket


def _question(message: WSMessage) -> Ask | None:
    if message.type is not WSMsgType.TEXT:
        return None
    try:
        return msgspec.json.decode(message.data, type=Ask)
    except (msgspec.MsgspecError, RecursionError):
        return None


async def _leave(answer: asyncio.Task[None] | None) -> None:
    if answer is not None:
        answer.cancel()
        await asyncio.wait([answer])


class Watcher:
    """One browser that watches one stream."""

    def __init__(self, socket: web.WebSocketResponse, source: PictureSource) -> None:
        self._socket = socket
        self._source = source
        self._shown = -1
        self._sent_at = -math.inf

    async def answer(self, angle_deg: float | None) -> None:
        """Send the next picture as soon as there is another one, and not before its time."""
        await asyncio.sleep(max(0.0, self._sent_at + PICTURE_S - time.monotonic()))
        # Asked again and again, for what is shown next moves with the time, not with what arrives alone.
        while (picture := await self._next(angle_deg)) is None:  # noqa: ASYNC110
            await asyncio.sleep(IDLE_S)
        self._shown, self._sent_at = picture.frame, time.monotonic()
        # A browser that left meanwhile is no error; its socket's end is seen where its messages are read.
        with suppress(ConnectionError):
            await self._socket.send_bytes(picture.to_bytes())

    async def _next(self, angle_deg: float | None) -> Picture | None:
        try:
            return await asyncio.to_thread(self._source.next, self._shown, angle_deg)
        except (ShardError, OSError) as error:
            # The picture stays as it is; verify and the log of the ingest tell more.
            log.warning("no picture of a stream: %s", error)
            return None
