"""The worker process, which :mod:`~atomstream.server.live.worker_entry` starts. It analyses; it stores nothing.

It is a process because the fits hold the interpreter lock for milliseconds at a time, which would delay the server's
loop at each piece of an upload, and because a crash of the analysis must not end the server. It receives decoded
frames through shared memory, or decodes the stored shard itself. It exits when its standard input closes, so it never
outlives its server.
"""

from __future__ import annotations

import math
import mmap
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import msgspec
import numpy as np

from atomstream.analysis import Analyzer, Box, Calibration
from atomstream.errors import ShardError
from atomstream.records import Frames
from atomstream.results import F64, Batch, Int
from atomstream.server.archive.shard_file import ShardFile
from atomstream.server.live import worker_messages
from atomstream.server.live.annotation_records import (
    AnalyzerEntry,
    CalibrationEntry,
    CalibrationRecord,
    CorrectedEvent,
    RegionsEntry,
    TimedEvent,
    to_region,
)
from atomstream.server.live.messages import AnalyzerBatch, analyzer_batch
from atomstream.server.live.worker_messages import (
    MEMORY_VARIABLE,
    AnalyzerState,
    AnnotateJob,
    AnyJob,
    BatchReply,
    ChunkFrames,
    ChunkJob,
    CloseJob,
    DoneReply,
    ErrorReply,
    FinishJob,
    GapJob,
    LateJob,
    OpenJob,
    ReadyReply,
    Reply,
    StreamSettings,
)

# -- the analysis of one stream --------------------------------------------------------------------------

SUB_BATCH_S = 0.5
"""Longest time of frames in one batch, in s: long chunks give several batches, with new fits in each."""

MAX_BATCH_FRAMES = 1024
"""Most frames in a batch: each reader of the feed has a message with the values of all of them in memory."""

PART_BYTES = 64 << 20
"""Largest part of a chunk, in bytes, that is decoded and analysed at a time; a part has at least one frame."""

LATE_COLUMNS = frozenset(
    {
        "time_seconds",
        *("specular_intensity", "specular_background", "specular_x", "specular_y", "saturated_fraction"),
        *(f"{order}_order_intensity{side}" for order in ("first", "half") for side in ("", "_l", "_r")),
        "azimuth_angle",
    }
)
"""Columns that can be measured on late frames, without the fits."""


class AnalyzerSession:
    """The analyzer of one stream."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._events: list[TimedEvent] = []
        self._step = max(1, min(MAX_BATCH_FRAMES, round(SUB_BATCH_S * settings.fps)))
        state, settings.state = settings.state, None
        self._analyzer = Analyzer.from_state(msgspec.msgpack.decode(state)) if state else self._new_analyzer()

    def _new_analyzer(self) -> Analyzer:
        settings = self._settings
        return Analyzer(settings.fps, settings.rpm, settings.chunk_size, _calibration(settings.calibration))

    def annotate(self, entries: list[AnalyzerEntry]) -> None:
        """Apply entries of the user: events at their time, all others at once."""
        for entry in entries:
            match entry:
                case RegionsEntry():
                    self._analyzer.set_regions([to_region(region) for region in entry.regions])
                case CalibrationEntry():
                    self._settings.calibration = entry.calibration
                    self._analyzer.set_calibration(_calibration(entry.calibration))
                case TimedEvent():
                    self._events.append(entry)
                case CorrectedEvent():
                    self._correct(entry)
        self._events.sort(key=lambda event: event.time_s)

    def _correct(self, entry: CorrectedEvent) -> None:
        before = entry.before
        waiting = [event for event in self._events if event.id == before.id]
        if waiting:
            self._events = [event for event in self._events if event.id != before.id]
        else:
            self._analyzer.unmark(before.label, before.kind, before.time_s, self._settings.rpm)
        if entry.after is not None:
            self._events.append(entry.after)

    def feed(
        self, start: int, frames: ChunkPixels, times: F64, ids: Int | None = None
    ) -> Iterator[AnalyzerBatch]:
        """Analyse frames (N, H, W) from index ``start`` on, at ``times`` (N,) in s; yields a batch for each part.

        ``ids`` (N,) are the camera's frame counters.
        """
        for part in parts_of(frames, self._step):
            first = part.start
            self._apply_events_until(float(times[part][-1]))
            counters = None if ids is None else ids[part]
            batch = self._analyzer.feed(start + first, frames[part], times[part], counters)
            yield self._message(batch)

    def gap(self, until: int) -> None:
        """Skip frames up to index ``until``; the next batch has the event of the gap."""
        self._analyzer.gap(until - self._analyzer.frames_fed)

    def late(
        self, start: int, frames: ChunkPixels, times: F64, ids: Int | None = None
    ) -> Iterator[AnalyzerBatch]:
        """Measure late frames: only what needs no other frames, with the present regions.

        ``ids`` are not used: they only give events of missing frames, and late frames give columns without events.
        """
        helper = self._new_analyzer()
        helper.set_regions(
            [box for box in self._analyzer.regions if isinstance(box, Box) and box.name != "streaks"]
        )
        fed = (
            helper.feed(start + part.start, frames[part], times[part])
            for part in parts_of(frames, len(frames))
        )
        for batch in chain(fed, map(Analyzer.finish, [helper])):
            whole = analyzer_batch(batch)
            columns = whole.columns.items()
            kept = {name: raw for name, raw in columns if name in LATE_COLUMNS or name.startswith("region_")}
            yield AnalyzerBatch(whole.start, whole.count, kept)

    def finish(self) -> AnalyzerBatch:
        """Apply the remaining events and end the analysis; returns the last batch."""
        self._apply_events_until(float("inf"))
        return self._message(self._analyzer.finish())

    def _message(self, batch: Batch) -> AnalyzerBatch:
        detected = [region for region in self._analyzer.regions if region.name in ("specular", "streaks")]
        return analyzer_batch(batch, self._analyzer.frames_fed, detected)

    def _apply_events_until(self, time_s: float) -> None:
        while self._events and self._events[0].time_s <= time_s:
            event = self._events.pop(0)
            if event.kind != "rotation":
                self._analyzer.mark(event.label, event.kind, event.time_s)
            elif event.value is not None:
                self._analyzer.set_rotation(event.value, event.time_s)

    def state(self) -> AnalyzerState:
        """State of the analyzer, and the events whose time has not come."""
        return AnalyzerState(msgspec.msgpack.encode(self._analyzer.state()), list(self._events))


def _calibration(record: CalibrationRecord) -> Calibration:
    return Calibration(**msgspec.structs.asdict(record))


class Worker:
    """Runs jobs for any number of streams, one after the other. ``send`` sends a reply to the server."""

    def __init__(self, send: Callable[[Reply], None]) -> None:
        self._send = send
        self._sessions: dict[str, AnalyzerSession] = {}

    def do(self, job: AnyJob) -> None:
        """Run one job: a reply for each batch, then one that it is done or has failed."""
        last: Reply
        try:
            last = DoneReply(self._run(job))
        except ShardError as error:
            last = ErrorReply("shard", str(error))
        except Exception as error:
            self._sessions.pop(job.key, None)  # its state may be inconsistent
            last = ErrorReply("analysis", f"{type(error).__name__}: {error}", traceback.format_exc())
        self._send(last)

    def _run(self, job: AnyJob) -> AnalyzerState | None:
        match job:
            case OpenJob():
                self._sessions[job.key] = AnalyzerSession(job.settings)
            case CloseJob():
                self._sessions.pop(job.key, None)
            case AnnotateJob():
                self._sessions[job.key].annotate(job.entries)
            case ChunkJob():
                session = self._sessions[job.key]
                self._send_batches(session.feed, job.frames)
                return session.state() if job.state else None
            case LateJob():
                self._send_batches(self._sessions[job.key].late, job.frames)
            case GapJob():
                self._sessions[job.key].gap(job.until)
            case FinishJob():
                self._send(BatchReply(self._sessions[job.key].finish()))
        return None

    def _send_batches(
        self,
        analyse: Callable[[int, ChunkPixels, F64, Int | None], Iterator[AnalyzerBatch]],
        chunk: ChunkFrames,
    ) -> None:
        times = np.frombuffer(chunk.times, dtype="<f8")
        ids = np.frombuffer(chunk.ids, dtype="<i8") if chunk.ids else None
        with frames_of(chunk) as frames:
            for batch in analyse(chunk.start, frames, times, ids):
                self._send(BatchReply(batch))


@contextmanager
def frames_of(chunk: ChunkFrames) -> Iterator[ChunkPixels]:
    """The frames (N, H, W) of a chunk: from shared memory if they are there, else decoded from the stored shard.

    Raises:
        ShardError: the shard can't be read.
    """
    shared = _shared(chunk)
    if shared is None:
        with _reading():
            shard = ShardFile(Path(chunk.path), chunk.dims, chunk.dtype, chunk.slots)
        with shard:
            yield StoredFrames(shard)
        return
    dtype: np.dtype[Any] = np.dtype(chunk.dtype)
    frames: Frames = np.frombuffer(shared, dtype, count=math.prod(chunk.dims)).reshape(chunk.dims)
    try:
        yield frames
    finally:
        del frames
        with suppress(BufferError):  # an array still refers to it: it is unmapped with the array
            shared.close()


@contextmanager
def _reading() -> Iterator[None]:
    """Turn an error of the disk into one of the shard: an OSError of the analysis itself is not the chunk's fault."""
    try:
        yield
    except OSError as error:
        raise ShardError(str(error)) from error


def _shared(chunk: ChunkFrames) -> mmap.mmap | None:
    if chunk.map is None:
        return None
    try:
        with open(chunk.map, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:  # removed by another program; the archive has the frames too
        return None


class StoredFrames:
    """The frames (N, H, W) of a stored shard. A slice is decoded when it is read, so a chunk is never whole in memory.

    Reading raises ShardError if the shard can't be read.
    """

    def __init__(self, shard: ShardFile) -> None:
        self._shard = shard
        self._dtype: np.dtype[Any] = np.dtype(shard.layout.dtype)
        self.nbytes = math.prod(shard.layout.dims) * self._dtype.itemsize

    def __len__(self) -> int:
        return self._shard.layout.dims[0]

    def __getitem__(self, part: slice) -> Frames:
        wanted = range(*part.indices(len(self)))
        frames: Frames = np.zeros((len(wanted), *self._shard.layout.dims[1:]), self._dtype)
        with _reading():
            self._shard.read_into(wanted, frames)
        return frames


ChunkPixels: TypeAlias = Frames | StoredFrames


def parts_of(frames: ChunkPixels, step: int) -> Iterator[slice]:
    """Slices of at most ``step`` frames and ``PART_BYTES`` bytes that cover ``frames``."""
    step = max(1, min(step, PART_BYTES // max(1, frames.nbytes // len(frames))))
    for first in range(0, len(frames), step):
        yield slice(first, min(first + step, len(frames)))


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Input and output of the protocol. Other output of the process goes to stderr."""
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return sys.stdin.buffer, out


def limit_memory(nbytes: int) -> None:
    """Let this process take at most ``nbytes`` more memory than it has now; beyond that allocations fail.

    A failed allocation ends one job; the chunk is left out after a second try. Only Linux has such a limit.
    """
    with suppress(ImportError, OSError, ValueError):
        import resource

        status = Path("/proc/self/status").read_text(encoding="ascii")
        now = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData"))
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (now + nbytes, most))


def main() -> None:
    """Run jobs until standard input closes."""
    if memory_bytes := int(os.environ.get(MEMORY_VARIABLE) or 0):
        limit_memory(memory_bytes)
    source, sink = _own_pipes()

    def send(message: Reply) -> None:
        view = memoryview(worker_messages.pack(message))
        while view:
            view = view[sink.write(view) or 0 :]

    worker = Worker(send)
    send(ReadyReply())
    with suppress(BrokenPipeError, KeyboardInterrupt):
        while (job := worker_messages.read(source)) is not None:
            worker.do(job)
