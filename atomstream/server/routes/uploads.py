"""Upload of a chunk: the client requests a signed URL, then it PUTs the shard to it."""

from __future__ import annotations

import base64
import re
import uuid
from functools import partial
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from atomstream.errors import ConflictError
from atomstream.protocol import (
    CRC_HEADER,
    MAX_CHUNK_INDEX,
    MAX_CHUNK_SIZE,
    MAX_FPS,
    MIN_FPS,
    UPLOAD_PATH,
    UPLOAD_URLS_PATH,
)
from atomstream.server.archive.metadata import StreamMetadata
from atomstream.server.archive.records import Geometry, UploadClaims
from atomstream.server.context import ServerContext, context_of, project_of, visible_in
from atomstream.server.disk_errors import log_failure
from atomstream.server.http.access import access
from atomstream.server.http.connections import GUARD
from atomstream.server.http.gate import GATE, principal_of
from atomstream.server.http.requests import read_json
from atomstream.server.http.responses import HttpError, json_reply
from atomstream.server.http.upload_urls import Permit
from atomstream.server.people.rights import Right
from atomstream.server.ports.placement import Notice
from atomstream.server.streams.registry import checked_id
from atomstream.server.streams.signals import ChunkStored
from atomstream.shard import frame_nbytes
from atomstream.system import tracing
from atomstream.system.log_privacy import get_logger

routes = web.RouteTableDef()

log = get_logger("atomstream.server")
Milliseconds = Annotated[int, msgspec.Meta(ge=-(1 << 53), le=1 << 53)]
Rate = Annotated[float, msgspec.Meta(ge=MIN_FPS, le=MAX_FPS)]
_CHUNK_FILE = re.compile(r"frames\.zarr/frames/c/(0|[1-9][0-9]{0,8})/0/0")
_DIMS = re.compile(r"([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9})")


class UploadRequest(msgspec.Struct, frozen=True):
    """The body of a request for an upload URL. All its values are strings, which are converted here."""

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
@access(Right.WRITE, browser=False)
async def upload_url(request: web.Request) -> web.Response:
    """``POST /data_entries/raw_data/staged/upload_urls/``: a short-lived URL for one chunk."""
    index = chunk_index(request)
    context, wanted = context_of(request), await read_json(request, UploadRequest, strings=True)
    await visible_in(context)(principal_of(request), checked_id(wanted.data_id))
    about = await context.streams.about(wanted.data_id)
    ticket = make_ticket(index, wanted, about)
    check_frame_size(ticket, context.settings.max_frame_bytes)
    check_geometry(ticket, about)
    url = base_url(context, request) + context.signer.sign(
        ticket, context.settings.url_ttl_s, principal_of(request).key_id
    )
    return json_reply([{"upload_id": str(uuid.uuid4()), "url": url, "part": 0}])


def chunk_index(request: web.Request) -> int:
    """The index in ``original_filename``; any other file name is refused.

    Raises:
        HttpError: 400.
    """
    if request.query.get("staging_type", "stream") != "stream":
        raise HttpError(
            400,
            "This server stores streams, and takes no files as a whole (Client.upload of the hosted service's client): "
            "stream the file with the command 'atomstream stream FILE' (pip install 'atomstream[video]').",
        )
    match = _CHUNK_FILE.fullmatch(request.query.get("original_filename", ""))
    index = int(match[1]) if match else -1
    if not 0 <= index <= MAX_CHUNK_INDEX:
        raise HttpError(
            400,
            f"original_filename must be frames.zarr/frames/c/K/0/0 with a chunk index K of 0 .. {MAX_CHUNK_INDEX}.",
        )
    if request.query.get("num_parts", "1") != "1":
        raise HttpError(400, "Only num_parts=1 is supported.")
    return index


def make_ticket(index: int, wanted: UploadRequest, about: StreamMetadata) -> UploadClaims:
    """The claims for the URL; raises HttpError 400 or ShardError for impossible values."""
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


def check_frame_size(ticket: UploadClaims, most: int) -> None:
    """Refuse frames of more than ``most`` decoded bytes; raises HttpError 413."""
    nbytes = frame_nbytes(ticket.dims, ticket.dtype)
    if nbytes > most:
        _, height, width = ticket.dims
        raise HttpError(
            413,
            f"A frame of {height} x {width} pixels ({ticket.dtype}) has {nbytes} bytes; this server takes frames of "
            f"at most {most} bytes (its setting max_frame_bytes).",
        )


def check_geometry(ticket: UploadClaims, about: StreamMetadata) -> None:
    """Refuse a changed frame shape before the upload of its (up to 41 MB); raises ConflictError.

    A shape that is not yet in the metadata passes here; the archive checks it again at the commit.
    """
    claimed = Geometry.of(ticket)
    if about.geometry not in (None, claimed):
        raise ConflictError(
            f"Chunk {ticket.index} was announced as {claimed}, but this stream is {about.geometry}, as fixed by "
            "its first chunk. Nothing was changed.",
            status=409,
        )


def base_url(context: ServerContext, request: web.Request) -> str:
    """The server's address for this client. The Host header was checked before."""
    return context.settings.public_url or f"{request.scheme}://{request.host}"


@routes.put(UPLOAD_PATH)
@access(Right.NONE)
async def put_chunk(request: web.Request) -> web.Response:
    """``PUT /upload/{data_id}/{index}``: 200 once the shard is on disk and readable. The URL is signed."""
    context = context_of(request)
    try:
        permit = context.signer.check(request)
    except HttpError:
        await request.app[GUARD].pace()
        raise
    ticket = permit.ticket
    may_upload = partial(check_owner, request, permit)
    await may_upload()
    check_frame_size(ticket, context.settings.max_frame_bytes)
    archive = await context.streams.archive(ticket.data_id)
    context.lifecycle.touch(ticket.data_id)
    with (
        tracing.span(
            "atomstream.store", tracing.received(request.headers), data_id=ticket.data_id, index=ticket.index
        ),
        context.results.tap(ticket, request.content_length or 0) as tap,
    ):
        committed = await context.ingest.receive(
            request, ticket, archive, tap.observe, permit.owner, may_commit=may_upload
        )
        context.disk.note_stored()
        await context.announce(Notice(data_id=ticket.data_id, kind="chunk", index=ticket.index))
        await note_stored(context, ChunkStored(ticket, committed, tap, tracing.current()))
    crc = base64.b64encode(committed.crc32c.to_bytes(4, "big")).decode()
    return json_reply({"index": committed.index, "nbytes": committed.nbytes}, headers={CRC_HEADER: crc})


async def check_owner(request: web.Request, permit: Permit) -> None:
    """Refuse an upload whose API key may not upload any more, although its URL has not expired.

    The list of keys is in memory; a change by a command is read within a second.

    Raises:
        HttpError: 403 the key was revoked, has expired, or has lost the right to write into this stream.
    """
    gate = request.app[GATE]
    principal = gate.of_key_id(permit.owner)
    if principal is None:  # another server, or a command, may just have made the key
        await gate.catch_up()
        principal = gate.of_key_id(permit.owner)
    if principal is None:
        reason = "was revoked or has expired"
    elif principal.right < Right.WRITE:
        reason = f"has only the right {principal.right.text} now"
    elif principal.projects is not None and not principal.sees(
        await project_of(context_of(request), permit.ticket.data_id)
    ):
        reason = "does not see this stream any more"
    else:
        return
    raise HttpError(
        403,
        f"The API key {permit.owner} of this upload URL {reason}; nothing was stored. Request a new URL with a valid "
        "key.",
    )


async def note_stored(context: ServerContext, stored: ChunkStored) -> None:
    """Update catalogue, status and listeners. If that fails, the upload still succeeds, because the chunk is stored."""
    ticket = stored.ticket
    if ticket.data_id in context.streams.deleted:
        return
    try:
        reaches = ticket.index * ticket.chunk_size + stored.committed.n_frames
        await context.streams_table.note_chunk(ticket.data_id, reaches)
        await context.lifecycle.data_came(ticket)
    except Exception as error:
        if ticket.data_id in context.streams.deleted:  # meanwhile
            return
        log_failure(
            log,
            error,
            "chunk %d of %s is stored, but updating the catalogue failed",
            ticket.index,
            ticket.data_id,
        )
    await context.signals.chunk_stored.send(stored)
