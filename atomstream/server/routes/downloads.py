"""Stored data for programs: single chunks as they were uploaded, and the results of each frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import numpy as np
from aiohttp import web

from atomstream.protocol import CHUNK_PATH, COLUMNS_PATH, DIMS_HEADER, MAX_CHUNK_INDEX, MAX_COLUMN_ROWS
from atomstream.results import TIME, packed
from atomstream.server.archive.downsampling import ColumnReader, column_dimension
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.archive.thinning import KEPT
from atomstream.server.context import context_of
from atomstream.server.http.access import access
from atomstream.server.http.responses import HttpError, send_file
from atomstream.server.people.rights import Right
from atomstream.system.own_files import open_file

routes = web.RouteTableDef()

MAX_NAMES: Final = 256
_SAFE: Final = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


@routes.get(CHUNK_PATH)
@access(Right.READ)
async def chunk(request: web.Request) -> web.StreamResponse:
    """The stored bytes of a chunk: one shard. A header has the number of its frames, height, width, the stream's chunk
    size and the pixel type.
    """
    archive = await _archive(request)
    index = _number(request.match_info["index"], MAX_CHUNK_INDEX, "a chunk index")
    run = context_of(request).readers.facts.run
    dims, file = await run(request, _open_chunk, archive, index)
    with file:
        return await send_file(request, file, "application/octet-stream", {DIMS_HEADER: dims})


def _open_chunk(archive: StreamArchive, index: int) -> tuple[str, BinaryIO]:
    geometry, frames = archive.geometry, archive.chunks().get(index)
    if geometry is None or frames is None:
        raise HttpError(404, f"Chunk {index} of this stream is not stored.")
    try:
        file = open_file(archive.local_shard(index), "rb")
    except FileNotFoundError:
        raise HttpError(404, f"Chunk {index} of this stream is not stored any more.") from None
    return f"{frames},{geometry.height},{geometry.width},{geometry.chunk_size},{geometry.dtype}", file


@routes.get(COLUMNS_PATH)
@access(Right.READ)
async def columns(request: web.Request) -> web.Response:
    """Results of stored frames, as msgpack: ``frame`` (int64), ``time_seconds`` (float64), the others float32.

    A stream that was thinned also has ``frame_kept``: 1 for the frames that are left.

    Query: ``first``, the number of stored frames to skip; ``count``; ``name``, repeatable (default: all results).
    """
    archive, query = await _archive(request), request.query
    first = _number(query.get("first", "0"), 1 << 53, "first")
    count = _number(query.get("count", str(MAX_COLUMN_ROWS)), MAX_COLUMN_ROWS, "count")
    names = query.getall("name", [])
    if len(names) > MAX_NAMES:
        raise HttpError(400, f"At most {MAX_NAMES} names are answered at once.")
    run = context_of(request).readers.tables.run
    body = await run(request, _read_columns, archive, first, count, frozenset(names))
    return web.Response(body=body, headers=_SAFE, content_type="application/msgpack")


def _read_columns(archive: StreamArchive, first: int, count: int, wanted: frozenset[str]) -> bytes:
    runs, group, reader = archive.frame_runs(), archive.folder / "frames.zarr", ColumnReader()
    numbers = runs.frames(np.arange(min(first, len(runs)), min(first + count, len(runs)), dtype=np.int64))
    known = [name for name in archive.results.names() if _per_frame(group, name)]
    known += [KEPT] * archive.thinned.exists
    names = [name for name in known if not wanted or name in wanted]
    parts: dict[str, Any] = {
        "total": len(runs),
        "frame": packed(numbers, "<i8"),
        TIME: packed(reader.values_at(group / "time", numbers), "<f8"),
        "columns": {name: packed(reader.values_at(group / name, numbers), "<f4") for name in names},
    }
    if archive.thinned.exists and (not wanted or KEPT in wanted):
        parts["columns"][KEPT] = packed(reader.values_at(group / KEPT, numbers), "<f4")
    return msgspec.msgpack.encode(parts)


def _per_frame(group: Path, name: str) -> bool:
    return name not in {TIME, "time"} and column_dimension(group / name) == "time"


async def _archive(request: web.Request) -> StreamArchive:
    return await context_of(request).streams.archive(request.match_info["data_id"])


def _number(text: str, most: int, what: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 16 or int(text) > most:
        raise HttpError(400, f"{what} must be a whole number from 0 to {most}; {text[:32]!r} is not one.")
    return int(text)
