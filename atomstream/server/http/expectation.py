"""``Expect: 100-continue``: a client sends its body only once the server has accepted the request's headers.

aiohttp invites the body before any check. Here it is invited when it is about to be read, so that a request without a
key, or of a wrong length, is refused before its client sends the body.
"""

from __future__ import annotations

from aiohttp import HttpVersion11, web


async def expect_nothing(_request: web.Request) -> None:
    """The handler of the header for routes: it leaves the answer to :func:`invite_body`."""


async def invite_body(request: web.Request) -> None:
    """Answer with 100 if the client waits for it. Called before a body is read."""
    if request.version == HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # it is not part of the reply
