"""Logging in by key, out again, and whether one is."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Annotated

import msgspec
from aiohttp import web

from atomstream.server.auth import fingerprint
from atomstream.server.bodies import read_json
from atomstream.server.dashboard.guard import (
    KEYS,
    SESSIONS,
    check_own_page,
    drop_cookie,
    session_token,
    set_cookie,
)
from atomstream.server.replies import RefusedError, json_reply

MAX_WRONG = 10
WRONG_WITHIN_S = 60.0


class Login(msgspec.Struct, frozen=True):
    """The body that logs in."""

    key: Annotated[str, msgspec.Meta(max_length=1024)]


class Attempts:
    """Counts wrong keys: our own can't be guessed, but a key that a person chose could be.

    ``MAX_WRONG`` within ``WRONG_WITHIN_S`` close the door to further ones for the rest of that time. All
    callers together, for behind a proxy they have one address.
    """

    def __init__(self) -> None:
        self._wrong: deque[float] = deque(maxlen=MAX_WRONG)

    def check(self) -> None:
        """Raise RefusedError 429 after too many."""
        if len(self._wrong) == MAX_WRONG and time.monotonic() - self._wrong[0] < WRONG_WITHIN_S:
            wait_s = round(WRONG_WITHIN_S - (time.monotonic() - self._wrong[0])) + 1
            raise RefusedError(
                429,
                f"Too many wrong keys were tried. Try again in {wait_s} s.",
                headers={"Retry-After": str(wait_s)},
            )

    def note_wrong(self) -> None:
        """One more."""
        self._wrong.append(time.monotonic())


ATTEMPTS = web.AppKey("dashboard_attempts", Attempts)


async def log_in(request: web.Request) -> web.Response:
    """``POST /session {"key"}``: 204 with the session's cookie; 401 for a wrong key, 429 after many of them."""
    check_own_page(request)
    request.app[ATTEMPTS].check()
    key = (await read_json(request, Login)).key.strip()
    if not request.app[KEYS].opens(key):
        request.app[ATTEMPTS].note_wrong()
        raise RefusedError(401, "This key does not open this server.")
    token = await asyncio.to_thread(request.app[SESSIONS].open, fingerprint(key))
    reply = web.Response(status=204)
    set_cookie(request, reply, token)
    return reply


async def log_out(request: web.Request) -> web.Response:
    """``DELETE /session``: 204; ends the session and takes the cookie back."""
    check_own_page(request)
    await asyncio.to_thread(request.app[SESSIONS].close, session_token(request))
    reply = web.Response(status=204)
    drop_cookie(request, reply)
    return reply


async def who(_request: web.Request) -> web.Response:
    """``GET /session``: ``{"ok": true}`` for who is logged in; all others were sent away before."""
    return json_reply({"ok": True})
