"""Status of a stream: active -> finalizing -> success; interrupted without data for some time, until data arrives."""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from atomstream.index_ranges import IndexSet
from atomstream.server.archive.archive_files import ArchiveDeletedError
from atomstream.server.archive.metadata import Status, StreamMetadata, read_about
from atomstream.server.archive.records import Geometry, UploadClaims
from atomstream.server.catalogue.streams_table import StreamsTable
from atomstream.server.catalogue_errors import CatalogueUnavailableError
from atomstream.server.disk_errors import is_disk_error, log_failure
from atomstream.server.http.responses import HttpError
from atomstream.server.settings import ServerSettings
from atomstream.server.streams.registry import StreamRegistry
from atomstream.server.streams.signals import ServerSignals, StatusChanged
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")
RETRY_S: Final = 10.0
"""Time in s until a status that the disk refused is stored again."""
FINISHING_S: Final = 60.0
"""After this time without a change, in s, the server that was finishing a stream counts as ended."""
READ_S: Final = 1.0
"""Time in s for which the description of a shared stream is not read again because of chunks that extend the stream."""
OPEN: tuple[Status, ...] = ("stream_active", "stream_interrupted")


class Lifecycle:
    """Changes the statuses of streams. ``clock`` (s, monotonic) measures the time without data.

    Statuses are stored in the streams' files and survive a restart. The time without data starts again at zero then.
    """

    def __init__(
        self,
        settings: ServerSettings,
        streams: StreamRegistry,
        entries: StreamsTable,
        signals: ServerSignals,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._streams = streams
        self._entries = entries
        self._signals = signals
        self._clock = clock
        self._last_activity: dict[str, float] = {}
        self._interrupted: set[str] = set()
        self._read_at: dict[str, float] = {}
        """The time of the last reading of a shared stream's description because of a chunk."""
        self._unread: set[str] = set()
        """Shared streams with chunks that came after that reading: it is repeated ``READ_S`` after the last one."""
        # The next check of each stream: a heap, because there may be thousands of streams that nobody has ended.
        self._checks: list[tuple[float, str]] = []
        self._check_at: dict[str, float] = {}
        self._finishing: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()

    async def resume(self) -> None:
        """After a start: begin to time the open streams, and finish those that were finalizing."""
        if self._entries.is_shared:  # another server may receive or finish them now
            return
        self._interrupted.update(await self._entries.with_status("stream_interrupted"))
        for data_id in await self._entries.with_status(*OPEN):
            self._start_timing(data_id)
        for data_id in await self._entries.with_status("stream_finalizing"):
            try:
                await self._finish(data_id)
            except Exception as error:  # its files are damaged; the others are finished
                log_failure(
                    log, error, "stream %s was being finished when the server stopped, and can't be", data_id
                )

    async def take_over(self) -> None:
        """Time the open streams of servers that have ended, and finish those that such a server was finishing.

        For servers that share a catalogue. Every one of them does it: the first one to change a status is enough.
        """
        for data_id in await self._entries.silent_for(self._settings.silence_s, OPEN):
            if data_id not in self._last_activity:
                self._last_activity[data_id] = self._clock() - self._settings.silence_s
                self._check(data_id, self._clock())
        for data_id in await self._entries.silent_for(FINISHING_S, ("stream_finalizing",)):
            about = await self._about(data_id)
            if about is None:
                continue
            if about.status == "stream_finalizing":
                await self._finish(data_id)
            else:  # the server was killed between the description and its row
                await self._entries.put(about)

    async def _about(self, data_id: str) -> StreamMetadata | None:
        """The metadata of a stream; None if this server can't read it."""
        try:
            return await self._streams.current(data_id)
        except HttpError:
            return None

    async def _silent_s(self, data_id: str, silent_s: float) -> float:
        """The time without data of any server; ``silent_s`` is that of this one."""
        other = await self._entries.silent_s(data_id)
        if other is None:
            return silent_s
        self._last_activity[data_id] = self._clock() - other
        return other

    def _start_timing(self, data_id: str) -> None:
        now = self._last_activity[data_id] = self._clock()
        self._check(data_id, now + min(self._settings.silence_s, self._settings.abandon_s))

    def _check(self, data_id: str, at: float) -> None:
        """Check the stream at time ``at``, unless a check is due before that."""
        if self._check_at.get(data_id, math.inf) <= at:
            return
        if not self._checks or at < self._checks[0][0]:
            self._wake.set()
        self._check_at[data_id] = at
        heapq.heappush(self._checks, (at, data_id))

    def _remove_timers(self, data_id: str) -> None:
        self._last_activity.pop(data_id, None)
        self._interrupted.discard(data_id)
        self._read_at.pop(data_id, None)
        self._unread.discard(data_id)

    async def stop_timing(self, data_id: str) -> None:
        """Stop timing a stream that is being deleted, and wait until the work on its end is done."""
        self._remove_timers(data_id)
        while (task := self._finishing.get(data_id)) is not None and not task.done():
            await asyncio.wait([task])
        self._finishing.pop(data_id, None)
        await self._signals.deleted.send(data_id)

    async def begin(self, data_id: str) -> None:
        """A stream was created."""
        self._start_timing(data_id)
        await self._signals.created.send(data_id)

    def start_timing(self, data_id: str) -> None:
        """An open stream was found that another server has made: time it here too, since that server may have
        stopped.
        """
        if data_id not in self._last_activity:
            self._start_timing(data_id)

    def touch(self, data_id: str) -> None:
        """A chunk is being received: reset the time without data."""
        if data_id in self._last_activity:
            self._last_activity[data_id] = self._clock()

    async def data_came(self, ticket: UploadClaims) -> None:
        """A chunk was stored: an open stream becomes active; an ended one is finished once more.

        Another server may have changed the status, so the description of a shared stream is read again after each
        chunk: at once for a late one, at most every ``READ_S`` for those that extend an active stream.
        """
        data_id = ticket.data_id
        archive = await self._streams.archive(data_id)
        now = self._clock()
        next_read = self._read_at.get(data_id, -math.inf) + READ_S
        extends = ticket.index + 1 >= archive.stored().end
        status = read_about(archive.description).status
        if archive.is_cache and extends and status == "stream_active" and now < next_read:
            self._last_activity[data_id] = now
            self._unread.add(data_id)
            self._check(data_id, next_read)
            return
        await self._read_after_data(data_id, Geometry.of(ticket))

    async def _read_after_data(self, data_id: str, geometry: Geometry | None = None) -> None:
        """Read the description, and continue or finish the stream as it states."""
        now = self._clock()
        was_unread = data_id in self._unread
        self._unread.discard(
            data_id
        )  # before the reading: it may miss what a chunk during it is read again for
        try:
            about = await self._streams.current(data_id)
        except BaseException:
            if was_unread:
                self._unread.add(data_id)
            raise
        if about.geometry is None and geometry is not None:
            await self._streams.change(data_id, geometry=geometry)
        if about.status in ("stream_finalizing", "success"):
            self._read_at.pop(data_id, None)
            await self._set(data_id, "stream_finalizing")
            await self._finish(data_id)
            return
        self._read_at[data_id] = now
        self._start_timing(data_id)
        if about.status != "stream_active":
            self._interrupted.discard(data_id)
            await self._set(data_id, "stream_active")

    async def read_unread(self) -> None:
        """Read the descriptions at once that would be read again because of chunks. Before the server stops."""
        for data_id in list(self._unread):
            try:
                await self._read_after_data(data_id)
            except ArchiveDeletedError:
                self._remove_timers(data_id)
            except Exception as error:  # the other streams are independent of it
                log_failure(log, error, "the status of stream %s can't be read again", data_id)

    async def end(self, data_id: str, lost: IndexSet) -> Status:
        """The client has sent everything: store the lost indices and finish the archive. May be repeated."""
        archive = await self._streams.archive(data_id)
        self._remove_timers(data_id)
        if lost:
            await asyncio.to_thread(archive.mark_lost, lost)
        if lost or (await self._streams.current(data_id)).status != "success":
            await self._set(data_id, "stream_finalizing")
            await self._finish(data_id)
        return (await self._streams.about(data_id)).status

    async def _finish(self, data_id: str) -> None:
        # One run at a time per stream. A call during a run starts another one after it.
        before = self._finishing.get(data_id)
        task = asyncio.create_task(self._finish_after(before, data_id), name=f"finish {data_id}")
        self._finishing[data_id] = task
        try:
            # If the client disconnects, the run continues.
            await asyncio.shield(task)
        finally:
            if self._finishing.get(data_id) is task and task.done():
                del self._finishing[data_id]

    async def _finish_after(self, before: asyncio.Task[None] | None, data_id: str) -> None:
        if before is not None:
            await asyncio.wait([before])
        archive = await self._streams.archive(data_id)
        await asyncio.to_thread(archive.finish)
        await self._set(data_id, "success")

    async def _set(self, data_id: str, status: Status) -> None:
        before = await self._streams.about(data_id)
        if before.status != status:
            await self._streams.change(data_id, status=status)
            await self._signals.status_changed.send(StatusChanged(data_id, status))

    async def watch(self) -> None:
        """Apply the time-outs for as long as the server runs."""
        while True:
            self._wake.clear()
            try:
                due = await self.expire_idle()
            except Exception as error:
                log_failure(log, error, "the streams without data can't be checked")
                due = RETRY_S
            with suppress(TimeoutError):
                async with asyncio.timeout(due):
                    await self._wake.wait()

    async def expire_idle(self) -> float | None:
        """Change the status of streams without data. Returns the seconds until the next check; None if none is open."""
        now = self._clock()
        while self._checks and self._checks[0][0] <= now:
            at, data_id = heapq.heappop(self._checks)
            if self._check_at.get(data_id) != at:  # an earlier check has replaced this one
                continue
            del self._check_at[data_id]
            since = self._last_activity.get(data_id)
            if since is None:
                continue
            try:
                wait_s = await self._expire(data_id, now - since)
            except CatalogueUnavailableError:
                self._check(data_id, now + RETRY_S)
            except Exception as error:
                # The folder was removed or is damaged, or the disk fails. The other streams must still be checked.
                log_failure(log, error, "the status of stream %s can't be stored", data_id)
                if is_disk_error(error):
                    self._check(data_id, now + RETRY_S)
                else:
                    self._remove_timers(data_id)
            else:
                if wait_s is not None:
                    self._check(data_id, now + wait_s)
        return max(0.0, self._checks[0][0] - self._clock()) if self._checks else None

    async def _expire(self, data_id: str, silent_s: float) -> float | None:
        """Returns the time in s until the stream is checked again, None if it is not open any more."""
        if data_id in self._unread:
            try:
                await self._read_after_data(data_id)
            except ArchiveDeletedError:
                self._remove_timers(data_id)
                return None
            if data_id not in self._read_at:  # it has ended
                self._remove_timers(data_id)
                return None
        silence_s, abandon_s = self._settings.silence_s, self._settings.abandon_s
        if silent_s >= silence_s and self._entries.is_shared:
            silent_s = await self._silent_s(data_id, silent_s)
            about = await self._about(data_id)
            if (
                about is None or about.status not in OPEN
            ):  # it ended at another server, or its files are there
                self._remove_timers(data_id)
                if about is not None:
                    await self._entries.put(about)
                return None
        if (
            silent_s >= min(silence_s, abandon_s)
            and (archive := await self._streams.archive(data_id)).is_cache
        ):
            if (await self._streams.current(data_id)).status not in OPEN:  # another server has ended it
                self._remove_timers(data_id)
                return None
            if await asyncio.to_thread(archive.follow):
                self._last_activity[data_id] = self._clock()
                return min(silence_s, abandon_s)
        if silent_s >= abandon_s:
            self._remove_timers(data_id)
            log.warning(
                "stream %s: no data for %.0f s; its status is failed until data arrives", data_id, silent_s
            )
            await self._set(data_id, "stream_error")
            return None
        if silent_s >= silence_s:
            if data_id not in self._interrupted:
                self._interrupted.add(data_id)
                await self._set(data_id, "stream_interrupted")
            return abandon_s - silent_s
        return min(silence_s, abandon_s) - silent_s
