"""The results of all streams of a server, and the handlers of the signals about them."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from atomstream.server.archive.chunk_index import NO_RESOURCES
from atomstream.server.archive.metadata import ENDED_STATUSES, StreamMetadata
from atomstream.server.archive.records import UploadClaims
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.disk_errors import log_failure
from atomstream.server.http.responses import HttpError
from atomstream.server.live.analyzer_client import AnalysisResources, DecodedChunk
from atomstream.server.live.result_store import IDLE
from atomstream.server.live.shared_frames import SharedBlock, SharedFrames, UploadTap
from atomstream.server.live.stream_results import StreamResults
from atomstream.server.live.worker_pool import WorkerPool, WorkerStartError
from atomstream.server.settings import ServerSettings
from atomstream.server.streams.keyed_locks import KeyedLocks
from atomstream.server.streams.registry import StreamRegistry, checked_id
from atomstream.server.streams.signals import ChunkStored, Followed, ServerSignals, StatusChanged
from atomstream.shard import frame_nbytes
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import read_plain

log = get_logger("atomstream.server")
WARM_UP_S: Final = 1.5
"""Delay before a spare worker is started, so that a server which stops at once starts none."""
SHARED_RATIO: Final = 256
"""Decoded bytes for each byte of a body, up to which shared memory is reserved before the body is read."""
MAX_IDLE: Final = 64
"""Number of streams without work whose results stay open for the next request or chunk."""
REST_S: Final = 2.0
"""Results that were used within this time, in s, are not closed: a request may still use them."""
IDLE_S: Final = 60.0
"""Time in s without a chunk after which the analysis of a stream that is not ended is closed, if many are open."""
KEPT_SHARE: Final = 4
"""One of so many places for open streams is kept for analyses: requests do not take it."""
RESUMED_AT_START: Final = 32
WAIT_S: Final = 1.0


class NoRoomError(HttpError):
    """503: as many streams are in use as may be open at once."""

    def __init__(self) -> None:
        super().__init__(503, "Too many streams are in use; try again.", headers={"Retry-After": "1"})


class ResultsManager:
    """The results of all streams. Used in the server's loop.

    Open results take files and memory. So a stream's results are opened when a request or a chunk needs them, and
    closed when nobody has used them for some time; at most ``most_open`` are open at once.

    An analysis comes before readers: pages that are open on many streams must not keep running streams from being
    analysed. So requests do not take the last quarter of the places, and a chunk that needs a place gets that of a
    stream that is only read; its readers connect again.
    """

    def __init__(
        self,
        settings: ServerSettings,
        streams: StreamRegistry,
        events: ServerSignals,
        most_open: int = 256,
        clock: Callable[[], float] = time.monotonic,
        note_delay: Callable[[float], None] = lambda _delay_s: None,
    ) -> None:
        self._streams = streams
        self._dir = settings.streams_dir
        self._most_open = most_open
        self._clock = clock
        self._frames = SharedFrames(settings.analysis_shared_bytes)
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="atomstream-results")
        self._pool = WorkerPool(settings.analysis_workers, settings.worker_memory_bytes)
        self._readers = ThreadPoolExecutor(settings.read_threads, thread_name_prefix="atomstream-feeds")
        self._resources = AnalysisResources(
            self._pool, self._frames, self._threads, settings.gap_wait_s, self._readers, note_delay
        )
        # Open results in the order of their last use, the longest unused ones first.
        self._open: OrderedDict[str, StreamResults] = OrderedDict()
        self._used_at: dict[str, float] = {}
        self._opening = 0
        self._unread: dict[str, Path] = {}
        """The file of each stream whose results could not be opened."""
        self._locks = KeyedLocks()
        # Streams with work to do for which there was no room, in order, and whether they may take a reader's place.
        self._waiting: dict[str, bool] = {}
        self._opener: asyncio.Task[None] | None = None
        self._warming: asyncio.Task[None] | None = None
        events.created.subscribe(self._created)
        events.chunk_stored.subscribe(self._chunk_stored)
        events.status_changed.subscribe(self._status_changed)
        events.followed.subscribe(self._followed)

    @property
    def workers(self) -> WorkerPool:
        """The analysis processes."""
        return self._pool

    def backlog(self) -> dict[str, int]:
        """Stored chunks that wait for the analysis, by stream; only streams whose results are open."""
        return {data_id: results.backlog for data_id, results in self._open.items()}

    def analysing(self) -> set[str]:
        """Ids of the streams with frames whose analysis has not ended; only streams whose results are open."""
        return {
            data_id
            for data_id, results in self._open.items()
            if results.has_frames and results.state in ("waiting", "running")
        }

    def followers(self) -> int:
        """Number of subscribers of all feeds."""
        return sum(results.followers for results in self._open.values())

    async def resume(self) -> None:
        """After a start of the server: continue the analyses that had not ended, the last used ones first.

        Only the first of them are opened before this returns, so that a start is fast also with thousands of streams.
        """
        unfinished = await asyncio.to_thread(_unfinished, self._dir)
        for data_id in unfinished[:RESUMED_AT_START]:
            await self._open_later(data_id, even_read=False)
        self._waiting.update(dict.fromkeys(unfinished[RESUMED_AT_START:], False))
        self._open_waiting()
        self._prepare_worker()

    async def _open_later(self, data_id: str, *, even_read: bool) -> None:
        """Open results for an analysis, now or, if there is no room, as soon as there is.

        With ``even_read`` they may take the place of a stream that is only read: there is something to analyse.
        """
        try:
            await self._of(data_id, self._most_open, even_read=even_read)
        except NoRoomError:
            self._waiting[data_id] = even_read
            self._open_waiting()
        except Exception as error:  # its folder is damaged; the others go on
            log_failure(log, error, "the analysis of stream %s could not be opened", data_id)

    def _open_waiting(self) -> None:
        if self._waiting and (self._opener is None or self._opener.done()):
            self._opener = asyncio.create_task(self._open_one_by_one(), name="atomstream waiting analyses")

    async def _open_one_by_one(self) -> None:
        while self._waiting:
            data_id = next(iter(self._waiting))
            await self._open_later(data_id, even_read=self._waiting.pop(data_id))
            await asyncio.sleep(WAIT_S if data_id in self._waiting else 0)

    def _prepare_worker(self) -> None:
        if self._warming is None or self._warming.done():
            self._warming = asyncio.create_task(self._warm_up(), name="atomstream analysis warm-up")

    async def _warm_up(self) -> None:
        await asyncio.sleep(WARM_UP_S)
        try:
            await self._pool.warm_up()
        except WorkerStartError as error:  # already logged; the stream that needs a worker reports it
            log.debug("no worker was started in advance: %s", error)

    async def of(self, data_id: str) -> StreamResults:
        """The results of a stream.

        An analysis that an earlier process did not finish is resumed before anyone else gets the results. A request
        may be faster than :meth:`resume`: without this, a subscriber would receive ``end``, and a new chunk would
        start a re-analysis.

        Raises:
            HttpError: 404 there is no such stream. NoRoomError: 503, too many streams are in use.
        """
        return await self._of(data_id, self._most_open - self._most_open // KEPT_SHARE, even_read=False)

    def opened(self, data_id: str) -> StreamResults | None:
        """The results of a stream if they are open; this does not count as use."""
        return self._open.get(data_id)

    async def _of(self, data_id: str, most: int, *, even_read: bool) -> StreamResults:
        results = self._open.get(data_id)
        if results is None:
            async with self._locks.hold(checked_id(data_id)):
                results = self._open.get(data_id) or await self._open_results(data_id, most, even_read)
        self._used_at[data_id] = self._clock()
        self._open.move_to_end(data_id)
        if len(self._open) > MAX_IDLE:
            await self._close_idle()
        return results

    async def _open_results(self, data_id: str, most: int, even_read: bool) -> StreamResults:
        archive = await self._streams.archive(data_id)
        if len(self._open) + self._opening >= most:
            await self._make_room(len(self._open) + self._opening - most + 1, even_read=even_read)
            if len(self._open) + self._opening >= most:
                raise NoRoomError
        self._opening += 1
        try:
            about = await self._streams.about(data_id)
            try:
                results = await self._make_results(archive, about)
            except OSError as error:
                if error.errno in NO_RESOURCES:
                    raise
                raise self._unreadable(archive, error) from None
            self._note_readable(archive)
            try:
                await results.resume()
            except BaseException:
                await results.close()
                raise
        finally:
            self._opening -= 1
        self._open[data_id] = results
        return results

    def _unreadable(self, archive: StreamArchive, error: OSError) -> HttpError:
        """Name a file of the results that the system does not let this server read; its frames can be used."""
        data_id, why = archive.folder.name, error.strerror or type(error).__name__
        path = Path(error.filename or archive.folder / "analysis")
        archive.files.note_damage(
            path, f"it can't be read ({why}), so the stream has no results; its frames can be read"
        )
        self._unread[data_id] = path
        return HttpError(
            503,
            f"The results of stream {data_id} can't be read at present: {path.name}: {why}. Its frames can be read.",
        )

    def _note_readable(self, archive: StreamArchive) -> None:
        path = self._unread.pop(archive.folder.name, None)
        if path is not None:
            archive.files.note_repaired(path)

    async def _make_results(self, archive: StreamArchive, about: StreamMetadata) -> StreamResults:
        return await StreamResults.open(archive, about, self._resources)

    async def _close_idle(self) -> None:
        """Close results that nobody has used for some time, beyond the ``MAX_IDLE`` that were used last."""
        idle = [
            data_id for data_id, results in self._open.items() if self._is_unused(data_id, results, IDLE_S)
        ]
        for data_id in idle[: max(0, len(idle) - MAX_IDLE)]:
            await self._close(data_id, IDLE_S)

    async def _make_room(self, needed: int, *, even_read: bool) -> None:
        """Close the results that were unused for the longest time; with ``even_read`` also those that are only read."""
        unused = [one for one, results in self._open.items() if self._is_unused(one, results, REST_S)]
        for data_id in unused[: max(needed, self._most_open // 16)]:
            await self._close(data_id, REST_S)
        if even_read and not unused:
            read = [
                one
                for one, results in self._open.items()
                if results.followers and self._is_unused(one, results, REST_S, even_read=True)
            ]
            for data_id in read[:needed]:
                await self._close(data_id, REST_S, even_read=True)

    def _is_unused(
        self, data_id: str, results: StreamResults, idle_s: float, *, even_read: bool = False
    ) -> bool:
        unused_s = self._clock() - self._used_at.get(data_id, 0.0)
        if unused_s < REST_S or (results.followers and not even_read):
            return False
        return results.is_over or (results.is_idle and unused_s >= idle_s)

    async def _close(self, data_id: str, idle_s: float, *, even_read: bool = False) -> None:
        async with self._locks.hold(data_id):
            results = self._open.get(data_id)
            if results is not None and self._is_unused(data_id, results, idle_s, even_read=even_read):
                del self._open[data_id]
                self._used_at.pop(data_id, None)
                await results.park()

    def is_used(self, data_id: str, within_s: float) -> bool:
        """Whether a stream's results are being read or made, or were requested within the last ``within_s``."""
        results = self._open.get(data_id)
        if results is None:
            return False
        used_s = self._clock() - self._used_at.get(data_id, -math.inf)
        return bool(results.followers) or used_s < within_s or not results.is_over

    @contextmanager
    def unnoticed(self, data_id: str) -> Iterator[None]:
        """Context manager: requests in this block do not count as use of the stream."""
        before = self._used_at.get(data_id)
        yield
        if before is not None:
            self._used_at[data_id] = before
        else:
            self._used_at.pop(data_id, None)

    async def remove(self, data_id: str) -> None:
        """The stream is being deleted: end its analysis and the readers of its feed, and close its files."""
        self._waiting.pop(data_id, None)
        async with self._locks.hold(data_id):
            results = self._open.pop(data_id, None)
            self._used_at.pop(data_id, None)
            if results is not None:
                await results.park()

    # -- signals -------------------------------------------------------------------------

    async def _created(self, _data_id: str) -> None:
        # The results are opened by the first chunk or request: most streams that nobody ends never get a chunk.
        self._prepare_worker()

    async def _status_changed(self, changed: StatusChanged) -> None:
        data_id, status = changed.data_id, changed.status
        if status not in ENDED_STATUSES:
            return
        opened = self._open.get(data_id)
        if opened is not None:
            opened.end()
        elif status == "success" or (await self._streams.about(data_id)).geometry is not None:
            await self._open_later(data_id, even_read=True)  # it is ended by its status

    async def _followed(self, followed: Followed) -> None:
        """Other servers have stored chunks: they are analysed here if the results are in use here."""
        results = self._open.get(followed.data_id)
        if results is None:
            return
        for index in followed.indices:
            results.stored(index, None)
        if followed.status in ENDED_STATUSES:
            results.end()

    async def _chunk_stored(self, stored: ChunkStored) -> None:
        claims = stored.ticket
        if claims.data_id in self._streams.deleted:
            return
        if claims.data_id not in self._open:
            await self._open_later(claims.data_id, even_read=True)
        results = self._open.get(claims.data_id)
        if results is None or stored.committed.known:
            return  # without results: the analysis finds the chunk in the archive when it is opened
        self._used_at[claims.data_id] = self._clock()
        self._open.move_to_end(claims.data_id)
        key = (claims.data_id, claims.index)
        self._resources.spans.begin(key, stored.trace, data_id=claims.data_id, index=claims.index)
        tap = stored.decoded
        block = tap.pop() if isinstance(tap, UploadTap) else None
        results.stored(
            claims.index, DecodedChunk(block, stored.committed.stamps) if block is not None else None
        )

    @contextmanager
    def tap(self, claims: UploadClaims, body_nbytes: int) -> Iterator[UploadTap]:
        """Copy the decoded frames of an upload for the analysis, if its chunk is among the next to be analysed.

        A body of ``body_nbytes`` that is far smaller than its frames reserves no memory: a worker decodes it.
        """
        nbytes = claims.dims[0] * frame_nbytes(claims.dims, claims.dtype)
        block = self._block_for(claims, nbytes) if nbytes <= body_nbytes * SHARED_RATIO else None
        tap = UploadTap(self._frames, block, claims.dims[0])
        try:
            yield tap
        finally:
            tap.close()

    def _block_for(self, claims: UploadClaims, nbytes: int) -> SharedBlock | None:
        results = self._open.get(claims.data_id)
        if results is None or not results.needs_frames(claims.index):
            return None
        return self._frames.acquire(nbytes)

    # -- the end -----------------------------------------------------------------------------------------

    def close_feeds(self) -> None:
        """End all readers of feeds: the server stops."""
        for results in self._open.values():
            results.close_feed()

    async def close(self) -> None:
        """Stop all analyses. The next start of the server continues them."""
        for task in (self._warming, self._opener):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        for data_id, results in self._open.items():
            try:
                await results.close()
            except Exception as error:  # the others must be closed
                log_failure(log, error, "the analysis of stream %s could not be closed", data_id)
        await self._pool.close()
        await self._frames.close()
        for threads in (self._threads, self._readers):
            await asyncio.to_thread(threads.shutdown)


def _is_idle(note: Path) -> bool:
    """Whether an analysis was closed while it waited for the next chunk, and none has come since."""
    if read_plain(note) != IDLE.encode():
        return False
    shards = note.parents[1] / "frames.zarr" / "frames" / "c"
    return not shards.exists() or shards.stat().st_mtime_ns <= note.stat().st_mtime_ns


def _unfinished(streams_dir: Path) -> list[str]:
    """The streams whose analysis has something to do, the last changed first. Blocks."""
    found: list[tuple[float, str]] = []
    for path in streams_dir.glob("*/analysis/running"):
        with suppress(OSError):
            if not _is_idle(path):
                found.append((path.parent.stat().st_mtime, path.parents[1].name))
    return [data_id for _, data_id in sorted(found, reverse=True)]
