"""The dashboard: pages at ``/``, browser sessions, and the data that the pages need beyond the live results.

The pages are static files of this package (no build step, no external resources). Their scripts request JSON like
any other client, with a session cookie instead of an API key. :func:`install` adds all of it to an application.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiohttp import web

from atomstream.server.archive.downsampling import ColumnReader
from atomstream.server.context import ServerContext
from atomstream.server.dashboard import export, images, pages, series, sessions, streams
from atomstream.server.dashboard.sessions import SESSIONS_FILE, SessionStore, has_session
from atomstream.server.dashboard.streams import Arrivals
from atomstream.server.http.api_keys import KeyRing

__all__ = ["PUBLIC", "ROUTES", "has_session", "install"]

PUBLIC: frozenset[Any] = frozenset(
    {
        pages.list_page,
        pages.login_page,
        pages.stream_page,
        pages.static_file,
        sessions.log_in,
        sessions.log_out,
    }
)
"""Handlers that need neither key nor session: the static pages, login and logout."""

_GUARDED = [
    web.get("/session", sessions.who),
    web.get("/dashboard/streams/{data_id}", streams.stream_info),
    web.get("/dashboard/streams/{data_id}/series", series.series),
    web.get("/dashboard/streams/{data_id}/results.csv", export.results_csv),
    web.get("/dashboard/streams/{data_id}/picture", images.single_picture),
    web.get("/dashboard/streams/{data_id}/pictures", images.live_pictures),
]
ROUTES = [
    web.get("/", pages.list_page),
    web.get("/login", pages.login_page),
    web.get("/streams/{data_id}", pages.stream_page),
    web.get("/dashboard/static/{path:.+}", pages.static_file),
    web.post("/session", sessions.log_in),
    web.delete("/session", sessions.log_out),
    *_GUARDED,
]


def install(app: web.Application, context: ServerContext, keys: KeyRing, browsable: Iterable[Any]) -> None:
    """Add the dashboard to ``app``. The ``browsable`` handlers accept a session instead of a key, too."""
    app[sessions.KEYS] = keys
    app[sessions.SESSIONS] = SessionStore(context.settings.data_dir / SESSIONS_FILE, keys.knows)
    app[sessions.BROWSABLE] = frozenset({*browsable, *(route.handler for route in _GUARDED)})
    app[sessions.LOGIN_LIMITER] = sessions.LoginLimiter()
    app[series.READER] = ColumnReader()
    app[streams.ARRIVALS] = Arrivals()
    app[images.SOCKETS] = images.OpenSockets()
    context.events.chunk_stored.subscribe(app[streams.ARRIVALS].on_chunk_stored)
    context.events.status_changed.subscribe(app[streams.ARRIVALS].on_status_changed)
    app.on_shutdown.append(images.close_sockets)
    app.add_routes(ROUTES)
