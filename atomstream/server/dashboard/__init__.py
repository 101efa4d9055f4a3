"""The dashboard: pages at ``/``, browser sessions, and the data that the pages need beyond the live results.

The pages are static files of this package (no build step, no external resources). Their scripts request JSON like
any other client, with a session cookie instead of an API key. :func:`install` adds all of it to an application.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from atomstream.server.archive.downsampling import ColumnReader
from atomstream.server.context import ServerContext
from atomstream.server.dashboard import (
    azimuth_map,
    comparison,
    curves,
    growths,
    images,
    oidc_sign_in,
    overviews,
    pages,
    problems,
    samples,
    series,
    sessions,
    sign_in,
    streams,
)
from atomstream.server.dashboard.oidc_limits import OidcLimits
from atomstream.server.dashboard.password_check import PasswordCheck
from atomstream.server.dashboard.session_store import SessionStore
from atomstream.server.dashboard.sessions import principal_of_session, refresh_shared_sessions
from atomstream.server.dashboard.throughput import THROUGHPUT, ThroughputMonitor
from atomstream.server.http.gate import GATE, Gate, Visible
from atomstream.server.http.oidc_provider import OidcProvider
from atomstream.server.http.open_sockets import SOCKETS, OpenSockets
from atomstream.server.http.recent_counts import RecentCounts
from atomstream.server.live.growth_summary import SummaryReader

__all__ = ["ROUTES", "install", "principal_of_session", "refresh_shared_sessions"]

ROUTES: Final = (
    *pages.routes,
    *sign_in.routes,
    *oidc_sign_in.routes,
    *streams.routes,
    *problems.routes,
    *series.routes,
    *curves.routes,
    *azimuth_map.routes,
    *images.routes,
    *growths.routes,
    *comparison.routes,
    *overviews.routes,
    *samples.routes,
)


def install(app: web.Application, context: ServerContext, gate: Gate, visible: Visible) -> None:
    """Add to ``app`` what the handlers of the dashboard need."""
    app[GATE] = gate
    app[sessions.SESSIONS] = SessionStore(
        context.documents, lambda holder: gate.of_holder(holder) is not None
    )
    app[sign_in.PASSWORDS] = PasswordCheck(gate.people)
    app[sign_in.SIGN_INS] = RecentCounts(sign_in.MAX_SIGN_INS, sign_in.SIGN_INS_S)
    if context.settings.oidc is not None:
        app[oidc_sign_in.PROVIDER] = OidcProvider(context.settings.oidc)
        app[oidc_sign_in.LIMITS] = OidcLimits()
    app[series.READER] = ColumnReader()
    app[growths.SUMMARIES] = SummaryReader()
    app[overviews.THUMBNAILS] = overviews.Thumbnails()
    arrivals = app[THROUGHPUT] = ThroughputMonitor(
        is_alone=context.settings.store is None and not context.documents.is_shared
    )
    sockets = app[SOCKETS] = OpenSockets()
    context.signals.chunk_stored.subscribe(arrivals.on_chunk_stored)
    context.signals.status_changed.subscribe(arrivals.on_status_changed)
    context.signals.followed.subscribe(arrivals.on_followed)
    context.signals.deleted.subscribe(arrivals.on_deleted)
    app.cleanup_ctx.append(sessions.watch_sessions(visible))
    app.on_cleanup.append(_close_sign_ins)
    app.on_shutdown.append(lambda _: sockets.close())


async def _close_sign_ins(app: web.Application) -> None:
    app[sign_in.PASSWORDS].close()
    if oidc_sign_in.LIMITS in app:
        app[oidc_sign_in.LIMITS].close()
