"""Answers that tests put into the faults of a :class:`~atomstream.testing.MemoryService`."""

from __future__ import annotations

import asyncio

from aiohttp import web

from atomstream.testing import MemoryService
from atomstream.testing.memory_service import Fault

KEY = MemoryService.api_key


def held(until: asyncio.Event, status: int = 503) -> Fault:
    """A fault that waits until ``until`` is set before it answers."""

    async def answer(request: web.Request) -> web.Response:
        await until.wait()
        return web.Response(status=status)

    return answer


def answers(status: int, text: str = "scripted", **headers: str) -> Fault:
    """A fault that is a plain response; underscores in header names stand for dashes."""
    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: web.Response(status=status, text=text, headers=spelled)
