"""Runs the rules of retention: once a day, on request, or only as a preview.

A stream is never changed while it runs, is being analysed, or is being read through this server: then the next run
changes it. A backup of the data folder and a run exclude each other.
"""

from __future__ import annotations

import asyncio
import datetime
import threading
import time
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np

from atomstream.errors import AtomstreamError, ConfigError, ShardError
from atomstream.index_ranges import IndexSet
from atomstream.protocol import MAX_CHUNK_INDEX
from atomstream.server.archive.archive_files import ArchiveDeletedError
from atomstream.server.archive.metadata import ENDED_STATUSES, StreamMetadata, Thinning
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.disk_errors import log_failure
from atomstream.server.live.manager import NoRoomError, ResultsManager
from atomstream.server.ports.store import StoreUnavailableError
from atomstream.server.retention.facts import Facts
from atomstream.server.retention.plan import Action, Mask, frames_to_keep, make_plan, replaced
from atomstream.server.retention.report import RetentionReport, RunRecord
from atomstream.server.retention_rules import RetentionSettings
from atomstream.server.streams.registry import StreamRegistry
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")
audit_log = get_logger("atomstream.server.audit")

USED_S: Final = 900.0
"""A stream that was requested within this number of seconds counts as being read."""
AFTER_START_S: Final = 600.0
"""Seconds from the start of the server to a run that was missed because the server was off."""
REFRESH_S: Final = 3600.0
"""Interval, in s, at which the report is read again, in case another server has written it."""


class Retention:
    """The retention of one server. Used in its loop; ``clock`` is the wall clock in s."""

    def __init__(
        self,
        settings: RetentionSettings,
        record: RunRecord,
        facts: Facts,
        streams: StreamRegistry,
        results: ResultsManager,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self._record = record
        self._facts = facts
        self._streams = streams
        self._results = results
        self._clock = clock
        self._turn = asyncio.Lock()
        self._stop = threading.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def report(self) -> RetentionReport | None:
        """The report of the run that goes on, or of the last one; None before the first."""
        return self._record.report

    async def refresh(self) -> RetentionReport | None:
        """The report, read again where another server may have written it."""
        return await self._record.refresh()

    async def preview(self) -> RetentionReport:
        """What a run would do now. Nothing is changed."""
        began = self._clock()
        plan = make_plan(await self._facts.all(began, self._why_not), self.settings)
        return RetentionReport.of(plan, began, self._clock())

    def start(self) -> bool:
        """Begin a run in the background; False if one runs already."""
        if self._task is not None and not self._task.done():
            return False
        self._task = asyncio.create_task(self._run_and_log(), name="atomstream retention")
        return True

    async def wait(self) -> None:
        """Return when no run goes on that :meth:`start` has begun."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run_and_log(self) -> None:
        try:
            await self.run()
        except ConfigError as error:
            log.warning("retention: %s", error)
        except Exception as error:
            log_failure(log, error, "retention: the run failed; the next one continues it")

    async def run(self) -> RetentionReport:
        """Apply the rules now, and return what was done.

        Raises:
            ConfigError: a backup of the data folder runs, or another server applies the rules.
        """
        async with self._turn:
            began = self._clock()
            await self._record.begin(began)
            try:
                report = await self._run(began)
            except BaseException:
                await self._record.end(self._cut_short())
                raise
            await self._record.end(report)
            return report

    def _cut_short(self) -> RetentionReport | None:
        """What a run had done when it failed."""
        if self.report is None or not self.report.running:
            return self.report
        return msgspec.structs.replace(self.report, ended=self._clock(), running=False)

    async def _run(self, began: float) -> RetentionReport:
        plan = make_plan(await self._facts.all(began, self._why_not), self.settings)
        report = RetentionReport.of(plan, began, None)
        done: list[Action] = []
        failed: list[tuple[str, str]] = []
        skipped = list(report.skipped)
        report = msgspec.structs.replace(report, running=True, actions=done, failed=failed, skipped=skipped)
        self._record.note(report)
        for action in plan.actions:
            if self._must_end:
                break
            await self._apply(action, done, skipped, failed)
        report = msgspec.structs.replace(report, ended=self._clock(), running=False)
        for sentence in report.over:
            log.warning("retention: %s", sentence)
        audit_log.info(
            "retention: %d streams changed, %d skipped, %d failed, %.1f MB freed",
            len(done), len(skipped), len(failed), report.freed_bytes / 1e6,
        )  # fmt: skip
        return report

    async def _apply(
        self,
        action: Action,
        done: list[Action],
        skipped: list[tuple[str, str]],
        failed: list[tuple[str, str]],
    ) -> None:
        data_id = action.data_id
        try:
            if busy := await self._why_busy(data_id) or await self._why_unfinished(data_id):
                skipped.append((data_id, busy))
                return
            freed = await self.thin(data_id, action.every, action.around_s)
        except ArchiveDeletedError:
            skipped.append((data_id, "it was deleted"))
            return
        except (AtomstreamError, OSError) as error:
            failed.append((data_id, str(error)))
            if isinstance(error, StoreUnavailableError):
                raise  # each further stream would wait for the store as well
            log_failure(log, error, "retention: stream %s was not changed completely", data_id)
            return
        if freed is None:
            skipped.append((data_id, "it is being used again; the next run continues"))
            return
        done.append(replaced(action, freed))
        audit_log.info(
            "stream %s thinned by a rule (%s), %.1f MB freed", data_id, action.sentence, freed / 1e6
        )

    async def thin(self, data_id: str, every: int, around_s: float) -> int | None:
        """Keep one frame in ``every`` and those near events; with 0 none. Returns the bytes that became free.

        An interrupted thinning is finished first, as it was planned. None: somebody began to use the stream, and the
        next run continues.

        Raises:
            AtomstreamError: the stream can't be used. OSError: from the disk.
        """
        archive = await self._streams.archive(data_id)
        before = (await self._streams.current(data_id)).thinning
        await asyncio.to_thread(archive.follow, all_chunks=True)
        await asyncio.to_thread(archive.merge_chunks)  # not meanwhile: what is merged then has all its frames
        if before is None or before.complete or not before.planned:
            events = await self._events(data_id)
            since = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC).isoformat(timespec="seconds")
            freed = before.bytes_freed if before is not None else 0
            chunks = str(archive.stored())
            begun = Thinning(every=every, around_s=around_s, since=since, bytes_freed=freed, chunks=chunks)
            await self._streams.change(data_id, thinning=begun)
            if await self._why_busy(data_id):  # another process has begun to analyse it at this moment
                await self._streams.change(data_id, thinning=before)
                return None
            left = await asyncio.to_thread(_plan, archive, every, around_s, events)
            before = msgspec.structs.replace(begun, planned=True, frames_left=left)
            await self._streams.change(data_id, thinning=before)
        freed = 0
        stored = archive.stored()
        planned = stored
        if before.chunks:
            planned = stored & IndexSet.parse(before.chunks, max_index=MAX_CHUNK_INDEX)
        for index in planned:
            if self._must_end or await self._why_busy(data_id):
                await self._note(data_id, archive, before, freed, complete=False)
                return None
            try:
                freed += await asyncio.to_thread(archive.thinned.remove, index, planned)
            except (ShardError, FileNotFoundError) as error:  # a damaged chunk stays as it is
                archive.note_unreadable(index, str(error))
        await self._note(data_id, archive, before, freed, complete=True)
        return freed

    async def _note(
        self, data_id: str, archive: StreamArchive, thinning: Thinning, freed: int, *, complete: bool
    ) -> None:
        noted = msgspec.structs.replace(thinning, bytes_freed=thinning.bytes_freed + freed, complete=complete)
        await self._streams.change(data_id, thinning=noted)
        await asyncio.to_thread(archive.flush_metadata)

    async def _events(self, data_id: str) -> list[float]:
        """The times of all events of a stream in s, ascending."""
        with self._results.unnoticed(data_id):
            results = await self._results.of(data_id)
            times = [event.time_s for event in results.events()]
        return sorted(time_s for time_s in times if time_s is not None and np.isfinite(time_s))

    # -- facts about the streams -------------------------------------------------------------------------

    @property
    def _must_end(self) -> bool:
        """Whether the run ends after the present chunk."""
        return self._stop.is_set() or self._record.lost

    async def _why_busy(self, data_id: str) -> str:
        """Why a stream must not be changed at this moment, empty if it may be. Opens nothing but its archive."""
        about = await self._streams.current(data_id)
        archive = await self._streams.archive(data_id)
        return self._why_not(about, await asyncio.to_thread(archive.is_analysed_again))

    def _why_not(self, about: StreamMetadata, analysed_again: bool) -> str:
        """Why a stream must not be changed; ``analysed_again``: an analysis of it runs. Any thread may call it."""
        if about.status not in ENDED_STATUSES:
            return f"it runs ({about.status})"
        if self._results.is_used(about.data_id, USED_S):
            return "it is being read"
        return "its analysis has not ended" if analysed_again else ""

    async def _why_unfinished(self, data_id: str) -> str:
        """Why the analysis of an ended stream has not all results yet, empty if it has."""
        try:
            with self._results.unnoticed(data_id):
                results = await self._results.of(data_id)
        except NoRoomError:
            return "too many streams are in use"
        return "" if results.is_over and results.state == "ended" else "it was not analysed to its end"

    # -- once a day --------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Run once a day for as long as the server runs; a run that was missed is made up for."""
        await asyncio.sleep(AFTER_START_S)
        while True:
            report = await self.refresh()
            last = None if report is None else report.began
            due = seconds_until_due(self._clock(), last, self.settings.daily_at)
            if due > 0:
                await asyncio.sleep(min(due, REFRESH_S))  # another server may run them meanwhile
                continue
            self.start()
            await self.wait()
            if self.report is None or self.report.began == last:  # it could not begin
                await asyncio.sleep(AFTER_START_S)

    async def close(self) -> None:
        """End a run after the present chunk; the next one continues it."""
        self._stop.set()
        await self.wait()


def seconds_until_due(now: float, last: float | None, daily_at: str) -> float:
    """Seconds until the next run: 0 if the last one began before the latest ``daily_at`` (local time)."""
    hour, minute = map(int, daily_at.split(":"))
    moment = datetime.datetime.fromtimestamp(now)
    today = moment.replace(hour=hour, minute=minute, second=0, microsecond=0)
    latest = today if today <= moment else today - datetime.timedelta(days=1)
    if last is None or last < latest.timestamp():
        return 0.0
    return max(0.0, (latest + datetime.timedelta(days=1)).timestamp() - now)


def _plan(archive: StreamArchive, every: int, around_s: float, events: list[float]) -> int:
    times_of = np.array(events, dtype=np.float64)

    def wanted(first: int, n_frames: int) -> Mask:
        times_s = archive.results.times(first, first + n_frames)
        return frames_to_keep(first, times_s, every, times_of, around_s)

    return archive.thinned.plan(wanted)
