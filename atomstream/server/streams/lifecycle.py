"""The life of a stream: active -> finalizing -> success; interrupted after a silence; back when data comes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from atomstream.index_ranges import IndexSet
from atomstream.server.archive.metadata import Status
from atomstream.server.archive.records import Geometry
from atomstream.server.catalogue.streams_table import StreamsTable
from atomstream.server.http.responses import HttpError
from atomstream.server.settings import ServerSettings
from atomstream.server.streams.registry import StreamRegistry
from atomstream.server.streams.signals import ServerSignals, StatusChanged

log = logging.getLogger("atomstream.server")
OPEN: tuple[Status, ...] = ("stream_active", "stream_interrupted")


class Lifecycle:
    """Moves streams from status to status. ``clock`` (s, monotonic) tells silence; no wall clock does.

    Statuses are in the streams' files and survive a restart; what is timed begins anew at one.
    """

    def __init__(
        self,
        settings: ServerSettings,
        streams: StreamRegistry,
        entries: StreamsTable,
        events: ServerSignals,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._streams = streams
        self._entries = entries
        self._events = events
        self._clock = clock
        self._heard: dict[str, float] = {}
        self._finishing: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()

    async def resume(self) -> None:
        """After a start: time the open streams, and finish those that were being finished."""
        for data_id in await self._entries.with_status(*OPEN):
            self._listen(data_id)
        for data_id in await self._entries.with_status("stream_finalizing"):
            await self._finish(data_id)

    def _listen(self, data_id: str) -> None:
        self._heard[data_id] = self._clock()
        self._wake.set()

    async def begin(self, data_id: str) -> None:
        """A stream was created."""
        self._listen(data_id)
        await self._events.created.send(data_id)

    def touch(self, data_id: str) -> None:
        """Bytes of a chunk are on their way: no silence, though no data yet."""
        if data_id in self._heard:
            self._heard[data_id] = self._clock()

    async def data_came(self, data_id: str, geometry: Geometry) -> None:
        """A chunk was stored: an open stream is active (again); an ended one is finished once more."""
        about = await self._streams.about(data_id)
        if about.geometry is None:
            await self._streams.change(data_id, geometry=geometry)
        if about.status in ("stream_finalizing", "success"):
            await self._set(data_id, "stream_finalizing")
            await self._finish(data_id)
            return
        self._listen(data_id)
        if about.status != "stream_active":
            await self._set(data_id, "stream_active")

    async def end(self, data_id: str, lost: IndexSet) -> Status:
        """The client has no more: note what it gave up, finish the archive. Repeating it is harmless."""
        archive = await self._streams.archive(data_id)
        self._heard.pop(data_id, None)
        if lost:
            await asyncio.to_thread(archive.mark_lost, lost)
        if lost or (await self._streams.about(data_id)).status != "success":
            await self._set(data_id, "stream_finalizing")
            await self._finish(data_id)
        return (await self._streams.about(data_id)).status

    async def _finish(self, data_id: str) -> None:
        # One at a time for each stream; whoever asks while it runs wants another run after it.
        before = self._finishing.get(data_id)
        task = asyncio.create_task(self._finish_after(before, data_id), name=f"finish {data_id}")
        self._finishing[data_id] = task
        try:
            # A client that goes away does not stop it.
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
            await self._events.status_changed.send(StatusChanged(data_id, status))

    async def watch(self) -> None:
        """Tell silences, for as long as the server runs."""
        while True:
            self._wake.clear()
            due = await self.expire_idle()
            with suppress(TimeoutError):
                async with asyncio.timeout(due):
                    await self._wake.wait()

    async def expire_idle(self) -> float | None:
        """Move silent streams on; returns the seconds until the next one may be due (None: none is open)."""
        waits: list[float] = []
        for data_id, since in list(self._heard.items()):
            try:
                waits.append(await self._tell_silence(data_id, self._clock() - since))
            except (OSError, HttpError):
                # Its folder was taken away, or the disk fails: that is no reason to stop timing the others.
                log.exception("the status of stream %s can't be kept", data_id)
                self._heard.pop(data_id, None)
        return min(waits, default=None)

    async def _tell_silence(self, data_id: str, silent_s: float) -> float:
        silence_s, abandon_s = self._settings.silence_s, self._settings.abandon_s
        if silent_s >= abandon_s:
            self._heard.pop(data_id, None)
            log.warning(
                "stream %s: no data for %.0f s; it counts as failed until data comes", data_id, silent_s
            )
            await self._set(data_id, "stream_error")
            return abandon_s
        if silent_s >= silence_s:
            await self._set(data_id, "stream_interrupted")
            return abandon_s - silent_s
        return min(silence_s, abandon_s) - silent_s
