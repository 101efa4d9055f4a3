"""What needs no key: reference time, a sign of life, and a page that says what this is."""

from __future__ import annotations

import time

from aiohttp import web

from atomstream.server.replies import json_reply

# The page is static and of one piece: it loads nothing, runs nothing, and stands in nobody's frame.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>atomstream</title>
<style>body { font: 16px/1.5 sans-serif; max-width: 40em; margin: 3em auto; padding: 0 1em }</style></head>
<body>
<h1>atomstream is running</h1>
<p>This server takes live RHEED frames and keeps them as Zarr v3 archives. Point a streamer here:</p>
<pre>RHEEDStreamer(api_key="...", endpoint="&lt;the address of this page&gt;")</pre>
<p>Archives lie on the server's machine under <code>streams/&lt;data_id&gt;/frames.zarr</code> of the folder that
it printed at its start; any Zarr v3 reader opens them, also while a stream runs. The README has the rest.</p>
</body></html>
"""


async def reference_time(_request: web.Request) -> web.Response:
    """``GET /gateway/time``: when the request was received and when the reply left, UTC ms."""
    received = time.time_ns()
    return json_reply({"receivedAtUnixMs": received / 1e6, "transmittedAtUnixMs": time.time_ns() / 1e6})


async def health(_request: web.Request) -> web.Response:
    """``GET /health``: the server answers."""
    return json_reply({"status": "ok"})


async def front_page(_request: web.Request) -> web.Response:
    """``GET /``: what this is; no data, so no key."""
    return web.Response(text=PAGE, content_type="text/html", headers=PAGE_HEADERS)
