"""How the server says no: JSON bodies ``{"detail": ...}`` in sentences, and nothing of its insides."""

from __future__ import annotations

import logging
import secrets
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.typedefs import Handler
from aiohttp.web import BaseRequest, StreamResponse

from atomstream.errors import RejectedError, ShardError

log = logging.getLogger("atomstream.server")


class HttpError(Exception):
    """A request that is not done, and why: ``detail`` goes to the client as it is."""

    def __init__(self, status: int, detail: Any, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.headers = headers


def json_reply(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """``value`` as JSON, not to be cached or guessed at by a browser."""
    safe = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", **(headers or {})}
    return web.Response(
        body=msgspec.json.encode(value), status=status, headers=safe, content_type="application/json"
    )


def refuse(status: int, detail: Any, headers: dict[str, str] | None = None) -> web.Response:
    """The reply of a request that is not done."""
    return json_reply({"detail": detail}, status=status, headers=headers)


@web.middleware
async def errors_to_replies(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what handlers raise into replies; the outermost middleware, and the only error mapping."""
    try:
        return await handler(request)
    except HttpError as no:
        return refuse(no.status, no.detail, no.headers)
    except ShardError as error:
        return refuse(400, str(error))
    except RejectedError as error:
        return refuse(error.status or 400, str(error))
    except web.HTTPException as error:
        return _from_aiohttp(error)
    except Exception as error:
        return _unexpected(request, error)


def _from_aiohttp(error: web.HTTPException) -> web.Response:
    details = {
        404: "There is nothing at this path; paths are exactly as the protocol has them, without redirects.",
        405: "This path does not take that method.",
    }
    kept = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
    return refuse(error.status, details.get(error.status, f"{error.reason}."), kept)


def _unexpected(request: web.Request, error: Exception) -> web.Response:
    # The reply names a log line, not the cause: paths and SQL are nobody's business over the network.
    reference = secrets.token_hex(4)
    log.error("request %s %s failed, reference %s", request.method, request.path, reference, exc_info=error)
    if isinstance(error, OSError):
        return refuse(
            507 if error.errno in _NO_SPACE else 500,
            f"The server's disk failed at this request; nothing was stored. Its log has reference {reference}.",
        )
    return refuse(500, f"The server failed at this request; its log has the cause at reference {reference}.")


def _no_space_numbers() -> frozenset[int]:
    import errno

    return frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})


_NO_SPACE = _no_space_numbers()


# The access log: method, path, status, time. No query (upload URLs carry their permission there), no header.


class AccessLogger(AbstractAccessLogger):
    """One line for each request, at INFO; refused ones too."""

    def log(self, request: BaseRequest, response: StreamResponse, time: float) -> None:
        """Write the line; ``time`` in s. ``%r`` keeps a path's line breaks from making lines of their own."""
        self.logger.info(
            "%s %s %r -> %d in %.0f ms",
            request.remote,
            request.method,
            request.path,
            response.status,
            1000.0 * time,
        )
