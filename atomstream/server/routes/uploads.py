"""The way of a chunk into the server: a signed URL is asked for, then the shard is PUT to it."""

from __future__ import annotations

import base64
import logging
import re
import uuid
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from atomstream.config import MAX_CHUNK_INDEX, MAX_CHUNK_SIZE, MAX_FPS
from atomstream.errors import ConflictError
from atomstream.protocol import UPLOAD_PATH, UPLOAD_URLS_PATH
from atomstream.server.archive.metadata import StreamMetadata
from atomstream.server.archive.records import Geometry, UploadClaims
from atomstream.server.context import ServerContext, context_of
from atomstream.server.http.access import Access, access
from atomstream.server.http.requests import read_json
from atomstream.server.http.responses import HttpError, json_reply
from atomstream.server.streams.registry import checked_id
from atomstream.server.streams.signals import ChunkStored

routes = web.RouteTableDef()

log = logging.getLogger("atomstream.server")
Milliseconds = Annotated[int, msgspec.Meta(ge=-(1 << 53), le=1 << 53)]
Rate = Annotated[float, msgspec.Meta(gt=0.0, le=MAX_FPS)]
_CHUNK_FILE = re.compile(r"frames\.zarr/frames/c/(0|[1-9][0-9]{0,8})/0/0")
_DIMS = re.compile(r"([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9})")


class UploadRequest(msgspec.Struct, frozen=True):
    """The body that asks for a URL. On the wire all of it is strings; they are read as what they mean."""

    data_id: str
    chunk_size: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHUNK_SIZE)]
    dims: str
    start_unix_ms_utc: Milliseconds
    end_unix_ms_utc: Milliseconds
    data_stream: Literal["rheed"] = "rheed"
    is_stream: Literal["1"] = "1"
    is_rotating: Literal["0", "1"] = "0"
    raw_frame_rate: Rate | None = None
    avg_frame_rate: Rate | None = None
    clock_offset_ms: Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)] | None = None
    clock_uncertainty_ms: Annotated[float, msgspec.Meta(ge=0.0, le=1e15)] | None = None
    dtype: Literal["uint8", "uint16"] = "uint8"


@routes.post(UPLOAD_URLS_PATH)
@access(Access.KEY)
async def upload_url(request: web.Request) -> web.Response:
    """``POST /data_entries/raw_data/staged/upload_urls/``: a short-lived URL for one chunk."""
    index = chunk_index(request)
    house, wanted = context_of(request), await read_json(request, UploadRequest, strings=True)
    about = await house.streams.about(checked_id(wanted.data_id))
    ticket = make_ticket(index, wanted, about)
    check_geometry(ticket, about)
    url = base_url(house, request) + house.signer.sign(ticket, house.settings.url_ttl_s)
    return json_reply([{"upload_id": str(uuid.uuid4()), "url": url, "part": 0}])


def chunk_index(request: web.Request) -> int:
    """The chunk that ``original_filename`` names; any other file is refused, wherever it may lie.

    Raises:
        RefusedError: 400.
    """
    match = _CHUNK_FILE.fullmatch(request.query.get("original_filename", ""))
    index = int(match[1]) if match else -1
    if not 0 <= index <= MAX_CHUNK_INDEX:
        raise HttpError(
            400,
            f"original_filename must be frames.zarr/frames/c/K/0/0 with a chunk index K of 0 .. {MAX_CHUNK_INDEX}.",
        )
    if request.query.get("num_parts", "1") != "1" or request.query.get("staging_type", "stream") != "stream":
        raise HttpError(400, "Only num_parts=1 and staging_type=stream are taken here.")
    return index


def make_ticket(index: int, wanted: UploadRequest, about: StreamMetadata) -> UploadClaims:
    """What the URL will permit; raises RefusedError 400 or ShardError where no stream can mean it."""
    match = _DIMS.fullmatch(wanted.dims)
    if match is None:
        raise HttpError(400, f"dims must be 'N,H,W' in whole numbers; {wanted.dims[:64]!r} is not.")
    ticket = UploadClaims(
        data_id=about.data_id,
        index=index,
        dims=(int(match[1]), int(match[2]), int(match[3])),
        dtype=wanted.dtype,
        chunk_size=wanted.chunk_size,
        fps=about.fps,
        start_unix_ms=wanted.start_unix_ms_utc,
        end_unix_ms=wanted.end_unix_ms_utc,
        clock_offset_ms=wanted.clock_offset_ms,
        clock_uncertainty_ms=wanted.clock_uncertainty_ms,
    )
    ticket.check()
    return ticket


def check_geometry(ticket: UploadClaims, about: StreamMetadata) -> None:
    """Say at the first request, not after 41 MB, that a stream's shape can't change; raises ConflictError.

    It is the archive that decides, at the commit: here a shape not yet written down passes.
    """
    claimed = Geometry.of(ticket)
    if about.geometry not in (None, claimed):
        raise ConflictError(
            f"Chunk {ticket.index} was announced as {claimed}, but this stream is {about.geometry}, as fixed by "
            "its first chunk. Nothing was changed.",
            status=409,
        )


def base_url(house: ServerContext, request: web.Request) -> str:
    """The server's address as this client knows it (the Host was checked against our names)."""
    return house.settings.public_url or f"{request.scheme}://{request.host}"


@routes.put(UPLOAD_PATH)
@access(Access.PUBLIC)
async def put_chunk(request: web.Request) -> web.Response:
    """``PUT /upload/{data_id}/{index}``: 200 once the shard is on disk and readable; the signature is the key."""
    house = context_of(request)
    ticket = house.signer.check(request)
    archive = await house.streams.archive(ticket.data_id)
    house.lifecycle.touch(ticket.data_id)
    with house.live.tap(ticket) as tap:
        committed = await house.ingest.receive(request, ticket, archive, tap.observe)
        await note_stored(house, ChunkStored(ticket, committed, tap))
    crc = base64.b64encode(committed.crc32c.to_bytes(4, "big")).decode()
    return json_reply(
        {"index": committed.index, "nbytes": committed.nbytes}, headers={"x-amz-checksum-crc32c": crc}
    )


async def note_stored(house: ServerContext, stored: ChunkStored) -> None:
    """Tell catalogue, lifecycle and listeners; whatever fails there, the chunk is stored and is answered for."""
    ticket = stored.ticket
    try:
        reaches = ticket.index * ticket.chunk_size + stored.committed.n_frames
        await house.entries.note_chunk(ticket.data_id, reaches)
        await house.lifecycle.data_came(ticket.data_id, Geometry.of(ticket))
    except Exception:
        log.exception("chunk %d of %s is stored, but its note failed", ticket.index, ticket.data_id)
    await house.events.chunk_stored.send(stored)
