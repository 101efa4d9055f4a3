"""The page that a person sees in a browser in place of one that does not exist. Programs get JSON."""

from __future__ import annotations

import html
from typing import Final

from aiohttp import web

from atomstream.pages.static_files import HEADERS, in_shell
from atomstream.server.http.path_prefix import with_prefix

_TITLES: Final = {
    401: "A key is needed",
    404: "Not found",
    410: "Deleted",
    503: "Not available",
    507: "The disk is full",
}

_PAGE: Final = """<title>{title} · atomstream</title>
<body>
<main class="error-page">
<h1>{title}</h1>
<p>{detail}</p>
<p><a href="/">All streams</a></p>
</main>
</body>
"""

_HEADERS: Final = {
    **HEADERS,
    "Content-Security-Policy": (  # unlike the other pages, it runs no script
        "default-src 'none'; style-src 'self'; font-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
}


def wants_page(request: web.Request) -> bool:
    """Whether a person opened the address in a browser: those ask for HTML, programs and scripts do not."""
    accept = request.headers.get("Accept", "")
    return request.method in ("GET", "HEAD") and "text/html" in accept and "Upgrade" not in request.headers


def error_page(status: int, detail: str, prefix: str) -> web.Response:
    """A page with the sentence ``detail``, which may quote the address and is shown as text.

    ``prefix`` is that of the server's addresses.
    """
    title = _TITLES.get(status, "That did not work")
    page = _PAGE.format(title=title, detail=html.escape(detail or f"The server answered {status}."))
    text = with_prefix(in_shell(page, scripts=False), prefix)
    return web.Response(text=text, status=status, content_type="text/html", headers=_HEADERS)
