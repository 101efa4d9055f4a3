"""Images for browsers: a WebSocket that sends one image per request, and single images of any time."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, cast

import msgspec
import numpy as np
import numpy.typing as npt
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from atomstream.errors import ShardError
from atomstream.protocol import PICTURE_HEADER, PICTURE_PATH
from atomstream.records import Frames
from atomstream.server.archive.downsampling import F64
from atomstream.server.archive.frame_search import MAX_REACH, nearest_frame
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.context import context_of
from atomstream.server.dashboard.series import READER, number
from atomstream.server.http.access import access
from atomstream.server.http.open_sockets import SOCKETS
from atomstream.server.http.responses import HttpError
from atomstream.server.people.rights import Right
from atomstream.system.log_privacy import get_logger

routes = web.RouteTableDef()

# A frame as an image for a screen: 8 bit, at most 640 px wide, read from the archive.
#
# Images are read from the archive, not from the upload: a stored frame is decoded again (1-2 ms from the page
# cache), at most ten times a second and only while a browser asks. The upload path does no work for viewers.

MAX_WIDTH = 640
MAX_HEIGHT = 1280

_LARGEST = (1 << 32) - 1
"""Frame numbers above it are sent as this one: a stream has them only after a huge gap."""

_BITS = (8, 10, 12, 14, 16)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A reduced frame: ``pixels`` (h, w) uint8, where 255 is the camera's full scale ``level``.

    They are the share of full scale times 255. With the option ``root`` of :func:`make_picture`, those of cameras with
    more than 8 bits (``level`` above 255) are the square root of that share times 255.
    """

    frame: int
    time_s: float
    pixels: npt.NDArray[np.uint8]
    full_size: tuple[int, int]
    level: int

    def to_bytes(self) -> bytes:
        """:data:`PICTURE_HEADER`, then the rows."""
        (height, width), (full_height, full_width) = self.pixels.shape, self.full_size
        head = PICTURE_HEADER.pack(
            self.time_s, min(self.frame, _LARGEST), width, height, full_width, full_height, self.level
        )
        return head + self.pixels.tobytes()


def make_picture(frame: int, time_s: float, raw: Frames, level: int = 0, *, root: bool = False) -> Picture:
    """Reduce ``raw`` (H, W), uint8 or uint16. ``level``: the full scale found in earlier frames (0: none).

    ``root``: pixels of cameras with more than 8 bits are square roots. Then a gain does not turn the faint parts of
    the picture into a few grey levels: 1 % of full scale has 25 levels instead of 2.
    """
    step = max(-(-raw.shape[1] // MAX_WIDTH), -(-raw.shape[0] // MAX_HEIGHT))
    level = max(level, full_scale(raw))
    small = binned(raw, step)
    if level == 255:
        pixels = np.ascontiguousarray(small, dtype=np.uint8)
    else:
        share = np.minimum(small.astype(np.float32) / np.float32(level), np.float32(1.0))
        # Rounded down, so that only pixels at full scale are 255, which the page marks as saturated.
        pixels = (np.float32(255.0) * (np.sqrt(share) if root else share)).astype(np.uint8)
    return Picture(frame, time_s, pixels, (raw.shape[0], raw.shape[1]), level)


def binned(raw: Frames, step: int) -> Frames:
    """Mean of each ``step`` x ``step`` block of pixels; incomplete blocks at the edges are dropped."""
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
    """Full scale of the camera, estimated from one frame: 255, or for uint16 the next of 8 to 16 bits."""
    if raw.dtype == np.uint8:
        return 255
    top = int(raw.max(initial=0))
    return next((1 << bits) - 1 for bits in _BITS if top < 1 << bits)


# Which frame to show next: frames arrive in chunks of seconds, but are shown at an even pace.

PICTURE_S = 0.1
"""Shortest time between two images in s."""


SLACK_S = 0.05
"""Playback that is more than one chunk and this time behind plays faster."""
CATCH_UP = 1.5
"""Speed of playback that is behind."""


@dataclass(slots=True)
class PlaybackClock:
    """Plays a growing stream at its frame rate, up to one chunk behind the newest frame.

    If chunks arrive at uneven times, playback falls behind by the longest delay. It then plays faster until it is one
    chunk behind again: with short chunks the picture would else stay half a second old. If the newest frame is further
    ahead (a backlog arrived at once), playback jumps forward.
    """

    fps: float
    chunk_size: int
    position: float = -1.0
    asked_at_s: float = 0.0

    def next(self, now_s: float, n_frames: int) -> int:
        """Index of the frame to show at ``now_s`` (monotonic clock), out of ``n_frames`` stored; -1 if none."""
        newest = n_frames - 1.0
        if self.position < 0 or newest < 0:
            self.position = newest
        else:
            behind = newest - self.position > self.chunk_size + SLACK_S * self.fps
            rate = self.fps * (CATCH_UP if behind else 1.0)
            self.position = min(newest, self.position + rate * (now_s - self.asked_at_s))
        if newest - self.position > max(1.5 * self.chunk_size, 0.5 * self.fps):
            self.position = max(0.0, newest - self.chunk_size)
        self.asked_at_s = now_s
        return int(self.position)


def frame_at_azimuth(upto: int, angle_deg: float, angles_deg: F64, frames_per_turn: float) -> int:
    """The last frame at or before ``upto`` with the azimuth ``angle_deg``, so that a rotating sample appears still.

    ``angles_deg`` (n,): measured azimuths of the n frames that end with ``upto``. If they cover less than one
    turn, the nominal azimuth is used: frame 0 is at 0 degrees and one turn takes ``frames_per_turn`` frames.
    """
    recent = angles_deg[-math.ceil(frames_per_turn) :] if frames_per_turn >= 1 else angles_deg[-1:]
    if len(recent) >= frames_per_turn and np.isfinite(recent).all():
        off = np.abs((recent - angle_deg + 180.0) % 360.0 - 180.0)
        return int(upto - len(recent) + 1 + int(np.argmin(off)))
    phase = angle_deg / 360.0 % 1.0
    turns = math.floor(upto / frames_per_turn - phase)
    return max(0, min(upto, round((turns + phase) * frames_per_turn)))


# The dashboard's WebSocket: small incoming messages; it is closed when the session ends or the server stops.

MAX_MESSAGE = 4096
"""Bytes of an incoming message."""
HEARTBEAT_S = 20.0


@asynccontextmanager
async def open_socket(request: web.Request) -> AsyncIterator[web.WebSocketResponse]:
    """Context manager: a WebSocket that is closed at the end of the block."""
    # Not compressed: noisy pixels hardly shrink, and compression would use cores that uploads need.
    socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=MAX_MESSAGE, compress=False)
    await socket.prepare(request)
    with request.app[SOCKETS].hold(request, socket):
        try:
            yield socket
        finally:
            await socket.close()


log = get_logger("atomstream.server")

IDLE_S = 0.25
"""Time between two checks for new frames in s, for a stream that does not run."""
SOON_S = 0.03
"""Time between two checks for new frames in s, for a stream whose last frame arrived less than :data:`RUNNING_S`
seconds ago."""
RUNNING_S = 5.0


class ImageRequest(msgspec.Struct, frozen=True):
    """A browser's message: send the next image, at the azimuth ``angle_deg`` (degrees) if given.

    ``root`` is the option of :func:`make_picture`.
    """

    angle_deg: Annotated[float, msgspec.Meta(ge=-360.0, le=360.0)] | None = None
    root: bool = False


class PictureSource:
    """Images of one stream for one browser. The methods block; call them in a thread."""

    def __init__(self, archive: StreamArchive, about: Any, app: web.Application) -> None:
        self._archive = archive
        self._rpm = about.rotations_per_min
        self._fps = about.fps
        self._columns = archive.folder / "frames.zarr"
        self._reader = app[READER]
        self._level = 0
        self._playback: PlaybackClock | None = None

    def next(self, shown: int, angle_deg: float | None, root: bool = False) -> Picture | None:
        """The image to show now; None if it is the frame ``shown`` or if there is no frame."""
        geometry_chunk = self._chunk_size()
        if geometry_chunk is None:
            return None
        if self._playback is None:
            self._playback = PlaybackClock(self._fps, geometry_chunk)
        frame = self._playback.next(time.monotonic(), self._archive.n_frames())
        if angle_deg is not None and self._rpm > 0 and frame > 0:
            frame = self._aligned(frame, angle_deg)
        return None if frame in (shown, -1) else self.picture(frame, root)

    def picture(self, frame: int, root: bool = False) -> Picture | None:
        """The image of a frame, or of the nearest one that was kept; None if there is none."""
        near = self._archive.thinned.nearest(frame)
        if near is None:
            return None
        frame = near
        frames = self._archive.frames(frame, frame + 1)
        if not frames.size:
            return None
        made = make_picture(frame, self.time_of(frame), frames[0], self._level, root=root)
        self._level = made.level
        return made

    def time_of(self, frame: int) -> float:
        """The capture time of a frame in s; NaN if it has none."""
        return float(self._reader.values(self._columns / "time", frame, frame + 1)[0])

    def frame_at(self, time_s: float) -> int:
        """Index of the stored frame that is nearest to ``time_s``; of the newest one for infinity."""
        return nearest_frame(self._archive, self._reader, self._fps, time_s) or 0

    def _aligned(self, upto: int, angle_deg: float) -> int:
        per_turn = 60.0 * self._fps / self._rpm
        if not per_turn < MAX_REACH:  # the sample hardly turns
            return upto
        first = max(0, upto + 1 - math.ceil(per_turn))
        angles = self._reader.values(self._columns / "azimuth_angle", first, upto + 1)
        return frame_at_azimuth(upto, angle_deg, angles, per_turn)

    def _chunk_size(self) -> int | None:
        geometry = self._archive.geometry
        return geometry.chunk_size if geometry else None


async def source_of(request: web.Request) -> PictureSource:
    """The image source of the stream in the request's path; raises HttpError 404."""
    streams, data_id = context_of(request).streams, request.match_info["data_id"]
    return PictureSource(await streams.archive(data_id), await streams.about(data_id), request.app)


@routes.get(PICTURE_PATH)
@access(Right.READ)
async def single_picture(request: web.Request) -> web.Response:
    """``GET /dashboard/streams/{id}/picture?time=S``: the frame nearest to that time, as :class:`Picture` bytes.

    ``root=1`` is the option of :func:`make_picture`.
    """
    at = number(request.query, "time", math.inf, 0.0, math.inf)
    root = bool(number(request.query, "root", 0.0, 0.0, 1.0))
    source = await source_of(request)
    pictures = context_of(request).readers.pictures
    picture = await pictures.run(request, lambda: source.picture(source.frame_at(at), root))
    if picture is None:
        raise HttpError(404, "This stream has no frames, or those near this time were removed.")
    return web.Response(
        body=picture.to_bytes(),
        content_type="application/octet-stream",
        headers={"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"},
    )


@routes.get("/dashboard/streams/{data_id}/pictures", allow_head=False)
@access(Right.READ)
async def live_pictures(request: web.Request) -> web.StreamResponse:
    """``GET /dashboard/streams/{id}/pictures`` (WebSocket): each :class:`ImageRequest` gets one picture.

    A browser asks for the next image after it has drawn the last one, so a slow browser gets fewer images and
    none are queued. A new request replaces one that was not answered yet.
    """
    source, context, data_id = await source_of(request), context_of(request), request.match_info["data_id"]
    pictures = context.readers.pictures
    async with open_socket(request) as socket:

        def draw(shown: int, wanted: ImageRequest) -> Awaitable[Picture | None]:
            context.streams.refuse_deleted(data_id)
            return pictures.run(request, source.next, shown, wanted.angle_deg, wanted.root)

        subscriber, reply = ImageSubscriber(socket, draw), None
        try:
            async for message in socket:
                await _cancel(reply)
                wanted = _parse(message)
                if wanted is None:
                    await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"not a valid request")
                    break
                reply = asyncio.create_task(subscriber.send_next(wanted), name="dashboard picture")
        finally:
            await _cancel(reply)
    return socket


def _parse(message: WSMessage) -> ImageRequest | None:
    if message.type is not WSMsgType.TEXT:
        return None
    try:
        return msgspec.json.decode(message.data, type=ImageRequest)
    except (msgspec.MsgspecError, RecursionError):
        return None


async def _cancel(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait([task])


NextPicture: TypeAlias = Callable[[int, ImageRequest], Awaitable[Picture | None]]
"""Draws the next image for a browser that shows a frame, as it was asked for."""


class ImageSubscriber:
    """One browser that shows one stream."""

    def __init__(self, socket: web.WebSocketResponse, draw: NextPicture) -> None:
        self._socket = socket
        self._draw = draw
        self._shown = -1
        self._sent_at = -math.inf

    async def send_next(self, wanted: ImageRequest) -> None:
        """Send the next image as soon as there is a new one, at most one per ``PICTURE_S``."""
        await asyncio.sleep(max(0.0, self._sent_at + PICTURE_S - time.monotonic()))
        # Polling: the next frame depends on the time, not only on new chunks.
        while (picture := await self._next(wanted)) is None:
            if self._socket.closed:
                return
            running = time.monotonic() - self._sent_at < RUNNING_S
            await asyncio.sleep(SOON_S if running else IDLE_S)
        self._shown, self._sent_at = picture.frame, time.monotonic()
        # A browser that disconnected is not an error; the loop that reads its messages ends.
        with suppress(ConnectionError):
            await self._socket.send_bytes(picture.to_bytes())

    async def _next(self, wanted: ImageRequest) -> Picture | None:
        try:
            return await self._draw(self._shown, wanted)
        except HttpError as error:
            if error.status == 410:
                await self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"the stream was deleted")
            return None  # else too many pages at once; this one asks again
        except (ShardError, OSError) as error:
            # The page keeps its last image.
            log.warning("an image of a stream could not be read: %s", error)
            return None
