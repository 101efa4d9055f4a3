"""A real atomstream server for tests, with its archive in a folder and its live analysis."""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from atomstream.records import Frames
from atomstream.testing.context import AsyncOrThreaded

if TYPE_CHECKING:
    import os

    from atomstream.server.runner import RunningServer


class LocalServer(AsyncOrThreaded):
    """A server on the loopback address that can be stopped and started again on its folder, port and key.

    Made by :func:`running_server`. ``settings`` are the fields of :class:`atomstream.server.ServerSettings`.
    """

    def __init__(self, data_dir: str | os.PathLike[str] | None = None, **settings: Any) -> None:
        super().__init__()
        self._given = data_dir
        self._settings: dict[str, Any] = {"port": 0, **settings}
        self._stack: AsyncExitStack | None = None
        self.running: RunningServer | None = None
        """The server's own object; None before the first start."""
        self.data_dir = Path(data_dir or "")
        """The folder with the archives; a temporary one, removed at the end, unless it was given."""
        self.url = ""
        """The endpoint for a streamer; the same one after a restart."""
        self.api_key = ""
        """A key that the server accepts."""

    async def start(self) -> None:
        """Listen; returns when requests are answered.

        Raises:
            ConfigError: a setting is invalid, or the folder belongs to another server.
        """
        from atomstream.server import ServerSettings
        from atomstream.server import running_server as serve

        async with AsyncExitStack() as stack:
            if self._given is None:
                self.data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="atomstream-")))
            settings = ServerSettings(data_dir=self.data_dir, **self._settings)
            self.running = await stack.enter_async_context(serve(settings))
            self.url = self.running.url
            self.api_key = self.running.api_key or self.api_key
            self._settings["port"] = urlsplit(self.url).port
            self._stack = stack.pop_all()

    async def stop(self) -> None:
        """Stop as after SIGTERM; does nothing if it is stopped already."""
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()

    def folder(self, data_id: str) -> Path:
        """The folder of one stream."""
        return self.data_dir / "streams" / data_id

    def frames(self, data_id: str) -> Frames:
        """All frames of a stream as zarr-python reads them, (N, H, W); missing ones are 0."""
        import zarr

        array: Any = zarr.open_group(self.folder(data_id) / "frames.zarr", mode="r")["frames"]
        frames: Frames = np.asarray(array[:])
        return frames


def running_server(data_dir: str | os.PathLike[str] | None = None, **settings: Any) -> LocalServer:
    """A real server for the duration of a ``with`` or ``async with`` block::

        with running_server(tmp_path) as server:
            streamer = RHEEDStreamer(server.api_key, server.url)

    Args:
        data_dir: the folder for its archives; a temporary one if it is None.
        settings: fields of :class:`atomstream.server.ServerSettings`, such as ``api_key="lab-key" * 6``.
    """
    return LocalServer(data_dir, **settings)
