"""Static pages of the dashboard, sent with a strict Content-Security-Policy.

Pages contain no data and need no key; their scripts request the data. They use only scripts, styles and fonts of
this server and cannot be embedded in a frame.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from aiohttp import web

from atomstream.server.context import context_of, visible_in
from atomstream.server.dashboard.sessions import logged_in
from atomstream.server.http.access import access
from atomstream.server.http.path_prefix import prefix_of, with_prefix
from atomstream.server.http.responses import HttpError
from atomstream.server.people.rights import Right
from atomstream.server.streams.registry import checked_id, unknown_stream

routes = web.RouteTableDef()

STATIC = Path(__file__).parent / "static"
TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "font-src 'self'",
        "connect-src 'self'",
        "manifest-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        # Trusted types: the browser refuses to create elements from strings, so names stay text.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    # Revalidated each time (304 if unchanged), so that browsers get the new pages after an update.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file: content, MIME type and a tag that changes with the content."""

    body: bytes
    content_type: str
    etag: str


@cache
def static_files(prefix: str = "") -> dict[str, StaticFile]:
    """All files that are served, by their path below ``static``; the links of pages begin with ``prefix``."""
    paths = [path for path in STATIC.rglob("*") if path.suffix in TYPES]
    return {path.relative_to(STATIC).as_posix(): _load(path, prefix) for path in paths}


def _load(path: Path, prefix: str) -> StaticFile:
    body = path.read_bytes()
    if path.suffix == ".html":
        body = with_prefix(body.decode(), prefix).encode()
    return StaticFile(body, TYPES[path.suffix], hashlib.sha256(body).hexdigest()[:20])


@routes.get("/")
@access(Right.NONE)
async def list_page(request: web.Request) -> web.Response:
    """``GET /``: the list of streams."""
    return _reply(request, "streams.html")


@routes.get("/login")
@access(Right.NONE)
async def login_page(request: web.Request) -> web.Response:
    """``GET /login``: the login form."""
    return _reply(request, "login.html")


@routes.get("/settings")
@access(Right.NONE)
async def settings_page(request: web.Request) -> web.Response:
    """``GET /settings``: people, keys and the audit log, for administrators; and one's own password."""
    return _reply(request, "settings.html")


@routes.get("/streams/{data_id}")
@access(Right.NONE)
async def stream_page(request: web.Request) -> web.Response:
    """``GET /streams/{data_id}``: the page of one stream; its script reads the id from the address."""
    data_id = checked_id(request.match_info["data_id"])
    context = context_of(request)
    folder = context.settings.streams_dir / data_id
    # The page of a deleted stream tells that it was deleted.
    if data_id not in context.streams.deleted and not await asyncio.to_thread(folder.is_dir):
        raise unknown_stream(data_id)
    principal = logged_in(request)
    if principal is not None and principal.projects is not None:
        await visible_in(context)(principal, data_id)
    return _reply(request, "stream.html")


@routes.get("/dashboard/static/{path:.+}")
@access(Right.NONE)
async def static_file(request: web.Request) -> web.Response:
    """``GET /dashboard/static/{path}``: a script, style, font or icon."""
    path = request.match_info["path"]
    if path not in static_files() or path.endswith(".html"):
        raise HttpError(404, "There is no such file.")
    return _reply(request, path)


def _reply(request: web.Request, name: str) -> web.Response:
    file = static_files(prefix_of(request))[name]
    headers = {**HEADERS, "ETag": f'"{file.etag}"'}
    if any(tag.value == file.etag for tag in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    charset = None if file.content_type == "font/woff2" else "utf-8"
    return web.Response(body=file.body, content_type=file.content_type, charset=charset, headers=headers)
