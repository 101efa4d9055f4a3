"""Keeps a server and the store that it shares with others up to date with one another.

Every two seconds, for the open streams of this server: it takes over the chunks and descriptions that other servers
have stored, and copies the documents and columns of what it received itself to the store, for readers there. Without
a catalogue that the servers share, it also looks for the streams that other servers have made or deleted.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final, TypeAlias

from atomstream.errors import AtomstreamError
from atomstream.server.archive.archive_files import ArchiveDeletedError
from atomstream.server.archive.cached_archive import CachedArchive
from atomstream.server.archive.metadata import StreamMetadata, checked_about
from atomstream.server.archive.shared_stream import SharedStream, stream_ids
from atomstream.server.archive.zarr_group import DOCUMENT, FRAMES
from atomstream.server.catalogue.streams_table import StreamsTable
from atomstream.server.disk_errors import log_failure, log_unavailable
from atomstream.server.ports.store import ObjectMissingError, Store, StoreUnavailableError
from atomstream.server.streams.cache_limit import cached_streams, shrink
from atomstream.server.streams.ingest import run_in
from atomstream.server.streams.lifecycle import OPEN, Lifecycle
from atomstream.server.streams.registry import StreamRegistry
from atomstream.server.streams.signals import ChunkStored, Followed, ServerSignals
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")

PERIOD_S: Final = 2.0
SEARCH_S: Final = 10.0
"""Interval, in s, of the searches for new streams, and for chunks in gaps."""
SHARED_SEARCH_S: Final = 600.0
"""Interval, in s, of the searches for streams in the store that have no row in the shared catalogue. A server that was
killed between the two writes leaves such a stream."""
SHRINK_S: Final = 60.0
"""Interval, in s, of the checks of the size of the cache, and of the descriptions of open streams that have ended."""
_READERS: Final = 8

Found: TypeAlias = tuple[StreamMetadata, int]
"""A stream of the store, and its length in frames."""


class StoreSync:
    """The exchange of one server with ``store``. Used in the server's loop; begun by :meth:`run`.

    ``copies`` is False if the process that analyses a stream copies it to the store.
    ``searches`` is False if the servers share their catalogue: it has all streams. Those that it has lost are added.
    ``remove(data_id)`` is called for a stream that another server has deleted; ``refresh()`` reads other lists of the
    store again. The cache may have ``cache_bytes``.
    """

    def __init__(
        self,
        store: Store,
        streams: StreamRegistry,
        entries: StreamsTable,
        lifecycle: Lifecycle,
        signals: ServerSignals,
        remove: Callable[[str], Awaitable[None]],
        refresh: Callable[[], Awaitable[None]],
        *,
        searches: bool,
        cache_bytes: int = 1 << 40,
        copies: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._streams = streams
        self._entries = entries
        self._lifecycle = lifecycle
        self._signals = signals
        self._remove = remove
        self._refresh = refresh
        self._searches = searches
        self._clock = clock
        self._cache_bytes = cache_bytes
        self._searched_at = -SEARCH_S
        self._compared_at = -SHARED_SEARCH_S
        self._shrunk_at = clock()
        self._changed: set[str] = set()
        self._threads = ThreadPoolExecutor(_READERS, thread_name_prefix="atomstream-store")
        if copies:
            signals.chunk_stored.subscribe(self._note_stored)

    async def run(self) -> None:
        """Exchange every ``PERIOD_S`` seconds, until this is cancelled."""
        while True:
            await self.exchange()
            await asyncio.sleep(PERIOD_S)

    async def exchange(self) -> None:
        """Search for streams if that is due, then take over and copy what has changed."""
        due = self._clock() - self._searched_at >= SEARCH_S
        if due:
            self._searched_at = self._clock()
            await self._guarded("the signals in the store can't be found", self._refresh)
            if self._searches or self._clock() - self._compared_at >= SHARED_SEARCH_S:
                self._compared_at = self._clock()
                await self._guarded("streams in the store can't be found", self.search)
        for data_id in list(self._streams.shared()):
            await self._guarded(
                f"stream {data_id} can't be followed", partial(self.follow, data_id, gaps=due)
            )
        for data_id in set(self._streams.shared()) & self._streams.deleted:
            await self._guarded(f"stream {data_id} can't be removed", partial(self._remove, data_id))
        await self.copy()
        if self._clock() - self._shrunk_at >= SHRINK_S:
            self._shrunk_at = self._clock()
            await self._guarded("descriptions can't be read again", self._streams.refresh_shared)
            await self._guarded("the cache can't be made smaller", self.shrink)

    async def shrink(self) -> int:
        """Keep the cache below its limit; returns its bytes."""
        found = await asyncio.to_thread(cached_streams, self._streams.folder)
        return await shrink(found, self._cache_bytes, self._streams.uncache)

    async def copy(self) -> None:
        """Copy the documents and columns of the streams that received chunks here since the last copy."""
        for data_id in list(self._changed):
            self._changed.discard(data_id)
            archive = self._streams.shared().get(data_id)
            if not isinstance(archive, CachedArchive):
                continue
            copied = False
            try:
                copied = await self._guarded(
                    f"stream {data_id} can't be copied to the store",
                    partial(run_in, self._threads, archive.mirror),
                )
            finally:  # also if this is cancelled: the server stops, and copies once more
                if not copied or archive.store_copies.results_left:
                    self._changed.add(data_id)

    async def _guarded(self, what: str, work: Callable[[], Awaitable[object]]) -> bool:
        """Whether ``work`` succeeded; an error is logged, and does not stop the rest."""
        try:
            await work()
        except StoreUnavailableError as error:
            log_unavailable(log, error)
        except ArchiveDeletedError:
            log.debug("%s: it was deleted", what)
        except Exception as error:
            log_failure(log, error, "%s", what)
        else:
            return True
        return False

    # -- open streams ------------------------------------------------------------------------------------

    async def follow(self, data_id: str, *, gaps: bool = False) -> None:
        """Take over what other servers have stored of one open stream; with ``gaps``, chunks in gaps too.

        Raises:
            StoreUnavailableError: the store can't be reached.
        """
        archive = self._streams.shared().get(data_id)
        if not isinstance(archive, CachedArchive):
            return
        before = archive.description.get("status")
        if before in (*OPEN, "stream_finalizing"):
            await run_in(
                self._threads, lambda: archive.follow(all_chunks=gaps and bool(archive.missing_ranges()))
            )
        elif not archive.has_followed:
            return
        about = await self._streams.current(data_id)
        indices = archive.pop_followed()
        if indices or about.status != before:
            await self._signals.followed.send(Followed(data_id, tuple(indices), about.status))
        if indices:
            self._lifecycle.touch(data_id)
            await self._entries.note_chunk(data_id, archive.n_frames())

    async def _note_stored(self, stored: ChunkStored) -> None:
        self._changed.add(stored.ticket.data_id)

    # -- all streams -------------------------------------------------------------------------------------

    async def search(self) -> None:
        """Update the list of streams from the store: those that are new or gone, and those that had not ended.

        Raises:
            StoreUnavailableError: the store can't be reached.
        """
        listed = (
            await self._entries.all_ids()
        )  # before the store: a stream made meanwhile is not taken for deleted
        unfinished = set(await self._entries.with_status(*OPEN, "stream_finalizing"))
        stored = set(await run_in(self._threads, stream_ids, self._store)) - self._streams.deleted
        wanted = (stored - listed) | (stored & unfinished)
        found = await self._read(wanted)
        stored -= wanted - found.keys()  # a store may list the folder of a deleted stream for some seconds
        for about, n_frames in found.values():
            if about.data_id in self._streams.deleted:
                continue
            await self._entries.put(about)
            if n_frames:
                await self._entries.note_chunk(about.data_id, n_frames)
            if about.status in OPEN:
                self._lifecycle.start_timing(about.data_id)
        if not self._searches:  # the catalogue has the deletions
            return
        for data_id in await self._gone(listed - stored - self._streams.deleted):
            self._streams.deleted.add(data_id)
            await self._remove(data_id)

    async def _gone(self, data_ids: Iterable[str]) -> list[str]:
        """Those of the streams that the store really has no more.

        A list that is too short is answered by proxies and by stores in trouble, with status 200. Uploads to a stream
        that counts as deleted are refused for good.
        """
        gone = []
        for data_id in data_ids:
            if await run_in(self._threads, SharedStream(self._store, data_id).exists):
                log.warning("stream %s is in the store and not in its list of streams", data_id)
            else:
                gone.append(data_id)
        return gone

    async def _read(self, data_ids: Iterable[str]) -> dict[str, Found]:
        """Those of the streams that the store has."""
        loop = asyncio.get_running_loop()
        reads = [loop.run_in_executor(self._threads, self._read_one, data_id) for data_id in data_ids]
        return {found[0].data_id: found for found in await asyncio.gather(*reads) if found is not None}

    def _read_one(self, data_id: str) -> Found | None:
        shared = SharedStream(self._store, data_id)
        try:
            about = checked_about(shared.read_about(), data_id)
        except StoreUnavailableError:
            raise
        except ObjectMissingError:
            return None  # it was deleted meanwhile
        except AtomstreamError as error:
            log.warning("stream %s is left out of the list: %s", data_id, error)
            return None
        n_frames = 0
        with suppress(ObjectMissingError, ValueError, KeyError, TypeError, IndexError):
            group = json.loads(self._store.fetch(shared.key(f"frames.zarr/{DOCUMENT}")))
            n_frames = int(group["consolidated_metadata"]["metadata"][FRAMES]["shape"][0])
        return about, n_frames

    async def close(self) -> None:
        """Copy what is not copied yet, and end the threads."""
        await self.copy()
        await asyncio.to_thread(self._threads.shutdown)
