"""Downloads of the hosted service's client: a stream as a file, a single frame as an image."""

from __future__ import annotations

import struct
import zlib
from typing import Final

import numpy as np
from aiohttp import web

from atomstream.errors import ConfigError
from atomstream.protocol import (
    EXPORT_PATH,
    IMAGE_FINGERPRINT_PATH,
    IMAGE_PATH,
    PROCESSED_DATA_PATH,
    RAW_DATA_PATH,
    path,
)
from atomstream.records import Frames
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.context import context_of
from atomstream.server.export.formats import format_of
from atomstream.server.http.access import access
from atomstream.server.http.responses import HttpError, json_reply
from atomstream.server.people.rights import Right
from atomstream.server.routes.uploads import base_url

routes = web.RouteTableDef()

RAW_FORMATS: Final = ("h5", "tiff", "csv")
PROCESSED_FORMATS: Final = ("mp4", "h5", "csv")
"""Formats of a download, the best one first; the first one whose libraries are installed is used."""


@routes.get(RAW_DATA_PATH)
@access(Right.READ, browser=False)
async def raw_data(request: web.Request) -> web.Response:
    """``GET /data_entries/raw_data/{data_id}?return_as=url-download``: where the frames as they came can be loaded.

    The reply is ``{"url", "file_name"}``. The URL needs the API key as well.
    """
    return await _download(request, RAW_FORMATS)


@routes.get(PROCESSED_DATA_PATH)
@access(Right.READ, browser=False)
async def processed_data(request: web.Request) -> web.Response:
    """``GET /data_entries/processed_data/{data_id}?return_as=url-download``: the same for a video of the frames."""
    return await _download(request, PROCESSED_FORMATS)


async def _download(request: web.Request, endings: tuple[str, ...]) -> web.Response:
    wanted = request.query.get("return_as", "url-download")
    if wanted != "url-download":
        raise HttpError(400, f"return_as must be url-download; {wanted[:64]!r} is not supported here.")
    context, data_id = context_of(request), request.match_info["data_id"].lower()
    archive = await context.streams.archive(data_id)
    if archive.geometry is None:
        raise HttpError(404, f"Stream {data_id} has no frames.")
    ending = next((one for one in endings if _is_installed(one)), endings[-1])
    url = f"{base_url(context, request)}{path(EXPORT_PATH, data_id=data_id)}?to={ending}"
    return json_reply({"url": url, "file_name": f"atomstream-{data_id}.{ending}"})


def _is_installed(ending: str) -> bool:
    try:
        format_of(ending)
    except ConfigError:
        return False
    return True


@routes.get(IMAGE_PATH)
@access(Right.READ, browser=False)
async def single_image(request: web.Request) -> web.Response:
    """``GET /rheed/images/{data_id}/frames/{n}``: a stored frame as PNG, grey, with the counts as they came."""
    context, text = context_of(request), request.match_info["n"]
    if not text.isascii() or not text.isdigit() or len(text) > 16:
        raise HttpError(400, f"A frame's number must be a whole number from 0; {text[:32]!r} is not one.")
    archive = await context.streams.archive(request.match_info["data_id"].lower())
    frame = await context.readers.pictures.run(request, _stored_frame, archive, int(text))
    if frame is None:
        raise HttpError(404, f"Frame {text} of this stream is not stored.")
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
    return web.Response(body=png(frame), content_type="image/png", headers=headers)


@routes.get(IMAGE_FINGERPRINT_PATH)
@access(Right.READ, browser=False)
async def image_fingerprint(request: web.Request) -> web.Response:
    """``GET /rheed/images/{image_uuid}/fingerprint``: always 404, because single images are not analysed here."""
    uuid = request.match_info["data_id"][:64]
    raise HttpError(
        404, f"There is no fingerprint of image {uuid!r}: this server analyses streams of frames."
    )


def _stored_frame(archive: StreamArchive, number: int) -> Frames | None:
    """A frame (H, W); None if it was never received, or removed. Blocks."""
    if archive.thinned.nearest(number) != number:
        return None
    runs = archive.frame_runs()
    rank = runs.rank(number)
    if rank >= len(runs) or int(runs.frames(np.array([rank], np.int64))[0]) != number:
        return None
    frames = archive.frames(number, number + 1)
    return frames[0] if len(frames) else None


def png(frame: Frames) -> bytes:
    """A frame (H, W), uint8 or uint16, as a grey PNG of 8 or 16 bits (ISO/IEC 15948)."""
    height, width = frame.shape
    rows = np.ascontiguousarray(frame, ">u2" if frame.dtype.itemsize == 2 else np.uint8).view(np.uint8)
    rows = rows.reshape(height, -1)
    filtered = np.zeros((height, rows.shape[1] + 1), np.uint8)  # the first byte of a row: its filter, none
    filtered[:, 1:] = rows
    head = struct.pack(">IIBBBBB", width, height, 8 * frame.dtype.itemsize, 0, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(filtered.tobytes(), 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
