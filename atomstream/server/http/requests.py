"""Reading requests: JSON bodies with limits of size, time and depth, names, ids and query parameters."""

from __future__ import annotations

import asyncio
import math
import uuid
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from aiohttp import web
from multidict import MultiMapping

from atomstream.protocol import MAX_NAME_CHARS
from atomstream.server.http.expectation import invite_body
from atomstream.server.http.loop_rate_limiter import LoopRateLimiter
from atomstream.server.http.memory_budget import HOLDING
from atomstream.server.http.responses import HttpError
from atomstream.server.settings import USUAL_JSON_BYTES

T = TypeVar("T")

UuidText: TypeAlias = Annotated[
    str, msgspec.Meta(pattern="^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$", max_length=36)
]
"""A UUID as text. The tables contain lower-case text, so it is compared in lower case."""

JSON_RATIO: Final = 24
"""Bytes that a byte of JSON becomes at most when it is decoded: ``[],`` becomes a list of 64 bytes."""
JSON_DEADLINE_S = 15.0
"""Time limit for a whole JSON body in s. aiohttp itself has none."""
LONG_JSON: Final = web.AppKey("long_json", LoopRateLimiter)
"""Which bodies of more than ``USUAL_JSON_BYTES`` are decoded: one in each iteration of the event loop, so that many of
them at once do not add up."""


async def read_json(
    request: web.Request, kind: type[T], *, strings: bool = False, most: int = USUAL_JSON_BYTES
) -> T:
    """The JSON body of ``request``, of at most ``most`` bytes, as ``kind``.

    With ``strings``, numbers may be written as strings. ``kind`` states the type of every value that the client
    chooses: an arbitrary value may be 40,000 lists, whose decoding holds the event loop.

    Raises:
        HttpError: 400 invalid, 408 too slow, 413 too long, 415 compressed.
    """
    data = await read_bounded(request, most)
    request[HOLDING].grow(len(data) * JSON_RATIO)
    if len(data) > USUAL_JSON_BYTES:
        await request.app[LONG_JSON].wait()
    try:
        return msgspec.json.decode(data, type=kind, strict=not strings)
    except RecursionError:
        raise HttpError(400, "The JSON body is nested too deeply.") from None
    except (msgspec.MsgspecError, UnicodeError, ValueError) as error:
        raise HttpError(400, f"The JSON body is not valid: {error}.") from None


async def read_bounded(request: web.Request, most: int = USUAL_JSON_BYTES) -> bytes:
    """The body of ``request``, at most ``most`` bytes, within ``JSON_DEADLINE_S``; raises HttpError otherwise."""
    refuse_encoded(request)
    if (request.content_length or 0) > most:
        raise HttpError(413, f"The body is too long: at most {most} bytes are read.")
    try:
        async with asyncio.timeout(JSON_DEADLINE_S):
            await invite_body(request)
            return await _read_limited(request, most)
    except TimeoutError:
        raise HttpError(408, f"The body did not arrive within {JSON_DEADLINE_S:g} s.") from None
    except (web.RequestPayloadError, ConnectionError):
        raise HttpError(400, "The body ended before its Content-Length.") from None


async def _read_limited(request: web.Request, most: int) -> bytes:
    data, holding = bytearray(), request[HOLDING]
    while piece := await request.content.readany():
        holding.grow(2 * (len(data) + len(piece)))  # it is copied once, below
        data += piece
        if len(data) > most:
            raise HttpError(413, f"The body is too long: at most {most} bytes are read.")
    return bytes(data)


def refuse_encoded(request: web.Request) -> None:
    """Refuse a compressed body, because it could expand to any size.

    Raises:
        HttpError: 415 if the request has a Content-Encoding.
    """
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in {"", "identity"}:
        raise HttpError(
            415, "Compressed bodies (Content-Encoding) are not accepted; send the body uncompressed."
        )


def checked_name(name: str, what: str) -> str:
    """``name`` without outer blanks.

    Raises:
        HttpError: 400 if it is empty or longer than ``MAX_NAME_CHARS`` characters.
    """
    bare = name.strip()
    if not bare:
        raise HttpError(400, f"The {what}'s name is empty.")
    if len(bare) > MAX_NAME_CHARS:
        raise HttpError(
            400, f"The {what}'s name has {len(bare)} characters; at most {MAX_NAME_CHARS} are allowed."
        )
    return bare


def checked_ids(query: MultiMapping[str], name: str, most: int) -> tuple[str, ...]:
    """The UUIDs in a repeated query parameter, in lower case, each once.

    Raises:
        HttpError: 400 if one is not a UUID, or there are more than ``most``.
    """
    wanted = tuple(dict.fromkeys(text.lower() for text in query.getall(name, ())))
    if len(wanted) > most:
        raise HttpError(400, f"{name} accepts at most {most} ids; there are {len(wanted)}.")
    for text in wanted:
        try:
            uuid.UUID(text)
        except ValueError:
            raise HttpError(400, f"{name}: {text[:64]!r} is not the id of a stream.") from None
    return wanted


def number(text: str | None, name: str, low: float, high: float) -> float | None:
    """The number in a query parameter, from ``low`` to ``high``; None if the parameter is missing or empty.

    Raises:
        HttpError: 400 if it is not a number or out of range.
    """
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise HttpError(400, f"{name} must be a number from {low:g} to {high:g}; {text[:64]!r} is not one.")
    return value
