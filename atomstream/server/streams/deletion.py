"""Removes the files of deleted streams in the background.

A stream is deleted by one rename, into ``.deleted`` beside the streams. Its files may be thousands: they are removed
afterwards, and after a stop or a kill at the next start.
"""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress
from pathlib import Path

from atomstream.server.streams.registry import DELETED
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import is_link

log = get_logger("atomstream.server")


class Deletion:
    """The background work on the folder ``.deleted`` in ``streams_dir``. Used in the server's loop."""

    def __init__(self, streams_dir: Path) -> None:
        self._folder = streams_dir / DELETED
        self._stop = threading.Event()
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def begin(self) -> None:
        """Remove what is in the folder."""
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="atomstream deleted streams")

    async def _run(self) -> None:
        while self._again and not self._stop.is_set():
            self._again = False
            try:
                await asyncio.to_thread(self._remove_all)
            except OSError as error:
                log.warning("the files of a deleted stream can't be removed: %s; gc removes them", error)

    def _remove_all(self) -> None:
        if is_link(self._folder) or not self._folder.is_dir():
            return
        for path in list(self._folder.iterdir()):
            _remove(path, self._stop)
        with suppress(OSError):  # another stream was deleted meanwhile
            os.rmdir(self._folder)

    async def wait(self) -> None:
        """Return when everything is removed."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def close(self) -> None:
        """Stop after the present file; the next start removes the rest."""
        self._stop.set()
        await self.wait()


def _remove(path: Path, stop: threading.Event) -> None:
    """Remove a folder with its content, file by file, until ``stop``. Links are removed and not followed."""
    if stop.is_set():
        return
    if is_link(path) or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for one in list(path.iterdir()):
        _remove(one, stop)
    if not stop.is_set():
        os.rmdir(path)
