"""The web application: which request goes to which handler, and what every request passes first."""

from __future__ import annotations

from aiohttp import web

from atomstream.server import dashboard
from atomstream.server.context import CONTEXT, ServerContext
from atomstream.server.http.api_keys import KeyRing, require_key
from atomstream.server.http.origin import HostGuard, guard_origin
from atomstream.server.http.responses import errors_to_replies
from atomstream.server.routes import catalogue as entries
from atomstream.server.routes import catalogue as names
from atomstream.server.routes import health as clock
from atomstream.server.routes import live, streams, uploads

PUBLIC = frozenset({clock.reference_time, clock.health, uploads.put_chunk}) | dashboard.PUBLIC
"""Handlers that want no key: time, life, pages without data, and the PUT, whose URL is signed."""
BROWSABLE = frozenset({entries.list_entries}) | live.BROWSABLE
"""Handlers that the dashboard's pages call: there a browser's session stands for the key."""


def build_app(house: ServerContext, keys: KeyRing) -> web.Application:
    """The application of one server. Paths are exactly the protocol's: none redirects, none is tidied."""
    guard = HostGuard(house.settings)
    key_guard = require_key(keys, PUBLIC, instead=dashboard.has_session)
    app = web.Application(middlewares=[errors_to_replies, guard_origin(guard), key_guard])
    app[CONTEXT] = house
    app.add_routes(ROUTES)
    dashboard.install(app, house, keys, BROWSABLE)
    app.on_response_prepare.append(_sign)
    return app


async def _sign(_request: web.Request, response: web.StreamResponse) -> None:
    # Else aiohttp tells its own version and Python's to whoever asks.
    response.headers["Server"] = "atomstream"


ROUTES = [
    web.get("/health", clock.health),
    web.get("/gateway/time", clock.reference_time),
    web.get("/physical_samples/", names.list_samples),
    web.post("/physical_samples/", names.create_sample),
    web.get("/tags/", names.list_tags),
    web.post("/tags/", names.create_tag),
    web.post("/tags/data-items/", streams.link_tags),
    web.get("/projects/", names.list_projects),
    web.post("/projects/", names.create_project),
    web.post("/projects/{project_id}/configuration/tracking_samples", names.track_sample),
    web.post("/rheed/stream/", streams.create_stream),
    web.post("/rheed/stream/{data_id}/end", streams.end_stream),
    web.get("/rheed/stream/{data_id}/chunks", streams.stored_chunks),
    web.get("/rheed/images/{data_id}/frames/{n}", entries.no_image),
    web.get("/data_entries/", entries.list_entries),
    web.get("/data_entries/video_single_frames/{data_id}", entries.single_frames),
    web.post("/data_entries/physical_sample", streams.link_sample),
    web.post("/data_entries/raw_data/staged/upload_urls/", uploads.upload_url),
    web.put("/upload/{data_id}/{index}", uploads.put_chunk),
    *live.ROUTES,
]
