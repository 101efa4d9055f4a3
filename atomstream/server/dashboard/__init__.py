"""The dashboard: the pages at ``/``, sessions of browsers, and what the pages need beyond the live results.

Pages are plain files of this package (no build step, nothing from elsewhere); they ask the server for JSON as
any client does, with a session's cookie in place of the key. :func:`install` puts all of it into an app.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiohttp import web

from atomstream.server.archive.downsampling import ColumnReader
from atomstream.server.context import ServerContext
from atomstream.server.dashboard import export, pages, series
from atomstream.server.dashboard import images as picture_feed
from atomstream.server.dashboard import images as sockets
from atomstream.server.dashboard import sessions as guard
from atomstream.server.dashboard import sessions as login
from atomstream.server.dashboard import streams as stream_info
from atomstream.server.dashboard.sessions import SESSIONS_FILE, SessionStore, has_session
from atomstream.server.dashboard.streams import Arrivals
from atomstream.server.http.api_keys import KeyRing

__all__ = ["PUBLIC", "ROUTES", "has_session", "install"]

PUBLIC: frozenset[Any] = frozenset(
    {pages.list_page, pages.login_page, pages.stream_page, pages.static_file, login.log_in, login.log_out}
)
"""Handlers that want neither key nor session: pages without data, and the door itself."""

_GUARDED = [
    web.get("/session", login.who),
    web.get("/dashboard/streams/{data_id}", stream_info.stream_info),
    web.get("/dashboard/streams/{data_id}/series", series.series),
    web.get("/dashboard/streams/{data_id}/results.csv", export.results_csv),
    web.get("/dashboard/streams/{data_id}/picture", picture_feed.single_picture),
    web.get("/dashboard/streams/{data_id}/pictures", picture_feed.live_pictures),
]
ROUTES = [
    web.get("/", pages.list_page),
    web.get("/login", pages.login_page),
    web.get("/streams/{data_id}", pages.stream_page),
    web.get("/dashboard/static/{path:.+}", pages.static_file),
    web.post("/session", login.log_in),
    web.delete("/session", login.log_out),
    *_GUARDED,
]


def install(app: web.Application, house: ServerContext, keys: KeyRing, browsable: Iterable[Any]) -> None:
    """Add the dashboard to ``app``; ``browsable`` handlers of others take a session for a key too."""
    app[guard.KEYS] = keys
    app[guard.SESSIONS] = SessionStore(house.settings.data_dir / SESSIONS_FILE, keys.knows)
    app[guard.BROWSABLE] = frozenset({*browsable, *(route.handler for route in _GUARDED)})
    app[login.ATTEMPTS] = login.LoginLimiter()
    app[series.READER] = ColumnReader()
    app[stream_info.ARRIVALS] = Arrivals()
    app[sockets.SOCKETS] = sockets.OpenSockets()
    house.events.chunk_stored.subscribe(app[stream_info.ARRIVALS].note)
    house.events.status_changed.subscribe(app[stream_info.ARRIVALS].follow)
    app.on_shutdown.append(sockets.close_sockets)
    app.add_routes(ROUTES)
