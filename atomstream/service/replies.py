"""One call of the API and its reply: how much of a body is read, and how it is parsed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

import aiohttp

from atomstream.errors import ServiceError
from atomstream.records import Json
from atomstream.service import error_mapping
from atomstream.service.error_mapping import RequestContext
from atomstream.service.reply_limits import decompress, parse_json

T = TypeVar("T")

ERROR_BODY_BYTES: Final = 64 << 10
"""At most this much of an error body is read."""

REPLY_BODY_BYTES: Final = 16 << 20
"""Larger replies and messages are rejected."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the API.

    ``what`` completes "Could not ..." in error messages. ``path`` is percent-encoded. ``keyed`` adds the API key.
    """

    what: str
    method: str
    path: str
    query: str = ""
    body: bytes | None = None
    keyed: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply with any status. The names of ``headers`` are case-insensitive.

    ``raw_body`` is the body before decompression. Only :meth:`parse` and :meth:`error` decompress it: many calls need
    nothing but the status, and must not fail because of a body that they do not use.
    """

    context: RequestContext
    status: int
    headers: Mapping[str, str]
    raw_body: bytes

    def parse(self, read: Callable[[Json], T]) -> T:
        """Parse the body as JSON and return ``read(data)``; ``read`` raises ValueError for unexpected data.

        Raises:
            ServerBusyError: the body can't be decompressed, is too large or not JSON, or ``read`` rejected it.
        """
        try:
            return read(parse_json(self._body()))
        except ValueError as error:
            why = str(error)
        raise error_mapping.invalid_reply(self.context, self.status, why)

    def error(self) -> ServiceError:
        """The exception for this reply, if its status is an error. An unreadable body counts as an empty one."""
        try:
            body = self._body()
        except ValueError:
            body = b""
        return error_mapping.from_reply(self.context, self.status, self.headers, body)

    def _body(self) -> bytes:
        limit = body_limit(self.status)
        body = decompress(self.raw_body, self.headers.get("Content-Encoding", ""), limit + 1)
        if len(body) > limit and self.is_success:
            raise ValueError("it is too large")
        return body

    @property
    def is_success(self) -> bool:
        """True for a 2xx status."""
        return 200 <= self.status < 300


def body_limit(status: int) -> int:
    """The longest body of a reply that is read, in bytes."""
    return REPLY_BODY_BYTES if 200 <= status < 300 else ERROR_BODY_BYTES


async def read_body(response: aiohttp.ClientResponse) -> bytes:
    """The body of a reply. If it is too long: its start, one byte more than the limit, and the connection is closed."""
    limit = body_limit(response.status)
    body = bytearray()
    async for part in response.content.iter_chunked(ERROR_BODY_BYTES):
        body += part
        if len(body) > limit:
            response.close()
            break
    return bytes(body[: limit + 1])
