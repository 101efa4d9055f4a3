"""The streamers of a recorder: one for its server, and one for recordings that belong to none yet."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from atomstream.errors import SpoolError
from atomstream.login import NO_SERVER, ServerLogin
from atomstream.record.settings import SPOOL_SHARE, RecorderSettings, free_bytes
from atomstream.spool import Spool
from atomstream.streaming import AsyncRHEEDStreamer

CLOSE_S: Final = 2.0
"""Longest wait in s at the end for chunks that are not on the disk yet."""


class Streamers:
    """Makes each streamer when it is first needed, and closes them."""

    def __init__(self, settings: RecorderSettings) -> None:
        self._settings = settings
        self._made: dict[str, AsyncRHEEDStreamer] = {}
        self._making = asyncio.Lock()

    @property
    def login(self) -> ServerLogin:
        """The server that new recordings are sent to; NO_SERVER if there is none."""
        return self._settings.login or NO_SERVER

    async def main(self) -> AsyncRHEEDStreamer:
        """The streamer of new recordings."""
        return await self.of(self.login)

    async def local(self) -> AsyncRHEEDStreamer:
        """The streamer of recordings that belong to no server."""
        return await self.of(NO_SERVER)

    async def of(self, login: ServerLogin) -> AsyncRHEEDStreamer:
        """The streamer of a server."""
        found = self._made.get(login.endpoint)
        return found if found is not None else await self._make(login)

    async def _make(self, login: ServerLogin) -> AsyncRHEEDStreamer:
        async with self._making:
            if login.endpoint in self._made:
                return self._made[login.endpoint]
            limit = self._settings.spool_max_bytes
            if limit is None:
                limit = await asyncio.to_thread(_spool_limit, self._settings.spool_dir)
            options: dict[str, Any] = {
                "spool_dir": self._settings.spool_dir,
                "spool_max_bytes": limit,
                **self._settings.streamer_options,
            }
            made = AsyncRHEEDStreamer(login.api_key, login.endpoint, **options)
            try:
                await made.__aenter__()
            except BaseException:
                await made.close(0.0)
                raise
            self._made[login.endpoint] = made
            return made

    def endpoint_of(self, streamer: AsyncRHEEDStreamer) -> str:
        """The endpoint of a streamer that this object has made."""
        return next(endpoint for endpoint, one in self._made.items() if one is streamer)

    async def close(self) -> None:
        """Close all; what is not sent is in the spool."""
        async with self._making:
            for streamer in self._made.values():
                await streamer.close(CLOSE_S)


def _spool_limit(folder: Path) -> int:
    used = 0
    with suppress(SpoolError):
        used = Spool(folder).status()["bytes"]
    return max(1, used + int(SPOOL_SHARE * free_bytes(folder)))
