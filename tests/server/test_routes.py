"""The routes of the server: their paths, and the credentials that each of them needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from aiohttp import web

from atomstream import protocol
from atomstream.server.app import ROUTES
from atomstream.server.http.access import Access, declared_access, required_access
from atomstream.server.people.rights import Right
from tests.live_server import Serve
from tests.wire_client import WireClient

PUBLIC = {
    "GET /health",
    "GET /healthz",
    "GET /gateway/time",
    "PUT /upload/{data_id}/{index}",  # its URL is signed
    "GET /",
    "GET /login",
    "GET /settings",
    "GET /streams/{data_id}",
    "GET /compare/{data_id}",
    "GET /samples/{sample_id}",
    "GET /dashboard/static/{path:.+}",
    "POST /session",
    "GET /session/ways",
    "GET /oidc/login",
    "GET /oidc/callback",
    "DELETE /session",
}
FOR_PROGRAMS = {
    "GET /metrics",
    "POST /session/links",
    "POST /physical_samples/",
    "GET /projects/{project_id}/physical_samples",
    "GET /physical_samples/{sample_id}/timeseries/",
    "GET /changepoints/",
    "GET /instruments/synthesis",
    "POST /instruments/synthesis",
    "DELETE /instruments/synthesis",
    "GET /physical_samples/{sample_id}/process_steps",
    "GET /physical_samples/{sample_id}/annotations/",
    "GET /data_entries/raw_data/{data_id}",
    "GET /data_entries/processed_data/{data_id}",
    "GET /rheed/images/{data_id}/fingerprint",
    "GET /tags/",
    "POST /tags/",
    "POST /tags/data-items/",
    "POST /projects/",
    "POST /projects/{project_id}/configuration/tracking_samples",
    "POST /rheed/stream/",
    "GET /rheed/stream/{data_id}/chunks",
    "GET /rheed/images/{data_id}/frames/{n}",
    "GET /data_entries/video_single_frames/{data_id}",
    "POST /data_entries/physical_sample",
    "POST /data_entries/raw_data/staged/upload_urls/",
    "POST /tool-state/stream/initialize",
    "POST /tool-state/stream/chunk",
    "POST /tool-state/stream/chunk/multi",
    "POST /tool-state/stream/{data_id}/finalize",
}


CHANGES = {
    "POST /instruments/synthesis",
    "DELETE /instruments/synthesis",
    "POST /physical_samples/",
    "POST /tags/",
    "POST /tags/data-items/",
    "POST /projects/",
    "POST /projects/{project_id}/configuration/tracking_samples",
    "POST /rheed/stream/",
    "PATCH /rheed/stream/{data_id}",
    "POST /rheed/stream/{data_id}/end",
    "POST /rheed/stream/{data_id}/events",
    "PATCH /rheed/stream/{data_id}/events/{event_id}",
    "DELETE /rheed/stream/{data_id}/events/{event_id}",
    "PUT /rheed/stream/{data_id}/regions",
    "PUT /rheed/stream/{data_id}/alarms",
    "PUT /rheed/stream/{data_id}/calibration",
    "POST /rheed/stream/{data_id}/reanalyse",
    "PATCH /rheed/{data_id}/azimuths/{view_id}",
    "POST /data_entries/physical_sample",
    "POST /data_entries/raw_data/staged/upload_urls/",
    "POST /tool-state/stream/initialize",
    "POST /tool-state/stream/chunk",
    "POST /tool-state/stream/chunk/multi",
    "POST /tool-state/stream/{data_id}/finalize",
}
FOR_ADMINISTRATORS = {
    "DELETE /rheed/stream/{data_id}",
    "GET /people",
    "GET /people/audit",
    "POST /people/users",
    "PATCH /people/users/{user_id}",
    "DELETE /people/users/{user_id}",
    "POST /people/users/{user_id}/link",
    "POST /people/keys",
    "POST /people/keys/{key_id}/rotate",
    "DELETE /people/keys/{key_id}",
    "GET /retention",
    "GET /retention/preview",
    "POST /retention/run",
}
READS = {
    "GET /metrics",
    "GET /session",
    "POST /session/links",
    "POST /session/password",
    "GET /physical_samples/",
    "GET /projects/{project_id}/physical_samples",
    "GET /physical_samples/{sample_id}/timeseries/",
    "GET /changepoints/",
    "GET /instruments/synthesis",
    "GET /physical_samples/{sample_id}/process_steps",
    "GET /physical_samples/{sample_id}/annotations/",
    "GET /data_entries/raw_data/{data_id}",
    "GET /data_entries/processed_data/{data_id}",
    "GET /rheed/images/{data_id}/fingerprint",
    "GET /tags/",
    "GET /projects/",
    "GET /data_entries/",
    "GET /data_entries/video_single_frames/{data_id}",
    "GET /rheed/images/{data_id}/frames/{n}",
    "GET /rheed/timeseries/{data_id}/",
    "GET /rheed/{data_id}/azimuths",
    "GET /rheed/stream/{data_id}/analysis",
    "GET /rheed/stream/{data_id}/calibration",
    "GET /rheed/stream/{data_id}/chunks",
    "GET /rheed/stream/{data_id}/chunks/{index}",
    "GET /rheed/stream/{data_id}/columns",
    "GET /rheed/stream/{data_id}/events",
    "GET /rheed/stream/{data_id}/events/{event_id}",
    "GET /rheed/stream/{data_id}/export",
    "GET /rheed/stream/{data_id}/feed",
    "GET /rheed/stream/{data_id}/profiles",
    "GET /rheed/stream/{data_id}/regions",
    "GET /rheed/stream/{data_id}/alarms",
    "GET /rheed/stream/{data_id}/signals",
    "GET /tool-state/{data_id}/timeseries/",
    "GET /dashboard/problems",
    "GET /dashboard/streams/{data_id}",
    "GET /dashboard/streams/{data_id}/comparison",
    "GET /dashboard/streams/{data_id}/growths",
    "GET /dashboard/streams/{data_id}/thumbnail",
    "GET /dashboard/samples/{sample_id}",
    "GET /dashboard/summaries",
    "GET /dashboard/streams/{data_id}/picture",
    "GET /dashboard/streams/{data_id}/profile",
    "GET /dashboard/streams/{data_id}/azimuth-map",
    "GET /dashboard/streams/{data_id}/spectrum",
    "GET /dashboard/streams/{data_id}/pictures",
    "GET /dashboard/streams/{data_id}/series",
}


def routes_with(wanted: Callable[[Access], bool]) -> set[str]:
    """``"GET /path"`` of each route whose access fits."""
    return {
        f"{route.method} {route.path}"
        for route in ROUTES
        if isinstance(route, web.RouteDef) and wanted(required_access(route.handler))
    }


@pytest.mark.parametrize(
    ("right", "routes"),
    [(Right.NONE, PUBLIC), (Right.READ, READS), (Right.WRITE, CHANGES), (Right.ADMIN, FOR_ADMINISTRATORS)],
)
def test_each_route_has_this_right(right: Right, routes: set[str]) -> None:
    """All routes, each with the right that it needs: a new one must be added here."""
    assert routes_with(lambda access: access.right is right) == routes


def test_these_routes_need_a_key() -> None:
    """A browser's session does not open these routes."""
    assert routes_with(lambda access: access.right is not Right.NONE and not access.browser) == FOR_PROGRAMS


def test_each_route_declares_its_right_once() -> None:
    """Each route is registered with a right, and only once."""
    routes = [route for route in ROUTES if isinstance(route, web.RouteDef)]
    assert len(routes) == len(ROUTES)
    assert [route.path for route in routes if declared_access(route.handler) is None] == []
    assert max(Counter((route.method, route.path) for route in routes).values()) == 1


def test_a_handler_without_a_right_needs_an_administrator() -> None:
    """A handler without a declared right needs the key of an administrator."""

    async def forgotten(_request: web.Request) -> web.Response:
        raise AssertionError

    assert required_access(forgotten) == Access(Right.ADMIN, browser=False)


def test_the_paths_of_the_protocol_are_served() -> None:
    """Each path of the protocol has a route with exactly this path."""
    served = {route.path for route in ROUTES if isinstance(route, web.RouteDef)}
    agreed = {value for name, value in vars(protocol).items() if name.endswith("_PATH")}
    assert agreed <= served


async def test_without_a_key_only_the_public_ones_answer(serve: Serve) -> None:
    """Over HTTP too, each route that is not public refuses a request without key and cookie with 401."""
    server = await serve()
    async with WireClient(server) as client:
        statuses = {}
        for route in ROUTES:
            assert isinstance(route, web.RouteDef)
            path = route.path.replace("{path:.+}", "x.js").replace("{", "").replace("}", "")
            async with client.session.request(
                route.method, server.url + path, headers={"X-API-KEY": ""}
            ) as reply:
                statuses[f"{route.method} {route.path}"] = reply.status
    assert {name for name, status in statuses.items() if status != 401} == PUBLIC
