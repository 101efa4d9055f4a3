"""The web application: all routes, and the middlewares that every request passes first."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler

from atomstream.server import dashboard
from atomstream.server.catalogue_errors import CatalogueUnavailableError
from atomstream.server.context import CONTEXT, ServerContext, visible_in
from atomstream.server.http.connections import GUARD, ConnectionGuard
from atomstream.server.http.gate import Gate, require_access
from atomstream.server.http.loop_rate_limiter import LoopRateLimiter
from atomstream.server.http.memory_budget import MEMORY, MemoryBudget, bound_memory
from atomstream.server.http.origin import HostGuard, guard_origin
from atomstream.server.http.path_prefix import add_routes
from atomstream.server.http.requests import LONG_JSON
from atomstream.server.http.responses import DISK, HttpError, errors_to_replies
from atomstream.server.ports.store import StoreError
from atomstream.server.ports.stream_log import BusUnavailableError
from atomstream.server.routes import (
    alarms,
    analysis,
    catalogue,
    downloads,
    export,
    feed,
    health,
    hosted,
    hosted_files,
    instruments,
    manage,
    metrics,
    people,
    retention,
    streams,
    tool_state,
    uploads,
)
from atomstream.server.routes import annotations as annotation_routes

ROUTES: Final = (
    *health.routes,
    *metrics.routes,
    *catalogue.routes,
    *streams.routes,
    *manage.routes,
    *people.routes,
    *retention.routes,
    *uploads.routes,
    *analysis.routes,
    *annotation_routes.routes,
    *alarms.routes,
    *hosted.routes,
    *hosted_files.routes,
    *instruments.routes,
    *feed.routes,
    *downloads.routes,
    *export.routes,
    *tool_state.routes,
    *dashboard.ROUTES,
)
"""Every route of the server. A decorator at each handler declares its method, path and right."""


def build_app(
    context: ServerContext, gate: Gate, guard: ConnectionGuard, memory: MemoryBudget
) -> web.Application:
    """The application of one server. Paths are exactly the protocol's; no similar path redirects to them."""
    visible = visible_in(context)
    app = web.Application(
        middlewares=[
            context.measurements.middleware(),
            guard.note_requests(),
            bound_memory(memory),
            errors_to_replies,
            guard_origin(HostGuard(context.settings)),
            *([dashboard.refresh_shared_sessions] if context.documents.is_shared else []),
            require_access(gate, dashboard.principal_of_session, visible),
            guard.note_allowed(),
            _deleted_meanwhile(context),
        ]
    )
    app[CONTEXT], app[DISK] = context, context.disk
    app[GUARD], app[MEMORY], app[LONG_JSON] = guard, memory, LoopRateLimiter(1)
    add_routes(app, ROUTES, context.settings.path_prefix)
    metrics.count_chunks(context)
    dashboard.install(app, context, gate, visible)
    app.on_cleanup.append(_closing(gate))
    app.on_response_prepare.append(_set_server_header)
    return app


def _deleted_meanwhile(context: ServerContext) -> Any:
    """A middleware: whatever fails because its stream was deleted during the request is answered with 410."""

    @web.middleware
    async def checked(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except (HttpError, web.HTTPException, CatalogueUnavailableError, BusUnavailableError, StoreError):
            raise  # they have replies of their own: a client repeats a request that was answered with 503
        except Exception as error:
            # Any error: the files of a stream that is deleted vanish while a handler reads them.
            data_id = request.match_info.get("data_id", "")
            context.streams.refuse_deleted(data_id)
            if request.method in ("GET", "HEAD") and isinstance(error, OSError):
                _name_unreadable(context, data_id, error)
            raise

    return checked


def _name_unreadable(context: ServerContext, data_id: str, error: OSError) -> None:
    """Name a file of a stream that the system does not let this server read; raises HttpError 503 then."""
    if error.errno not in (errno.EACCES, errno.EPERM, errno.EIO) or not error.filename:
        return
    path, folder = Path(error.filename), context.settings.streams_dir / data_id
    if data_id and path.is_relative_to(folder):
        name, why = path.relative_to(folder).as_posix(), error.strerror or "an error of the disk"
        context.streams.damage.of(data_id).add(name, f"it can't be read ({why})")
        raise HttpError(
            503, f"A file of stream {data_id} can't be read at present ({name}: {why})."
        ) from None


def _closing(gate: Gate) -> Callable[[web.Application], Awaitable[None]]:
    async def close(_app: web.Application) -> None:
        gate.limiter.close()

    return close


async def _set_server_header(_request: web.Request, response: web.StreamResponse) -> None:
    # By default aiohttp sends its own version and that of Python.
    response.headers["Server"] = "atomstream"
