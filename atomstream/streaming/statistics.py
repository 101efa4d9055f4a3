"""``stats()``: how a streamer stands, in numbers a program or a person can read."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

from atomstream.config import ClientSettings, OnFull
from atomstream.errors import SpoolError
from atomstream.pipeline.pipeline import Pipeline
from atomstream.pipeline.rate_meter import Rates
from atomstream.pipeline.stream import StreamState
from atomstream.spool import JournalState, Spool, SpoolStatus, count_chunks


class StreamStats(TypedDict):
    """One stream: chunks by state, the watermark (largest k with 0..k settled, -1 at first), and why it stands.

    ``frames_gathering`` counts frames in ``push_frame``'s buffer, ``frame_gaps`` gaps in its ids or times.
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
    """The whole streamer. Rates are means of the last 10 s; bytes are encoded unless ``raw`` is in the name.

    ``buffer_full_in_s`` is when memory is full at the present rates; None where the backlog does not grow.
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
    """The status where no spool could be opened: nothing is on disk, and nothing can be."""
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
    """The stats of ``pipeline``; zeros before the first stream."""
    if pipeline is None:
        return _nothing_yet(settings)
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


def _nothing_yet(settings: ClientSettings) -> StreamerStats:
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


# Says long before it happens that memory or disk will be full: what the uplink carries, how the backlog grows.

log = logging.getLogger("atomstream.forecast")

LOOK_S: Final = 2.0

REPEAT_S: Final = 30.0

HORIZON_S: Final = 86_400.0

_THEN: Final[dict[OnFull, str]] = {
    "wait": "push waits for room (on_full='wait')",
    "drop_newest": "new chunks are dropped, each one counted (on_full='drop_newest')",
    "drop_oldest": "the oldest chunks are dropped, each one counted (on_full='drop_oldest')",
    "raise": "push raises (on_full='raise')",
}


async def watch_forecast(pipeline: Pipeline, spool: Spool | None) -> None:
    """Look each two seconds, for as long as the streamer lives; warn at most each thirty."""
    while True:
        await asyncio.sleep(LOOK_S)
        if not pipeline.uplink_lags():
            continue
        room = await _room(pipeline, spool)
        sentence = forecast(pipeline.statistics().rates, room, pipeline.settings.on_full)
        if sentence:
            log.warning("%s", sentence)
            await asyncio.sleep(REPEAT_S)


async def _room(pipeline: Pipeline, spool: Spool | None) -> FreeSpace:
    memory = pipeline.statistics().memory_free
    if spool is None or pipeline.unwritten_chunks:
        return FreeSpace(memory, None)
    try:
        return FreeSpace(memory, await pipeline.run_on_disk(spool.available_bytes))
    except SpoolError:
        return FreeSpace(memory, None)


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """Bytes that still fit in memory, and on disk (None: the disk takes nothing)."""

    memory: int
    disk: int | None


def forecast(rates: Rates, room: FreeSpace, on_full: OnFull = "wait") -> str:
    """What happens and what can be done, where memory or disk will be full within the day; else empty."""
    place = "memory" if room.disk is None else "the disk"
    left_s = rates.full_in_s(room.memory if room.disk is None else room.disk)
    if left_s is None or left_s > HORIZON_S:
        return ""
    growth = (rates.bytes_in_s - rates.bytes_out_s) / 1e6
    return (
        f"The uplink carries {rates.frames_out_s:.0f} of {rates.frames_in_s:.0f} frames a second; the backlog "
        f"grows {growth:.1f} MB/s; {place} is full in {_span(left_s)}. Nothing is lost until then, and what waits "
        f"goes out when frames pause; after it {_THEN[on_full]}. {_advice(rates)}"
    )


def _advice(rates: Rates) -> str:
    share = rates.frames_out_s / rates.frames_in_s
    if share < 0.01:
        return "See whether the server and the way to it are well."
    return (
        f"To keep up now: at most {rates.frames_out_s:.0f} frames a second, or a region or binning that leaves "
        f"{100 * share:.0f} % of the pixels; shards are made as small as zstd can by itself."
    )


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
