"""The path prefix of a server behind a proxy, such as ``/rheed`` of ``--public-url http://lab.example/rheed``.

A proxy forwards a request with the prefix or removes it, so each route is known under both paths. Every address that
the server sends (links of a page, upload URLs, the path of the cookie) has the prefix, as the client needs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from aiohttp import web

from atomstream.errors import ConfigError
from atomstream.server.http.expectation import expect_nothing

_PREFIX: Final = web.AppKey("path_prefix", str)
_OWN_PATHS: Final = web.AppKey("own_paths", dict[web.AbstractResource, str])

_PARAMETER: Final = re.compile(r"\{[^}]*\}")
_LINK: Final = re.compile(r'\b(href|src|action)="/(?!/)')


def check_prefix(routes: Iterable[web.AbstractRouteDef], prefix: str) -> None:
    """Refuse a prefix with which a path would have two meanings; raises ConfigError."""
    known = [(route.method, route.path) for route in routes if isinstance(route, web.RouteDef)]
    shapes = {(method, _shape(path)) for method, path in known}
    both = [path for method, path in known if prefix and (method, _shape(prefix + path)) in shapes]
    if both:
        raise ConfigError(
            f"The path {prefix} of public_url can't be used, because {prefix}{both[0]} is also a path of the server "
            "itself. Choose another one."
        )


def add_routes(app: web.Application, routes: Iterable[web.AbstractRouteDef], prefix: str) -> None:
    """Add ``routes`` to ``app``: under their own paths, and under the same paths after ``prefix``.

    :func:`check_prefix` has accepted the prefix.
    """
    known = [
        web.RouteDef(one.method, one.path, one.handler, {**one.kwargs, "expect_handler": expect_nothing})
        for one in routes
        if isinstance(one, web.RouteDef)
    ]
    own = app.add_routes(known)
    app[_PREFIX], app[_OWN_PATHS] = prefix, {}
    if prefix:
        added = app.add_routes([_moved(route, prefix + route.path) for route in known])
        for route in app.add_routes([_moved(route, prefix) for route in known if route.path == "/"]):
            app[_OWN_PATHS][_resource(route)] = "/"
        for there, here in zip(added, own, strict=True):
            app[_OWN_PATHS][_resource(there)] = _resource(here).canonical


def prefix_of(request: web.Request) -> str:
    """The prefix of all addresses that are sent to the client: an empty text, or one such as ``/rheed``."""
    return request.app[_PREFIX]


def route_path(request: web.Request) -> str | None:
    """The path of the request's route without the prefix, such as ``/streams/{data_id}``; None if there is no route."""
    resource = request.match_info.route.resource
    return None if resource is None else request.app[_OWN_PATHS].get(resource, resource.canonical)


def with_prefix(html: str, prefix: str) -> str:
    """A page whose links to this server have ``prefix``: those in ``href``, ``src`` and ``action``."""
    return _LINK.sub(rf'\1="{prefix}/', html)


def _moved(route: web.RouteDef, path: str) -> web.RouteDef:
    return web.RouteDef(route.method, path, route.handler, route.kwargs)


def _resource(route: web.AbstractRoute) -> web.AbstractResource:
    assert route.resource is not None
    return route.resource


def _shape(path: str) -> str:
    return _PARAMETER.sub("{}", path)
