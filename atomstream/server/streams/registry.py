"""The streams of a server: each change is written to the stream's files first, then to the catalogue."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

import msgspec

from atomstream.errors import StreamError
from atomstream.server.archive.archive_files import ArchiveDeletedError
from atomstream.server.archive.damage import DamageLog
from atomstream.server.archive.metadata import StreamMetadata, is_stream_id, read_about, write_about
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.catalogue.database import iso_now
from atomstream.server.catalogue.streams_table import StreamsTable
from atomstream.server.http.responses import HttpError
from atomstream.server.ports.store import ObjectMissingError, StoreUnavailableError
from atomstream.server.streams.archives import Archives
from atomstream.server.streams.cache_limit import remove_folder
from atomstream.server.streams.keyed_locks import KeyedLocks
from atomstream.system.files import LOCAL
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")

DELETED: Final = ".deleted"
"""The folder, beside the streams, of the files of deleted streams until they are removed."""


class StreamRegistry:
    """Opens each archive once, and keeps a stream's metadata equal in its files and the catalogue.

    There is one :class:`StreamArchive` object per stream, because its locks protect only users of the same object. The
    ``kept`` archives that were used last stay open; another one that somebody still uses is found as well.
    """

    def __init__(
        self,
        streams_dir: Path,
        entries: StreamsTable,
        kept: int = 256,
        damage: DamageLog | None = None,
        archives: Archives | None = None,
    ) -> None:
        self.damage = damage or DamageLog()
        """What is damaged in the files of the streams."""
        self.folder = streams_dir
        self._entries = entries
        self._archives = archives or Archives()
        self._kept = kept
        self._recent: OrderedDict[str, StreamArchive] = OrderedDict()
        self._open: WeakValueDictionary[str, StreamArchive] = WeakValueDictionary()
        self._locks = KeyedLocks()
        self.deleted = entries.deleted
        """Streams that are being deleted or were deleted: requests about them are answered with 410."""
        self.deleted_from: dict[str, str | None] = {}
        """The project that each of them was in, if that is known."""
        # Opening may read thousands of files: such work has its own threads.
        self._openers = ThreadPoolExecutor(4, thread_name_prefix="atomstream-open")

    async def create(self, about: StreamMetadata) -> None:
        """Create the folder of a new stream, then its row in the catalogue.

        Raises:
            CatalogueUnavailableError: the catalogue can't be reached; nothing was made.
        """
        await self._entries.require()
        folder = self.folder / about.data_id
        archive = await asyncio.to_thread(
            self._archives.create, folder, write_about(about), self.damage.of(about.data_id)
        )
        self._keep(about.data_id, archive)
        await self._entries.add(about)

    async def archive(self, data_id: str) -> StreamArchive:
        """The archive of a stream.

        Raises:
            HttpError: 404 there is no such stream; 503 it is damaged, and may be readable again after a repair.
        """
        self.refuse_deleted(data_id)
        archive = self._recent.get(data_id)
        if archive is not None:
            self._recent.move_to_end(data_id)
            return archive
        folder = self.folder / checked_id(data_id)
        async with self._locks.hold(data_id):
            archive = self._open.get(data_id)
            if archive is None:
                archive = await self._open_archive(folder, data_id)
                if archive.is_cache:  # another server may have made it
                    await self._entries.put(read_about(archive.description))
                    await self._entries.note_length(data_id, archive.n_frames())
            self.refuse_deleted(data_id)
        self._keep(data_id, archive)
        return archive

    def refuse_deleted(self, data_id: str) -> None:
        """Raises HttpError 410 if the stream was deleted."""
        if data_id in self.deleted:
            raise HttpError(410, f"Stream {data_id} was deleted. Nothing can be added to it any more.")

    async def delete(self, data_id: str, archive: StreamArchive | None) -> None:
        """Move the files of a stream out of the way, then remove its row. The files themselves are removed later.

        The caller has put it into :attr:`deleted` and stopped everything that writes into it. ``archive`` is None if
        it can't be opened, because its files are damaged.
        """
        async with self._locks.hold(data_id):
            target = self.folder / DELETED / data_id
            if archive is not None:
                await asyncio.to_thread(archive.delete, target)
            else:
                await asyncio.to_thread(_move_away, self.folder / data_id, target)
            self._recent.pop(data_id, None)
            self._open.pop(data_id, None)
            await self._entries.remove([data_id])
            for note in self.damage.notes(data_id):
                self.damage.remove(data_id, note.file)

    async def delete_stored(self, data_id: str) -> None:
        """Remove the objects of a stream in :attr:`deleted` from the store, as :meth:`delete` does for an open archive.

        Raises:
            StoreUnavailableError: the store can't be reached; the call may be repeated.
        """
        await asyncio.to_thread(self._archives.delete_stored, data_id)

    def _keep(self, data_id: str, archive: StreamArchive) -> None:
        self._open[data_id] = self._recent[data_id] = archive
        self._recent.move_to_end(data_id)
        while len(self._recent) > self._kept:
            self._recent.popitem(last=False)

    async def _open_archive(self, folder: Path, data_id: str) -> StreamArchive:
        if not await asyncio.to_thread(self._archives.exists, folder):
            raise unknown_stream(data_id)
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._openers, self._archives.open, folder, self.damage.of(data_id)
            )
        except ObjectMissingError:
            raise unknown_stream(data_id) from None
        except StreamError as error:
            raise HttpError(503, f"Stream {data_id} can't be used: {error}") from None

    async def close(self) -> None:
        """Wait for the threads."""
        await asyncio.to_thread(self._openers.shutdown, cancel_futures=True)

    async def about(self, data_id: str) -> StreamMetadata:
        """The metadata of a stream; raises HttpError 404."""
        return read_about((await self.archive(data_id)).description)

    async def current(self, data_id: str) -> StreamMetadata:
        """The metadata, read again where another server may have changed it; raises as :meth:`archive`.

        While the store can't be reached, the metadata that were read last are returned.
        """
        archive = await self.archive(data_id)
        if archive.is_cache:
            await self._refresh(data_id, archive)
        return read_about(archive.description)

    async def _refresh(self, data_id: str, archive: StreamArchive) -> None:
        try:
            changed = await asyncio.to_thread(archive.refresh_about)
        except StoreUnavailableError as error:
            log.debug("stream %s: its description can't be read again: %s", data_id, error)
            return
        except ArchiveDeletedError:
            self.deleted.add(data_id)
            raise
        if changed:
            await self._entries.put(read_about(archive.description))

    async def refresh_shared(self) -> None:
        """Read the descriptions of all open streams again that other servers may have changed, such as thinned ones."""
        for data_id in list(self.shared()):
            with suppress(ArchiveDeletedError):  # the follower of deletions removes it
                await self.current(data_id)

    def shared(self) -> dict[str, StreamArchive]:
        """The open archives of streams that other servers may change too."""
        return {data_id: archive for data_id, archive in self._recent.items() if archive.is_cache}

    async def uncache(self, folder: Path) -> bool:
        """Remove the folder of a stream that is in a store, unless the stream is open here; True if it was removed."""
        data_id = folder.name
        async with self._locks.hold(data_id):
            if data_id in self._recent or data_id in self._open:
                return False
            await asyncio.to_thread(remove_folder, folder)
            return True

    async def project_of(self, data_id: str) -> str | None:
        """The id of the project that a stream is or was in; None for none. Raises HttpError 404."""
        if data_id in self.deleted:
            return self.deleted_from.get(data_id)
        try:
            about = await self.about(data_id)
        except HttpError as error:
            if error.status != 503:
                raise
            return await self._entries.project_of(data_id)  # its files are damaged
        return about.project.id if about.project else None

    async def change(self, data_id: str, **fields: Any) -> StreamMetadata:
        """Change fields of a stream's :class:`StreamMetadata`, on disk and in the catalogue."""
        return await self.revise(data_id, lambda about: msgspec.structs.replace(about, **fields))

    async def revise(
        self, data_id: str, revision: Callable[[StreamMetadata], StreamMetadata]
    ) -> StreamMetadata:
        """Replace a stream's metadata by ``revision(metadata)``. Revisions of one stream do not overlap."""
        archive = await self.archive(data_id)
        async with self._locks.hold(data_id):
            self.refuse_deleted(data_id)
            if archive.is_cache:
                await asyncio.to_thread(archive.refresh_about)
            old = read_about(archive.description)
            new = revision(old)
            if new == old:
                return old
            new = msgspec.structs.replace(new, last_updated=iso_now())
            try:
                await asyncio.to_thread(archive.update_about, **write_about(new))
                await self._entries.put(new)
            except BaseException:  # the file may be changed and the row not: the next start reads it again
                self._entries.mark_incomplete()
                raise
            return new


def _move_away(folder: Path, target: Path) -> None:
    if not folder.exists():  # of a stream in a store that was never read here
        return
    LOCAL.make_folder(target.parent)
    LOCAL.rename(folder, target)
    LOCAL.sync_folders(target.parent, folder.parent)


def checked_id(data_id: str) -> str:
    """``data_id``, if it is a UUID in canonical form; so it can't be a path to another folder.

    Raises:
        HttpError: 404, because no stream has such an id.
    """
    if not is_stream_id(data_id):
        raise unknown_stream(data_id)
    return data_id


def unknown_stream(data_id: str) -> HttpError:
    """The error for a stream that this server does not have."""
    return HttpError(404, f"No stream {data_id[:64]!r} is known here.")
