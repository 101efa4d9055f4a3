"""Real servers for tests: :class:`atomstream.testing.LocalServer` with access to its files and settings."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from atomstream.testing import LocalServer
from tests.paths import MEMORY
from tests.worker_template import use_template

if TYPE_CHECKING:  # the client's tests run without the server's extra as long as they start no server
    from atomstream.server.archive.stream_archive import StreamArchive
    from atomstream.server.context import ServerContext
    from atomstream.server.streams.store_sync import StoreSync


Serve: TypeAlias = Callable[..., Awaitable["LiveServer"]]
"""The type of the fixture ``serve``: a factory of servers."""


class LiveServer(LocalServer):
    """A server in the test's event loop; :meth:`stop` and :meth:`start` restart it in place."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        use_template()

    def change(self, **settings: Any) -> None:
        """Use other settings at the next start."""
        self._settings.update(settings)

    @property
    def headers(self) -> dict[str, str]:
        """The header with this server's API key."""
        return {"X-API-KEY": self.api_key}

    @property
    def context(self) -> ServerContext:
        """The parts of the running server."""
        assert self.running is not None
        return self.running.context

    @property
    def sync(self) -> StoreSync:
        """The running server's exchange with its store."""
        assert self.running is not None
        assert self.running.sync is not None
        return self.running.sync

    def archive(self, data_id: str) -> StreamArchive:
        """The archive of one stream, read from the disk again."""
        from atomstream.server.archive.stream_archive import StreamArchive

        return StreamArchive.open(self.folder(data_id))

    def incoming(self, data_id: str) -> list[str]:
        """Names of the files of uploads that are neither stored nor refused."""
        folder = self.folder(data_id) / "incoming"
        return [path.name for path in folder.iterdir()] if folder.exists() else []


@contextmanager
def new_folders() -> Iterator[Callable[[], Path]]:
    """A factory of empty folders for the data of servers, in memory; they are removed at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="atomstream-", dir=MEMORY, ignore_cleanup_errors=True) as root:
        yield lambda: Path(tempfile.mkdtemp(prefix="server-", dir=root))


@asynccontextmanager
async def serving() -> AsyncIterator[Serve]:
    """The factory of the fixture ``serve``. Servers that still run at the end of the block are stopped."""
    made: list[LiveServer] = []
    with new_folders() as new_folder:

        async def factory(**settings: Any) -> LiveServer:
            settings.setdefault("data_dir", new_folder())
            made.append(LiveServer(**settings))
            await made[-1].start()
            return made[-1]

        yield factory
        for server in made:
            await server.stop()


class ThreadedServer:
    """A :class:`LiveServer` in a separate thread, for tests without an event loop."""

    def __init__(self, server: LiveServer) -> None:
        self._server = server

    def start(self) -> None:
        """Listen; returns when requests are answered."""
        self._server.__enter__()

    def stop(self) -> None:
        """Stop as after SIGTERM; does nothing if it is stopped already."""
        self._server.__exit__(None, None, None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)
