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
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from filelock import FileLock, Timeout

from atomstream.errors import AtomstreamError, ConfigError, ShardError
from atomstream.server.archive.metadata import StreamMetadata, Thinning, is_stream_id
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.data_dir import upkeep_lock
from atomstream.server.disk_errors import log_failure
from atomstream.server.http.responses import HttpError
from atomstream.server.live.manager import NoRoomError, ResultsManager
from atomstream.server.live.result_store import RUNNING
from atomstream.server.retention.plan import (
    Action,
    Mask,
    Plan,
    StreamFacts,
    frames_to_keep,
    make_plan,
    replaced,
)
from atomstream.server.retention_rules import RetentionSettings
from atomstream.server.streams.registry import StreamRegistry
from atomstream.system.files import LOCAL
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import read_plain

log = get_logger("atomstream.server")
audit_log = get_logger("atomstream.server.audit")

USED_S: Final = 900.0
"""A stream that was asked for within so many seconds is being read."""
AFTER_START_S: Final = 600.0
"""Seconds after a start until a run that was missed, because the server was off, is made up for."""
REPORT_FILE: Final = "retention.json"
MAX_LISTED: Final = 1000
_ENDED: Final = frozenset({"success", "stream_error"})


class RetentionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did, or a preview would do. Times are UTC seconds since 1970.

    ``actions`` are in their order; ``skipped`` are pairs of a stream's id and the reason; ``failed`` as well.
    """

    began: float
    ended: float | None = None
    running: bool = False
    actions: list[Action] = []
    skipped: list[tuple[str, str]] = []
    failed: list[tuple[str, str]] = []
    over: list[str] = []

    @property
    def freed_bytes(self) -> int:
        """Bytes of all actions together."""
        return sum(action.freed_bytes for action in self.actions)


class Retention:
    """The retention of one server. Used in its loop; ``clock`` is the wall clock in s."""

    def __init__(
        self,
        settings: RetentionSettings,
        data_dir: Path,
        streams: StreamRegistry,
        results: ResultsManager,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self._data_dir = data_dir
        self._streams = streams
        self._results = results
        self._clock = clock
        self._turn = asyncio.Lock()
        self._stop = threading.Event()
        self._task: asyncio.Task[None] | None = None
        self.report = _read_report(data_dir)
        """The report of the run that goes on, or of the last one; None before the first."""

    async def preview(self) -> RetentionReport:
        """What a run would do now. Nothing is changed."""
        began = self._clock()
        plan = make_plan(await self._facts(), self.settings)
        return _as_report(plan, began, self._clock())

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
            ConfigError: a backup of the data folder runs.
        """
        async with self._turn:
            lock = await asyncio.to_thread(_lock, self._data_dir)
            try:
                return await self._run()
            finally:
                await asyncio.to_thread(lock.release)

    async def _run(self) -> RetentionReport:
        began = self._clock()
        plan = make_plan(await self._facts(), self.settings)
        report = self.report = msgspec.structs.replace(
            _as_report(plan, began, None), running=True, actions=[]
        )
        done: list[Action] = []
        failed: list[tuple[str, str]] = []
        skipped = list(report.skipped)
        try:
            for action in plan.actions:
                if self._stop.is_set():
                    break
                await self._apply(action, done, skipped, failed)
        finally:
            report = msgspec.structs.replace(
                report, ended=self._clock(), running=False, actions=done, failed=failed, skipped=skipped
            )
            self.report = report
            await asyncio.to_thread(_write_report, self._data_dir, report)
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
        except (AtomstreamError, OSError) as error:
            failed.append((data_id, str(error)))
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
        about = await self._streams.about(data_id)
        before = about.thinning
        if before is None or before.complete or not before.planned:
            events = await self._events(data_id)
            since = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC).isoformat(timespec="seconds")
            freed = before.bytes_freed if before is not None else 0
            begun = Thinning(every=every, around_s=around_s, since=since, bytes_freed=freed)
            await self._streams.change(data_id, thinning=begun)
            left = await asyncio.to_thread(_plan, archive, every, around_s, events)
            before = msgspec.structs.replace(begun, planned=True, frames_left=left)
            await self._streams.change(data_id, thinning=before)
        freed = 0
        for index in archive.stored():
            if self._stop.is_set() or await self._why_busy(data_id):
                await self._note(data_id, archive, before, freed, complete=False)
                return None
            try:
                freed += await asyncio.to_thread(archive.thinned.remove, index)
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

    async def _facts(self) -> list[StreamFacts]:
        found = []
        names = await asyncio.to_thread(lambda: sorted(path.name for path in self._streams.folder.iterdir()))
        for data_id in filter(is_stream_id, names):
            try:
                found.append(await self._facts_of(data_id))
            except HttpError as error:  # deleted meanwhile, or damaged: nothing is changed
                log.info("retention: stream %s is left out: %s", data_id, error.detail)
        return found

    async def _facts_of(self, data_id: str) -> StreamFacts:
        archive, about = await self._streams.archive(data_id), await self._streams.about(data_id)
        now = self._clock()
        newest_s, nbytes = await asyncio.to_thread(_measure, archive)
        made = datetime.datetime.fromisoformat(about.made).timestamp()
        newest_s = max(made, newest_s if newest_s <= now else 0.0)
        return StreamFacts(
            data_id=data_id,
            name=about.name,
            project=about.project.name if about.project else None,
            age_s=max(0.0, now - newest_s),
            n_frames=archive.frames_stored(),
            nbytes=nbytes,
            busy=await self._why_busy(data_id, about) if nbytes else "",
            thinning=about.thinning,
        )

    async def _why_busy(self, data_id: str, about: StreamMetadata | None = None) -> str:
        """Why a stream must not be changed, empty if it may be. Opens nothing but its archive."""
        about = about or await self._streams.about(data_id)
        if about.status not in _ENDED:
            return f"it runs ({about.status})"
        if self._results.is_used(data_id, USED_S):
            return "it is being read"
        if await asyncio.to_thread((self._streams.folder / data_id / "analysis" / RUNNING).exists):
            return "its analysis has not ended"
        return ""

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
            last = self.report.began if self.report is not None else None
            await asyncio.sleep(seconds_until_due(self._clock(), last, self.settings.daily_at))
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


def _measure(archive: StreamArchive) -> tuple[float, int]:
    """The time of the newest frame in Unix s (0 if unknown), and the bytes of all shards."""
    nbytes = 0
    for index in archive.stored():
        try:
            nbytes += archive.shard_file(index).stat().st_size
        except OSError:
            continue
    n_frames, origin = archive.n_frames(), archive.origin_unix_ms
    if not n_frames or origin is None:
        return 0.0, nbytes
    newest = float(archive.results.times(n_frames - 1, n_frames)[0])
    return (origin / 1000.0 + newest if np.isfinite(newest) else 0.0), nbytes


def _lock(data_dir: Path) -> FileLock:
    lock = upkeep_lock(data_dir)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"A backup of {data_dir} runs, or another run of the rules. Nothing was changed; try again after it."
        ) from None
    return lock


def _as_report(plan: Plan, began: float, ended: float | None) -> RetentionReport:
    return RetentionReport(
        began=began,
        ended=ended,
        actions=list(plan.actions),
        skipped=list(plan.skipped),
        over=list(plan.over),
    )


def _write_report(data_dir: Path, report: RetentionReport) -> None:
    short = msgspec.structs.replace(
        report, actions=report.actions[:MAX_LISTED], skipped=report.skipped[:MAX_LISTED]
    )
    try:
        LOCAL.write_atomic(data_dir / REPORT_FILE, [msgspec.json.encode(short)])
    except OSError as error:
        log.warning("the report of the retention can't be written: %s", error)


def _read_report(data_dir: Path) -> RetentionReport | None:
    try:
        return msgspec.json.decode(read_plain(data_dir / REPORT_FILE), type=RetentionReport)
    except (OSError, msgspec.MsgspecError):
        return None
