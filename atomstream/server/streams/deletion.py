"""Removes the files of deleted streams in the background, and notes the deletions in the names log.

A stream is deleted by one rename, into ``.deleted`` beside the streams. Its files may be thousands: they are removed
afterwards, and after a stop or a kill at the next start. Its description is removed last, after the note: so a kill at
any moment leaves one of them, and requests about the stream are answered with 410 for ever.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from atomstream.errors import StreamError
from atomstream.server.archive.metadata import ABOUT, is_stream_id, read_about_file
from atomstream.server.disk_errors import log_failure
from atomstream.server.streams.registry import DELETED
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import is_link

log = get_logger("atomstream.server")

Note = Callable[[str, str], Awaitable[None]]
"""Notes durably that the stream with that id and name was deleted; raises OSError."""


def read_deletions(streams_dir: Path) -> dict[str, str | None]:
    """The ids of deleted streams whose files are still there, each with the id of its project. Blocks.

    Those that a backup has brought back are left out.
    """
    found: dict[str, str | None] = {}
    for path in _entries(streams_dir / DELETED):
        if is_stream_id(path.name) and not (streams_dir / path.name).is_dir():
            project = _read_about(path).get("project")
            project_id = project.get("id") if isinstance(project, dict) else None
            found[path.name] = project_id if isinstance(project_id, str) else None
    return found


class Deletion:
    """The background work on the folder ``.deleted`` in ``streams_dir``. Used in the server's loop."""

    def __init__(self, streams_dir: Path, note: Note) -> None:
        self._folder = streams_dir / DELETED
        self._note = note
        self._stop = threading.Event()
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def begin(self) -> None:
        """Note and remove what is in the folder."""
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="atomstream deleted streams")

    async def _run(self) -> None:
        while self._again and not self._stop.is_set():
            self._again = False
            for path in await asyncio.to_thread(_entries, self._folder):
                try:
                    await self._finish(path)
                except Exception as error:
                    text = "the files of the deleted stream %s can't be removed; the next start tries again"
                    log_failure(log, error, text, path.name)
            with suppress(OSError):  # it does not exist, or another stream was deleted meanwhile
                await asyncio.to_thread(os.rmdir, self._folder)

    async def _finish(self, path: Path) -> None:
        # The content goes first: on a full disk there is room for the note then.
        await asyncio.to_thread(_remove_content, path, self._stop)
        if self._stop.is_set():
            return
        if is_stream_id(path.name):
            name = (await asyncio.to_thread(_read_about, path)).get("name")
            await self._note(path.name, name if isinstance(name, str) else "")
        await asyncio.to_thread(_remove, path, self._stop)

    async def wait(self) -> None:
        """Return when everything is removed."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def close(self) -> None:
        """Stop after the present file; the next start removes the rest."""
        self._stop.set()
        await self.wait()


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if not is_link(folder) and folder.is_dir() else []


def _read_about(folder: Path) -> dict[str, Any]:
    """The description of a stream; empty if it can't be read."""
    try:
        return {} if is_link(folder) else read_about_file(folder)
    except (StreamError, OSError):
        return {}


def _remove_content(path: Path, stop: threading.Event) -> None:
    """Remove everything in a stream's folder but its description."""
    for one in _entries(path):
        if one.name != ABOUT:
            _remove(one, stop)


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
