"""Statistics of a streamer, and the forecast of when its memory or disk will be full."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

from atomstream.config import ClientSettings, OnFull
from atomstream.errors import SpoolError
from atomstream.pipeline.pipeline import Pipeline
from atomstream.pipeline.rate_meter import WINDOW_S, Rates
from atomstream.pipeline.stream import StreamState
from atomstream.spool import JournalState, Spool, SpoolStatus, count_chunks
from atomstream.system.log_privacy import get_logger


class StreamStats(TypedDict):
    """Statistics of one stream.

    ``chunks_*`` count chunks by state; accepted is their sum, failed ones are in quarantine. ``watermark`` is the
    largest k such that chunks 0..k are all resolved (not pending), -1 before the first. ``next_index`` is the next free
    chunk index. ``frames_gathering`` counts the frames that ``push_frame`` has gathered for the next chunk,
    ``frame_gaps`` the gaps in their ids or times. ``standing_still`` is the reason why uploads are paused, or empty.
    """

    chunks_accepted: int
    chunks_stored: int
    chunks_pending: int
    chunks_in_memory_only: int
    chunks_failed: int
    chunks_dropped: int
    watermark: int
    next_index: int
    frames_gathering: int
    frame_gaps: int
    finalized: bool
    standing_still: str


class StreamerStats(TypedDict):
    """Statistics of a streamer, summed over its streams; ``streams`` has those of each stream by ``data_id``.

    Bytes are those of encoded frames, except ``raw_bytes_encoded``. Rates (``*_per_s``) are means of the last 10 s:
    ``in`` is encoded, ``out`` is stored by the server. ``buffer_full_in_s`` is the time until the memory limit is
    reached at these rates; None if the backlog does not grow.
    """

    frames_encoded: int
    frames_stored: int
    raw_bytes_encoded: int
    bytes_encoded: int
    bytes_stored: int
    frames_in_per_s: float
    frames_out_per_s: float
    bytes_in_per_s: float
    bytes_out_per_s: float
    buffer_bytes_used: int
    buffer_bytes_limit: int
    buffer_full_in_s: float | None
    pushes_waiting: int
    uploads_in_flight: int
    upload_backlog: int
    streams: dict[str, StreamStats]


def no_spool_status(folder: Path) -> SpoolStatus:
    """Return the status if no spool could be opened: it is empty, and it has no room."""
    return {
        "dir": str(folder),
        "bytes": 0,
        "max_bytes": 0,
        "min_free_bytes": 0,
        "free_bytes": 0,
        **count_chunks(JournalState()),
        "streams": [],
    }


def stats_of(settings: ClientSettings, pipeline: Pipeline | None) -> StreamerStats:
    """Return the statistics of ``pipeline``; all are zero if it is None."""
    if pipeline is None:
        return _no_stats(settings)
    now = pipeline.statistics()
    return StreamerStats(
        frames_encoded=now.frames_encoded,
        frames_stored=now.frames_stored,
        raw_bytes_encoded=now.raw_bytes_encoded,
        bytes_encoded=now.bytes_encoded,
        bytes_stored=now.bytes_stored,
        frames_in_per_s=now.rates.frames_in_s,
        frames_out_per_s=now.rates.frames_out_s,
        bytes_in_per_s=now.rates.bytes_in_s,
        bytes_out_per_s=now.rates.bytes_out_s,
        buffer_bytes_used=now.memory_used,
        buffer_bytes_limit=now.memory_limit,
        buffer_full_in_s=now.rates.full_in_s(now.memory_free),
        pushes_waiting=now.pushes_waiting,
        uploads_in_flight=now.uploads_in_flight,
        upload_backlog=now.upload_backlog,
        streams={stream.spec.data_id: _stream_stats(pipeline, stream) for stream in pipeline.streams},
    )


def _stream_stats(pipeline: Pipeline, stream: StreamState) -> StreamStats:
    report, ledger = stream.ledger.counts(), stream.ledger
    return StreamStats(
        chunks_accepted=sum(report.values()),
        chunks_stored=report["stored"],
        chunks_pending=report["pending"],
        chunks_in_memory_only=ledger.in_memory_only,
        chunks_failed=report["quarantined"],
        chunks_dropped=report["dropped"],
        watermark=ledger.watermark,
        next_index=ledger.next_index,
        frames_gathering=pipeline.frames_gathered(stream),
        frame_gaps=stream.frame_gaps,
        finalized=ledger.sealed,
        standing_still=pipeline.stall_reason(stream),
    )


def _no_stats(settings: ClientSettings) -> StreamerStats:
    return StreamerStats(
        frames_encoded=0,
        frames_stored=0,
        raw_bytes_encoded=0,
        bytes_encoded=0,
        bytes_stored=0,
        frames_in_per_s=0.0,
        frames_out_per_s=0.0,
        bytes_in_per_s=0.0,
        bytes_out_per_s=0.0,
        buffer_bytes_used=0,
        buffer_bytes_limit=settings.buffer_bytes,
        buffer_full_in_s=None,
        pushes_waiting=0,
        uploads_in_flight=0,
        upload_backlog=0,
        streams={},
    )


# -- forecast -------------------------------------------------------------------------------------------------

log = get_logger("atomstream.forecast")

CHECK_INTERVAL_S: Final = 2.0
WARN_INTERVAL_S: Final = 30.0
HORIZON_S: Final = 86_400.0
"""Longest time ahead, in s, that is forecast."""

_CONSEQUENCES: Final[dict[OnFull, str]] = {
    "wait": "push waits for room (on_full='wait')",
    "drop_newest": "new chunks are dropped, each one counted (on_full='drop_newest')",
    "drop_oldest": "the oldest chunks are dropped, each one counted (on_full='drop_oldest')",
    "raise": "push raises (on_full='raise')",
}


@dataclass(slots=True)
class WarningTimes:
    """When a warning about the backlog is due, and when its cause has ended. Times are in s.

    The rates are means over some seconds. So for as long after a failure of the uploads they do not show the speed of
    the uplink.
    """

    next_warning_s: float = 0.0
    uplink_known_s: float = 0.0
    is_slow: bool = False

    def is_due(self, now: float, failure: str, *, lags: bool) -> bool:
        """Whether a warning may be logged at ``now``: uploads fail with ``failure``, or the uplink ``lags``."""
        if failure:
            self.uplink_known_s, self.is_slow = now + WINDOW_S, False
        return lags and now >= self.next_warning_s and (bool(failure) or now >= self.uplink_known_s)

    def note_warning(self, now: float, failure: str) -> None:
        """A warning was logged at ``now``."""
        self.next_warning_s, self.is_slow = now + WARN_INTERVAL_S, not failure

    def has_ended(self, *, lags: bool) -> bool:
        """True once after the uplink was slow and keeps up again."""
        ended = self.is_slow and not lags
        self.is_slow = self.is_slow and lags
        return ended


async def watch_forecast(pipeline: Pipeline, spool: Spool | None) -> None:
    """Check every 2 s whether memory or disk will be full, until cancelled; logs at most one warning per 30 s."""
    clock, times = asyncio.get_running_loop().time, WarningTimes()
    while True:
        await asyncio.sleep(CHECK_INTERVAL_S)
        failure, lags = pipeline.upload_failure, pipeline.uplink_lags()
        is_due = times.is_due(clock(), failure, lags=lags)
        if times.has_ended(lags=lags):
            log.warning("The uplink keeps up again; the backlog does not grow any more.")
        if not is_due:
            continue
        free = await _free_space(pipeline, spool)
        message = forecast(pipeline.statistics().rates, free, pipeline.settings.on_full, failure)
        if message:
            log.warning("%s", message)
            times.note_warning(clock(), failure)


async def _free_space(pipeline: Pipeline, spool: Spool | None) -> FreeSpace:
    memory = pipeline.statistics().memory_free
    if spool is None or pipeline.unwritten_chunks:
        return FreeSpace(memory, None)
    try:
        return FreeSpace(memory, await pipeline.run_on_disk(spool.available_bytes))
    except SpoolError:
        return FreeSpace(memory, None)


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """Free bytes in memory and on disk; ``disk`` is None if the disk can't be used."""

    memory: int
    disk: int | None


def forecast(rates: Rates, free: FreeSpace, on_full: OnFull = "wait", failure: str = "") -> str:
    """Return when memory or disk will be full, what happens then and what helps; "" if that is over a day away.

    ``failure`` is why uploads fail at present; without one the uplink is too slow.
    """
    place = "memory" if free.disk is None else "the disk"
    left_s = rates.full_in_s(free.memory if free.disk is None else free.disk)
    if left_s is None or left_s > HORIZON_S:
        return ""
    growth = (rates.bytes_in_s - rates.bytes_out_s) / 1e6
    speed = f"The uplink carries {rates.frames_out_s:.0f} of {rates.frames_in_s:.0f} frames a second; the"
    cause = f"{failure.rstrip('.')}. The" if failure else speed
    pause = "when uploads work again" if failure else "when frames pause"
    message = (
        f"{cause} backlog grows {growth:.1f} MB/s; {place} is full in {_span(left_s)}. Nothing is lost until then, and "
        f"the backlog is uploaded {pause}; after that {_CONSEQUENCES[on_full]}."
    )
    return message if failure else f"{message} {_advice(rates)}"


def _advice(rates: Rates) -> str:
    share = rates.frames_out_s / rates.frames_in_s
    if share < 0.01:
        return "Check the server and the network connection to it."
    return (
        f"To keep up now: at most {rates.frames_out_s:.0f} frames a second, or a region or binning that leaves "
        f"{100 * share:.0f} % of the pixels. Compression is already as strong as zstd allows."
    )


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
