"""Real servers for tests, in the test's own loop or in a thread of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

import anyio.from_thread

if TYPE_CHECKING:  # the client's tests run without the server's extra as long as they start none
    from atomstream.server.archive.stream_archive import StreamArchive
    from atomstream.server.runner import RunningServer


Serve: TypeAlias = Callable[..., Awaitable["LiveServer"]]
"""What the fixture ``serve`` is: a factory of servers."""


class LiveServer:
    """One server that can be stopped and started again on its folder, port and key."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = {"port": 0, **settings}
        self._stack: AsyncExitStack | None = None
        self.running: RunningServer | None = None
        self.data_dir = Path(settings["data_dir"])
        self.url = ""
        self.api_key = ""

    async def start(self) -> None:
        """Listen; returns once requests are answered."""
        from atomstream.server import ServerSettings, running_server

        stack = AsyncExitStack()
        self.running = await stack.enter_async_context(running_server(ServerSettings(**self._settings)))
        self._stack = stack
        self.url = self.running.url
        self.api_key = self.running.api_key or self.api_key
        self._settings["port"] = urlsplit(self.url).port

    async def stop(self) -> None:
        """Stop as a signal would; harmless when it is stopped already."""
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()

    def change(self, **settings: Any) -> None:
        """Other settings for the next start."""
        self._settings.update(settings)

    @property
    def headers(self) -> dict[str, str]:
        """The header that carries this server's key."""
        return {"X-API-KEY": self.api_key}

    def archive(self, data_id: str) -> StreamArchive:
        """The archive of one stream, opened from the disk."""
        from atomstream.server.archive.stream_archive import StreamArchive

        return StreamArchive.open(self.folder(data_id))

    def folder(self, data_id: str) -> Path:
        """Where one stream lies."""
        return self.data_dir / "streams" / data_id


class ThreadedServer:
    """The same server in a thread of its own, for tests whose thread has no loop."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._live = LiveServer(settings)
        self._portal_manager: Any = None
        self._portal: Any = None

    def start(self) -> None:
        """Listen; returns once requests are answered."""
        self._portal_manager = anyio.from_thread.start_blocking_portal()
        self._portal = self._portal_manager.__enter__()
        self._stop_asked = self._portal.call(asyncio.Event)
        # One task owns the server from start to end, for task groups are left where they were entered.
        self._life, _ = self._portal.start_task(self._live_on)

    async def _live_on(self, *, task_status: Any) -> None:
        await self._live.start()
        try:
            task_status.started()
            await self._stop_asked.wait()
        finally:
            await self._live.stop()

    def stop(self) -> None:
        """Stop as a signal would; harmless when it is stopped already."""
        if self._portal is None:
            return
        self._portal.call(self._stop_asked.set)
        self._life.result()
        self._portal = None
        self._portal_manager.__exit__(None, None, None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._live, name)
