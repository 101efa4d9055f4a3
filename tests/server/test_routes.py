"""The routes of the server: their paths, and the credentials that each of them needs."""

from __future__ import annotations

from collections import Counter

from aiohttp import web

from atomstream import protocol
from atomstream.server.app import ROUTES
from atomstream.server.http.access import Access, declared_access, required_access
from tests.live_server import Serve
from tests.wire_client import WireClient

PUBLIC = {
    "GET /health",
    "GET /healthz",
    "GET /gateway/time",
    "PUT /upload/{data_id}/{index}",  # its URL is signed
    "GET /",
    "GET /login",
    "GET /streams/{data_id}",
    "GET /dashboard/static/{path:.+}",
    "POST /session",
    "DELETE /session",
}
FOR_PROGRAMS = {
    "GET /metrics",
    "GET /physical_samples/",
    "POST /physical_samples/",
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
}


def routes_with(right: Access) -> set[str]:
    """``"GET /path"`` of each route with this right."""
    return {
        f"{route.method} {route.path}"
        for route in ROUTES
        if isinstance(route, web.RouteDef) and required_access(route.handler) is right
    }


def test_these_routes_are_public() -> None:
    """A request without a key reaches only these handlers; a browser's session does not open the second group."""
    assert routes_with(Access.PUBLIC) == PUBLIC
    assert routes_with(Access.KEY) == FOR_PROGRAMS


def test_each_route_declares_its_right_once() -> None:
    """Each route is registered with a right, and only once."""
    routes = [route for route in ROUTES if isinstance(route, web.RouteDef)]
    assert len(routes) == len(ROUTES)
    assert [route.path for route in routes if declared_access(route.handler) is None] == []
    assert max(Counter((route.method, route.path) for route in routes).values()) == 1


def test_a_handler_without_a_right_needs_a_key() -> None:
    """A handler without a declared right needs a key."""

    async def forgotten(_request: web.Request) -> web.Response:
        raise AssertionError

    assert required_access(forgotten) is Access.KEY


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
