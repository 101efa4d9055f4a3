"""``stats()``: how a streamer stands, in numbers a program or a person can read."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from atomstream.config import ClientSettings
from atomstream.pipeline.pipeline import Pipeline
from atomstream.pipeline.stream import Stream
from atomstream.spool import SpoolStatus, StreamHistory, counts_of


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
        **counts_of(StreamHistory()),
        "streams": [],
    }


def stats_of(settings: ClientSettings, pipeline: Pipeline | None) -> StreamerStats:
    """The stats of ``pipeline``; zeros before the first stream."""
    if pipeline is None:
        return _nothing_yet(settings)
    meter, gate, rates = pipeline.meter, pipeline.gate, pipeline.meter.rates()
    return StreamerStats(
        frames_encoded=meter.frames_encoded,
        frames_stored=meter.frames_stored,
        raw_bytes_encoded=meter.raw_bytes_encoded,
        bytes_encoded=meter.bytes_encoded,
        bytes_stored=meter.bytes_stored,
        frames_in_per_s=rates.frames_in_s,
        frames_out_per_s=rates.frames_out_s,
        bytes_in_per_s=rates.bytes_in_s,
        bytes_out_per_s=rates.bytes_out_s,
        buffer_bytes_used=gate.used,
        buffer_bytes_limit=gate.limit,
        buffer_full_in_s=rates.full_in_s(max(0, gate.limit - gate.used)),
        pushes_waiting=gate.waiting,
        uploads_in_flight=pipeline.uploader.in_flight,
        upload_backlog=pipeline.uploader.backlog,
        streams={name: _stream_stats(pipeline, stream) for name, stream in pipeline.streams.items()},
    )


def _stream_stats(pipeline: Pipeline, stream: Stream) -> StreamStats:
    report, ledger = stream.ledger.counts(), stream.ledger
    name = stream.spec.data_id
    return StreamStats(
        chunks_accepted=sum(report.values()),
        chunks_stored=report["stored"],
        chunks_pending=report["pending"],
        chunks_in_memory_only=ledger.unsafe,
        chunks_failed=report["quarantined"],
        chunks_dropped=report["dropped"],
        watermark=ledger.watermark,
        next_index=ledger.next_index,
        frames_gathering=pipeline.fillers[name].frames_held,
        frame_gaps=stream.frame_gaps,
        finalized=ledger.sealed,
        standing_still=pipeline.uploader.standing_still(name),
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
