"""``GET /rheed/stream/{data_id}/export``: a stream as a file for other programs."""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import uuid
from pathlib import Path
from typing import Final

import numpy as np
from aiohttp import web

from atomstream.errors import ConfigError
from atomstream.protocol import EXPORT_PATH
from atomstream.server.archive.abandoned import check_wanted
from atomstream.server.archive.downsampling import ColumnReader
from atomstream.server.archive.metadata import read_about
from atomstream.server.context import ServerContext, context_of, results_of
from atomstream.server.data_dir import EXPORTS
from atomstream.server.disk_errors import is_disk_full
from atomstream.server.export.formats import format_of, write_export
from atomstream.server.export.growth import Growth
from atomstream.server.http.access import access
from atomstream.server.http.requests import number
from atomstream.server.http.responses import HttpError, send_file
from atomstream.server.people.rights import Right
from atomstream.system.files import LOCAL

routes = web.RouteTableDef()

MAX_STEP: Final = 1_000_000

_FULL: Final = (
    "The disk of the server has no room for this export; what was written of it is removed. Stream {} is unchanged. "
    "Export every n-th frame (step), or the results alone (pixels=0), or make room on the disk."
)

SMALL_BYTES: Final = 64 << 20
"""An export up to this length is written as long as it fits onto the disk."""

KEPT_FREE_BYTES: Final = 1 << 30
"""Disk space that an export leaves to running streams."""


@routes.get(EXPORT_PATH)
@access(Right.READ)
async def export(request: web.Request) -> web.StreamResponse:
    """Query ``to``: h5, nxs, nc, csv, tiff, mp4, gif, png or pdf. ``step``: every n-th frame. ``pixels=0``: results
    alone. ``time``: time in s of the picture of a png, by default the newest.

    The file is written to a temporary file first, so its length is stated and a failure is an error status.
    """
    data_id, query = request.match_info["data_id"], request.query
    ending = query.get("to", "h5").lower()
    step = _step(query.get("step", "1"))
    context = context_of(request)
    results = await results_of(request)
    archive = await context.streams.archive(data_id)
    folder = context.settings.data_dir / EXPORTS
    path = folder / f"{uuid.uuid4()}.{ending}"
    growth = Growth(
        read_about(archive.about),
        await results.status(),
        archive,
        ColumnReader(),
        await asyncio.to_thread(archive.frame_runs),
        step,
        math.inf if (at_s := number(query.get("time"), "time", 0.0, math.inf)) is None else at_s,
        lambda: _check_going_on(context, data_id, path),
    )
    try:
        form = format_of(ending)
        pixels = query.get("pixels", "1") != "0"
        await asyncio.to_thread(_check_space, folder, growth, pixels=pixels and form.raw_pixels)
        try:
            await context.readers.exports.run(request, write_export, growth, ending, path, pixels=pixels)
            context.streams.refuse_deleted(data_id)  # the last frames may have been read after the deletion
            # The id only: the stream's name is free text, which may not be valid as a file name.
            name = f'attachment; filename="atomstream-{data_id}.{ending}"'
            with path.open("rb") as file:
                return await send_file(request, file, form.content_type, {"Content-Disposition": name})
        finally:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
    except ConfigError as error:
        raise HttpError(400, str(error)) from None
    except HttpError:
        raise
    except Exception as error:
        context.streams.refuse_deleted(data_id)  # then its files are gone, whatever the error is
        if is_disk_full(error):
            raise HttpError(507, _FULL.format(data_id)) from None
        raise


def _check_going_on(context: ServerContext, data_id: str, path: Path) -> None:
    """Called before each piece of an export, in its thread. Raises to end it."""
    check_wanted()
    context.streams.refuse_deleted(data_id)
    large = path.exists() and path.stat().st_size > SMALL_BYTES
    if large and shutil.disk_usage(path.parent).free < KEPT_FREE_BYTES:
        raise HttpError(507, _FULL.format(data_id))


def _check_space(folder: Path, growth: Growth, *, pixels: bool) -> None:
    """Make the folder; raises HttpError 507 if the file could take the space that running streams need."""
    LOCAL.make_folder(folder, durable=False, inside=folder.parent)
    geometry = growth.archive.geometry
    if not pixels or geometry is None:
        return
    nbytes = growth.n_exported * geometry.height * geometry.width * np.dtype(geometry.dtype).itemsize
    free = shutil.disk_usage(folder).free - KEPT_FREE_BYTES
    if nbytes > free:
        raise HttpError(
            507,
            f"The export may take {nbytes / 1e9:.1f} GB, and the server's disk has {max(free, 0) / 1e9:.1f} GB to "
            "spare. Export every n-th frame (step), or the results alone (pixels=0).",
        )


def _step(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_STEP:
        raise HttpError(400, f"step must be a whole number from 1 to {MAX_STEP}.")
    return int(text)
