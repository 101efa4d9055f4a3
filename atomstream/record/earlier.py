"""Recordings of earlier processes: interrupted ones are ended, and what was not sent is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from atomstream.errors import (
    AtomstreamError,
    ConfigError,
    DrainTimeoutError,
    SpoolError,
    SpoolLockedError,
    StreamError,
    StreamFinalizedError,
)
from atomstream.login import NO_SERVER
from atomstream.record.marks import Mark, MarkSender
from atomstream.record.recordings_log import RecordingEntry, RecordingsLog
from atomstream.record.settings import RecorderSettings
from atomstream.record.streamers import Streamers
from atomstream.spool import Spool
from atomstream.streaming import AsyncRHEEDStreamer
from atomstream.system.log_privacy import get_logger

log = get_logger(__name__)


class EarlierRecordings:
    """Reads the list of recordings at the start, and completes those that earlier processes left.

    Those of the present server, and those without one, are followed; those of another server wait until that one is
    used again.
    """

    def __init__(
        self,
        settings: RecorderSettings,
        recordings: RecordingsLog,
        streamers: Streamers,
        notify: Callable[[str], object],
    ) -> None:
        self._settings = settings
        self._log = recordings
        self._streamers = streamers
        self._notify = notify
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> list[RecordingEntry]:
        """Return all recordings, the newest first. What is left to be done for them is done in tasks."""
        await asyncio.to_thread(self._log.delete_old)
        entries = await asyncio.to_thread(self._log.entries)
        if self._streamers.login is not NO_SERVER:
            await self._adopt(entries)
        await self._streamers.main()
        for entry in entries:
            ours = entry.endpoint in {self._streamers.login.endpoint, NO_SERVER.endpoint}
            if ours and entry.state in {"recording", "saved", "interrupted"}:
                self._tasks.append(asyncio.create_task(self._complete(entry), name="atomstream-earlier"))
        return entries

    async def close(self) -> None:
        """End the tasks; what they have not done is done at the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _adopt(self, entries: list[RecordingEntry]) -> None:
        """Give the recordings that were made without a server to the present one."""
        endpoint, folder = self._streamers.login.endpoint, self._settings.spool_dir
        try:
            adopted = await asyncio.to_thread(lambda: Spool(folder).adopt(NO_SERVER.endpoint, endpoint))
        except SpoolError as error:
            self._notify(f"Recordings without a server stay on this computer: {error}")
            return
        for entry in [one for one in entries if one.data_id in adopted]:
            entry.endpoint = endpoint
            await self._write(entry)
        if adopted:
            which = "The recording that was" if len(adopted) == 1 else f"{len(adopted)} recordings that were"
            self._notify(f"{which} made without a server will be sent to {endpoint}.")

    async def _complete(self, entry: RecordingEntry) -> None:
        try:
            streamer = await self._streamers.of(
                NO_SERVER if entry.endpoint == NO_SERVER.endpoint else self._streamers.login
            )
            if await self._end(streamer, entry) and entry.unsent_marks:
                await self._send_marks(streamer, entry)
        except AtomstreamError as error:
            log.warning("The recording %s of an earlier process: %s", entry.data_id, error)

    async def _end(self, streamer: AsyncRHEEDStreamer, entry: RecordingEntry) -> bool:
        """End the stream of a recording, and wait until the server has it; False if another process has it."""
        interrupted = entry.state == "recording"
        try:
            await streamer.resume(entry.data_id)
        except SpoolLockedError:
            return False  # another recorder records it now
        except StreamFinalizedError:
            pass
        except StreamError:  # it was sent, or deleted by hand
            entry.state = "interrupted" if interrupted else "gone"
            await self._write(entry)
            return True
        if interrupted:
            entry.state = "interrupted"
            await self._write(entry)
            self._notify(
                f"The recording {entry.name!r} was interrupted: its recorder was killed, or the power failed. "
                "What was saved until then is kept, and sent to its server."
            )
        while True:
            with suppress(DrainTimeoutError):  # the server is unreachable: nothing is discarded
                report = await streamer.finalize(entry.data_id)
                break
        if report["closed"] and entry.state == "saved":
            entry.state = "sent"
            await self._write(entry)
        return True

    async def _send_marks(self, streamer: AsyncRHEEDStreamer, entry: RecordingEntry) -> None:
        """Send the marks that an earlier process could not send."""

        async def send(mark: Mark) -> None:
            await streamer.mark(entry.server_id or entry.data_id, mark.label, mark.kind, mark.time_ms)
            entry.unsent_marks = [one for one in entry.unsent_marks if one != asdict(mark)]
            await self._write(entry)

        sender = MarkSender(send, self._notify)
        for one in list[dict[str, Any]](entry.unsent_marks):
            with suppress(ConfigError, TypeError):
                sender.add(Mark(**one))
        await sender.run()

    async def _write(self, entry: RecordingEntry) -> None:
        await asyncio.to_thread(self._log.write, entry)
