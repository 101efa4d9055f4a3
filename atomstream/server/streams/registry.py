"""The streams of one server: each change goes to the stream's own files first, then to the catalogue."""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from atomstream.server.archive.metadata import StreamMetadata, read_about, write_about
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.catalogue.database import iso_now
from atomstream.server.catalogue.streams_table import StreamsTable
from atomstream.server.http.responses import HttpError


class StreamRegistry:
    """Opens archives once each, and keeps what is said of a stream the same in its files and the catalogue.

    One :class:`StreamArchive` object for each stream: its locks hold only among users of the same object.
    """

    def __init__(self, streams_dir: Path, entries: StreamsTable) -> None:
        self._dir = streams_dir
        self._entries = entries
        self._open: dict[str, StreamArchive] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def create(self, about: StreamMetadata) -> None:
        """Make a new stream's folder, then its line."""
        folder = self._dir / about.data_id
        archive = await asyncio.to_thread(StreamArchive.create, folder, write_about(about))
        self._open[about.data_id] = archive
        await self._entries.put(about)

    async def archive(self, data_id: str) -> StreamArchive:
        """The archive of a stream; raises RefusedError 404 where there is none."""
        known = self._open.get(data_id)
        if known is not None:
            return known
        folder = self._dir / checked_id(data_id)
        async with self._locks[data_id]:
            if data_id not in self._open:
                self._open[data_id] = await self._open_archive(folder, data_id)
        return self._open[data_id]

    async def _open_archive(self, folder: Path, data_id: str) -> StreamArchive:
        if not await asyncio.to_thread(folder.is_dir):
            self._locks.pop(data_id, None)
            raise unknown_stream(data_id)
        return await asyncio.to_thread(StreamArchive.open, folder)

    async def about(self, data_id: str) -> StreamMetadata:
        """What is said of a stream; raises RefusedError 404."""
        return read_about((await self.archive(data_id)).about)

    async def change(self, data_id: str, **fields: Any) -> StreamMetadata:
        """Change what is said of a stream (fields of :class:`StreamMetadata`), on disk and in the catalogue."""
        return await self.revise(data_id, lambda about: msgspec.structs.replace(about, **fields))

    async def revise(
        self, data_id: str, revision: Callable[[StreamMetadata], StreamMetadata]
    ) -> StreamMetadata:
        """The same where the new depends on the old; revisions of one stream do not overlap."""
        archive = await self.archive(data_id)
        async with self._locks[data_id]:
            old = read_about(archive.about)
            new = revision(old)
            if new == old:
                return old
            new = msgspec.structs.replace(new, last_updated=iso_now())
            await asyncio.to_thread(archive.update_about, **write_about(new))
            await self._entries.put(new)
            return new


def checked_id(data_id: str) -> str:
    """``data_id`` where it is a UUID in its one canonical spelling; so it is never a path of any other kind.

    Raises:
        RefusedError: 404, for no stream has such an id.
    """
    try:
        canonical = str(uuid.UUID(data_id)) == data_id
    except ValueError:
        canonical = False
    if not canonical:
        raise unknown_stream(data_id)
    return data_id


def unknown_stream(data_id: str) -> HttpError:
    """The 404 of a stream that is not here."""
    return HttpError(404, f"No stream {data_id[:64]!r} is known here.")
