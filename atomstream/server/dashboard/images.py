"""Pictures to browsers: a WebSocket on which each picture is asked for, and single ones of any moment."""

from __future__ import annotations

import asyncio
import logging
import math
import struct
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, cast

import msgspec
import numpy as np
import numpy.typing as npt
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from atomstream.errors import ShardError
from atomstream.records import Frames
from atomstream.server.archive.downsampling import F64
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.context import context_of
from atomstream.server.dashboard.series import READER, number
from atomstream.server.http.responses import HttpError

# One frame as a picture for a screen: 8 bit, at most 640 px wide, read from where it is stored.
#
# Pictures are not tapped from ingest: a stored frame is decoded once more (1-2 ms, out of the page cache) only
# while somebody looks, at most ten times a second; so ingest never knows whether it is watched.

MAX_WIDTH = 640

MAX_HEIGHT = 1280

HEADER = struct.Struct("<d6I")
"""time (s, NaN where unknown), frame, width, height, the frame's own width and height, full scale."""

_BITS = (8, 10, 12, 14, 16)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A frame made small: ``pixels`` (h, w) uint8, of which 255 stands for the camera's full scale ``level``."""

    frame: int
    time_s: float
    pixels: npt.NDArray[np.uint8]
    full_size: tuple[int, int]
    level: int

    def to_bytes(self) -> bytes:
        """:data:`HEADER`, then the rows."""
        (height, width), (full_height, full_width) = self.pixels.shape, self.full_size
        head = HEADER.pack(self.time_s, self.frame, width, height, full_width, full_height, self.level)
        return head + self.pixels.tobytes()


def make_picture(frame: int, time_s: float, raw: Frames, level: int = 0) -> Picture:
    """The picture of ``raw`` (H, W) uint8 or uint16; ``level`` is the full scale found so far (0: none)."""
    step = max(-(-raw.shape[1] // MAX_WIDTH), -(-raw.shape[0] // MAX_HEIGHT))
    level = max(level, full_scale(raw))
    small = binned(raw, step)
    if level != 255:
        small = np.minimum(small.astype(np.float32) * (255.0 / level), 255.0)
    pixels = np.ascontiguousarray(small, dtype=np.uint8)
    return Picture(frame, time_s, pixels, (raw.shape[0], raw.shape[1]), level)


def binned(raw: Frames, step: int) -> Frames:
    """Means of ``step`` x ``step`` pixels (or of the whole frame); rows and columns left over are dropped."""
    if step == 1:
        return raw
    down, across = min(step, raw.shape[0]), min(step, raw.shape[1])
    height, width = raw.shape[0] // down, raw.shape[1] // across
    total = np.zeros((height, width), dtype=np.uint32)
    for y in range(down):
        for x in range(across):
            total += raw[y::down, x::across][:height, :width]
    mean = (total // (down * across)).astype(raw.dtype)
    return cast("Frames", mean)


def full_scale(raw: Frames) -> int:
    """The full scale of a camera that shows such values: 255, or for uint16 the next of 8 to 16 bits."""
    if raw.dtype == np.uint8:
        return 255
    top = int(raw.max(initial=0))
    return next((1 << bits) - 1 for bits in _BITS if top < 1 << bits)


# Which frame to show next: the newest, but a chunk of two seconds is played, not jumped over.

PICTURE_S = 0.1
"""Ten pictures a second are a film to the eye; more would only cost."""


@dataclass(slots=True)
class PlaybackClock:
    """Goes along a stream at its own pace, behind its growing end by as much as one chunk.

    Where the end is further ahead (a backlog that came in at once), it jumps after it.
    """

    fps: float
    chunk_size: int
    place: float = -1.0
    asked_at: float = 0.0

    def next(self, now_s: float, n_frames: int) -> int:
        """The frame to show at ``now_s`` (monotonic) of ``n_frames`` stored ones; -1 where there is none."""
        newest = n_frames - 1.0
        if self.place < 0 or newest < 0:
            self.place = newest
        else:
            self.place = min(newest, self.place + self.fps * (now_s - self.asked_at))
        if newest - self.place > max(1.5 * self.chunk_size, 0.5 * self.fps):
            self.place = max(0.0, newest - self.chunk_size)
        self.asked_at = now_s
        return int(self.place)


def frame_at_azimuth(upto: int, angle_deg: float, angles_deg: F64, frames_per_turn: float) -> int:
    """The last frame, not after ``upto``, that shows the azimuth ``angle_deg``: the picture stands still.

    ``angles_deg`` (n,) are the measured azimuths of the n frames up to and with ``upto``; where they do not
    cover a turn, the azimuth is nominal: frame 0 is at 0 degrees, and a turn takes ``frames_per_turn``.
    """
    recent = angles_deg[-math.ceil(frames_per_turn) :] if frames_per_turn >= 1 else angles_deg[-1:]
    if len(recent) >= frames_per_turn and np.isfinite(recent).all():
        off = np.abs((recent - angle_deg + 180.0) % 360.0 - 180.0)
        return int(upto - len(recent) + 1 + int(np.argmin(off)))
    phase = angle_deg / 360.0 % 1.0
    turns = math.floor(upto / frames_per_turn - phase)
    return max(0, min(upto, round((turns + phase) * frames_per_turn)))


# The WebSockets of the dashboard: small messages in, and all of them closed when the server stops.


class OpenSockets:
    """Those that are open now."""

    def __init__(self) -> None:
        self.all: weakref.WeakSet[web.WebSocketResponse] = weakref.WeakSet()


SOCKETS = web.AppKey("dashboard_sockets", OpenSockets)

MAX_MESSAGE = 4096

HEARTBEAT_S = 20.0


@asynccontextmanager
async def open_socket(request: web.Request) -> AsyncIterator[web.WebSocketResponse]:
    """A WebSocket for as long as the block lasts."""
    # Not compressed: pixels hardly shrink, and it would cost the ingest's cores.
    socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=MAX_MESSAGE, compress=False)
    await socket.prepare(request)
    request.app[SOCKETS].all.add(socket)
    try:
        yield socket
    finally:
        await socket.close()


async def close_sockets(app: web.Application) -> None:
    """Say good-bye to all browsers: the server stops, and they may come back."""
    for socket in tuple(app[SOCKETS].all):
        await socket.close(code=WSCloseCode.GOING_AWAY, message=b"the server stops")


log = logging.getLogger("atomstream.server")

IDLE_S = 0.25
"""How often a stream at rest is looked at for new frames."""


class ImageRequest(msgspec.Struct, frozen=True):
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
        self._player: PlaybackClock | None = None

    def next(self, shown: int, angle_deg: float | None) -> Picture | None:
        """The picture to show now; None where that is the frame ``shown``, or there is none."""
        geometry_chunk = self._chunk_size()
        if geometry_chunk is None:
            return None
        if self._player is None:
            self._player = PlaybackClock(self._fps, geometry_chunk)
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
    streams, data_id = context_of(request).streams, request.match_info["data_id"]
    return PictureSource(await streams.archive(data_id), await streams.about(data_id), request.app)


async def single_picture(request: web.Request) -> web.Response:
    """``GET /dashboard/streams/{id}/picture?time=S``: the frame next to that moment, as :class:`Picture` bytes."""
    at = number(request.query, "time", math.inf, 0.0, math.inf)
    source = await source_of(request)
    picture = await asyncio.to_thread(lambda: source.picture(source.frame_at(min(at, 1e12))))
    if picture is None:
        raise HttpError(404, "This stream has no frames yet.")
    return web.Response(
        body=picture.to_bytes(),
        content_type="application/octet-stream",
        headers={"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"},
    )


async def live_pictures(request: web.Request) -> web.StreamResponse:
    """``GET /dashboard/streams/{id}/pictures`` (WebSocket): each :class:`ImageRequest` gets one picture.

    A browser asks for the next one when it has drawn the last: a slow one gets fewer, and none piles up. Another
    question takes the place of one that is not answered yet.
    """
    source = await source_of(request)
    async with open_socket(request) as socket:
        watcher, answer = ImageSubscriber(socket, source), None
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


def _question(message: WSMessage) -> ImageRequest | None:
    if message.type is not WSMsgType.TEXT:
        return None
    try:
        return msgspec.json.decode(message.data, type=ImageRequest)
    except (msgspec.MsgspecError, RecursionError):
        return None


async def _leave(answer: asyncio.Task[None] | None) -> None:
    if answer is not None:
        answer.cancel()
        await asyncio.wait([answer])


class ImageSubscriber:
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
