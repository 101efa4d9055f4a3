"""Pictures to browsers: a WebSocket on which each picture is asked for, and single ones of any moment."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress
from typing import Annotated, Any

import msgspec
import numpy as np
from aiohttp import WSMsgType, web

from atomstream.errors import ShardError
from atomstream.server.archive import StreamArchive
from atomstream.server.dashboard.pictures import Picture, make_picture
from atomstream.server.dashboard.player import PICTURE_S, Player, frame_at_azimuth
from atomstream.server.dashboard.series import READER, number
from atomstream.server.dashboard.sockets import open_socket
from atomstream.server.house import house_of
from atomstream.server.replies import RefusedError

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

    A browser asks for the next one when it has drawn the last: a slow one gets fewer, and none piles up.
    """
    source = await source_of(request)
    async with open_socket(request) as socket:
        shown = -1
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            shown = await _answer(socket, source, message.data, shown)
    return socket


async def _answer(socket: web.WebSocketResponse, source: PictureSource, text: str, shown: int) -> int:
    try:
        angle_deg = msgspec.json.decode(text, type=Ask).angle_deg
    except (msgspec.MsgspecError, RecursionError):
        await socket.close(code=1008, message=b"not understood")
        return shown
    while not socket.closed:
        began = time.monotonic()
        picture = None
        # Of a shard that can't be read the log tells; the picture stays as it is.
        with suppress(ShardError, OSError):
            picture = await asyncio.to_thread(source.next, shown, angle_deg)
        if picture is not None:
            await socket.send_bytes(picture.to_bytes())
            await asyncio.sleep(PICTURE_S - min(PICTURE_S, time.monotonic() - began))
            return picture.frame
        await asyncio.sleep(IDLE_S)
    return shown
