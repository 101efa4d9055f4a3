"""Replies: JSON, errors as ``{"detail": ...}`` with a sentence and no internal details, and the access log."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from typing import Any, BinaryIO, Final

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler
from aiohttp.web import BaseRequest, StreamResponse

from atomstream.errors import AtomstreamError, RejectedError, ShardError
from atomstream.server.archive.archive_files import ArchiveDeletedError
from atomstream.server.catalogue_errors import CatalogueUnavailableError
from atomstream.server.disk_errors import DiskState, is_disk_error, is_disk_full, log_failure, log_unavailable
from atomstream.server.http.error_page import error_page, wants_page
from atomstream.server.http.path_prefix import prefix_of
from atomstream.server.ports.store import StoreError
from atomstream.server.ports.stream_log import BusUnavailableError
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")

NO_STORE: Final = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
"""Headers of every reply with data: browsers neither store it nor guess another type."""

DISK: Final = web.AppKey("disk", DiskState)

_BUS_AWAY: Final = (
    "The message bus of this server can't be reached at present. Frames are kept by their client, which sends them "
    "again."
)
_STORE_AWAY: Final = (
    "The store of this server can't be reached at present; nothing was changed. Frames are kept by their client, which "
    "sends them again."
)


class HttpError(AtomstreamError):
    """Ends a request with an error status. ``detail`` is sent to the client unchanged."""

    def __init__(self, status: int, detail: Any, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.headers = headers

    def reply(self) -> web.Response:
        """The reply with this error."""
        return refuse(self.status, self.detail, self.headers)


def json_reply(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """``value`` as a JSON reply that browsers neither cache nor interpret as another type."""
    safe = {**NO_STORE, **(headers or {})}
    return web.Response(
        body=msgspec.json.encode(value), status=status, headers=safe, content_type="application/json"
    )


async def send_pieces(
    request: web.Request, reply: web.StreamResponse, pieces: AsyncIterator[bytes | memoryview]
) -> web.StreamResponse:
    """Send a reply whose length is not known before. A HEAD request gets its headers alone."""
    await reply.prepare(request)
    if request.method != "HEAD":
        async for piece in pieces:
            await reply.write(piece)
    await reply.write_eof()
    return reply


FILE_PIECE_BYTES: Final = 1 << 18


async def send_file(
    request: web.Request, file: BinaryIO, content_type: str, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Send an open file in pieces, so that memory does not grow with its length. Browsers neither cache nor guess."""
    reply = web.StreamResponse(
        headers={
            "Content-Type": content_type,
            "Content-Length": str(os.fstat(file.fileno()).st_size),
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
            **headers,
        }
    )

    async def pieces() -> AsyncIterator[bytes]:
        while piece := await asyncio.to_thread(file.read, FILE_PIECE_BYTES):
            yield piece

    return await send_pieces(request, reply, pieces())


def refuse(status: int, detail: Any, headers: dict[str, str] | None = None) -> web.Response:
    """An error reply."""
    return json_reply({"detail": detail}, status=status, headers=headers)


@web.middleware
async def errors_to_replies(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Convert exceptions of handlers to replies: the outermost middleware, and the only place that does it."""
    try:
        return await handler(request)
    except Exception as error:
        reply = _reply_to(request, error)
        return error_page(reply.status, _detail(reply), prefix_of(request)) if wants_page(request) else reply


def _detail(reply: web.Response) -> str:
    assert isinstance(reply.body, bytes)
    detail = msgspec.json.decode(reply.body)["detail"]
    return detail if isinstance(detail, str) else ""


def _reply_to(request: web.Request, error: Exception) -> web.Response:
    if isinstance(error, HttpError):
        return error.reply()
    if isinstance(error, CatalogueUnavailableError):
        return refuse(503, str(error), {"Retry-After": "2"})
    if isinstance(error, BusUnavailableError):
        log_unavailable(log, error)
        return refuse(503, _BUS_AWAY, {"Retry-After": "2"})
    if isinstance(error, StoreError):
        log_unavailable(log, error)
        return refuse(503, _STORE_AWAY, {"Retry-After": "2"})
    if isinstance(error, ShardError):
        return refuse(400, str(error))
    if isinstance(error, ArchiveDeletedError):
        return refuse(410, str(error))
    if isinstance(error, RejectedError):
        return refuse(error.status or 400, str(error))
    if isinstance(error, web.HTTPException):
        return _from_aiohttp(error)
    if isinstance(error, HttpProcessingError):  # a body that is not HTTP; its text quotes the body
        return refuse(400, "The body of the request is not valid HTTP.")
    # aiohttp raises RuntimeError where a body is read after the connection was lost.
    lost = isinstance(error, ConnectionError) or str(error) == "Connection closed."
    if lost and (request.transport is None or request.transport.is_closing()):
        return refuse(499, "The client has disconnected.")  # nobody receives it
    return _unexpected(request, error)


def _from_aiohttp(error: web.HTTPException) -> web.Response:
    details = {
        404: "There is nothing at this path. Paths must be exactly those of the protocol; there are no redirects.",
        405: "This path does not support that method.",
    }
    kept = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
    return refuse(error.status, details.get(error.status, f"{error.reason}."), kept)


def _unexpected(request: web.Request, error: Exception) -> web.Response:
    # The reply names a log line, not the cause: file paths and SQL must not leave the server.
    if is_disk_full(error):
        disk = request.app[DISK]
        disk.note_full()
        log_failure(log, error, "requests can't be stored")
        return refuse(507, disk.problem())
    reference = secrets.token_hex(4)
    log_failure(log, error, "request %s %s failed, reference %s", request.method, request.path, reference)
    if isinstance(error, OSError) or is_disk_error(error):
        return refuse(
            500,
            f"The server's disk failed during this request; nothing was stored. "
            f"The cause is in the server's log, reference {reference}.",
        )
    return refuse(
        500,
        f"The server failed during this request. The cause is in the server's log, reference {reference}.",
    )


# The access log: method, path, status, time. No query, because that of an upload URL is a secret, and no headers.


class AccessLogger(AbstractAccessLogger):
    """Writes one line at level INFO per request, also for refused ones."""

    def log(self, request: BaseRequest, response: StreamResponse, time: float) -> None:
        """Write the line; ``time`` in s. ``%r`` escapes line breaks in the path."""
        self.logger.info(
            "%s %s %r -> %d in %.0f ms",
            request.remote,
            request.method,
            request.path,
            response.status,
            1000.0 * time,
        )
