"""The access log: method, path, status, time. No query (upload URLs carry their permission there), no header."""

from __future__ import annotations

from aiohttp.abc import AbstractAccessLogger
from aiohttp.web import BaseRequest, StreamResponse


class AccessLogger(AbstractAccessLogger):
    """One line for each request, at INFO; refused ones too."""

    def log(self, request: BaseRequest, response: StreamResponse, time: float) -> None:
        """Write the line; ``time`` in s. ``%r`` keeps a path's line breaks from making lines of their own."""
        self.logger.info(
            "%s %s %r -> %d in %.0f ms",
            request.remote,
            request.method,
            request.path,
            response.status,
            1000.0 * time,
        )
