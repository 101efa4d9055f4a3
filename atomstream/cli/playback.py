"""Frames from a source to a stream, to its very end, with Ctrl-C on the way.

The first Ctrl-C stops the reading and finalizes what was read; the second leaves at once and says what was
not delivered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from atomstream.cli.console import Console, Progress
from atomstream.cli.exit_codes import ExitCode
from atomstream.errors import ConfigError, DrainTimeoutError
from atomstream.records import ClockStatus
from atomstream.sources import FrameSource, SourceChunk, paced, to_uint8
from atomstream.streaming import RHEEDStreamer
from atomstream.streaming.statistics import StreamerStats, StreamStats

Item = TypeVar("Item")

LEAVE_S: Final = 2.0


class SourceBrokeError(Exception):
    """The source could not be read on; ``__cause__`` says why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one playback; ``seconds`` from the first frame read to the last chunk stored."""

    data_id: str
    frames_read: int
    seconds: float
    stats: StreamerStats
    lost: list[tuple[int, str]]
    ended: bool
    interrupted: bool
    source_problem: str
    clock: ClockStatus | None

    @property
    def exit_code(self) -> ExitCode:
        """What the command says with it."""
        stream = self.stats["streams"][self.data_id]
        if not self.ended or self.lost or stream["chunks_stored"] != stream["chunks_accepted"]:
            return ExitCode.INCOMPLETE
        if self.interrupted:
            return ExitCode.INTERRUPTED
        return ExitCode.USAGE if self.source_problem else ExitCode.DONE


@contextmanager
def leaving(streamer: RHEEDStreamer) -> Iterator[RHEEDStreamer]:
    """Close ``streamer`` at the end; what was not delivered gets a moment to reach the spool on disk."""
    try:
        yield streamer
    finally:
        streamer.close(LEAVE_S)


class Playback:
    """Plays one source into one stream of ``streamer``."""

    def __init__(
        self,
        console: Console,
        streamer: RHEEDStreamer,
        data_id: str,
        n_frames: int | None,
        drain_timeout_s: float | None = None,
    ) -> None:
        self._console = console
        self._streamer = streamer
        self._data_id = data_id
        self._progress = Progress(console, streamer, data_id, n_frames)
        self._drain_timeout_s = drain_timeout_s
        self._interrupted = False
        self._source_problem = ""

    def run(self, items: Iterable[Item], send: Callable[[Item], int]) -> Outcome:
        """``send`` each item, which tells how many frames it was; then finalize, come what may.

        Raises:
            What ``send`` raises: the stream's own errors.
        """
        began = time.perf_counter()
        with self._progress:
            lost, ended = self._play(items, send)
            return Outcome(
                data_id=self._data_id,
                frames_read=self._progress.frames_sent,
                seconds=time.perf_counter() - began,
                stats=self._streamer.stats(),
                lost=lost,
                ended=ended,
                interrupted=self._interrupted,
                source_problem=self._source_problem,
                clock=self._streamer.clock_status(),
            )

    def _play(self, items: Iterable[Item], send: Callable[[Item], int]) -> tuple[list[tuple[int, str]], bool]:
        try:
            self._feed(items, send)
            return self._finish()
        except KeyboardInterrupt:
            # The second one, which may come while the first is told of; or one in finalize.
            self._interrupted = True
            self._console.say("Ctrl-C: leaving now.")
        return [], False

    def _feed(self, items: Iterable[Item], send: Callable[[Item], int]) -> None:
        try:
            for item in _telling_apart(items):
                self._progress.frames_sent += send(item)
        except KeyboardInterrupt:
            self._interrupted = True
            self._console.say(
                "Ctrl-C: no more frames are read. Delivering those that were; Ctrl-C again leaves at once."
            )
        except SourceBrokeError as error:
            self._source_problem = str(error)
            self._console.say(f"atomstream: {error} What was read before is delivered.")

    def _finish(self) -> tuple[list[tuple[int, str]], bool]:
        try:
            report = self._streamer.finalize(self._data_id, self._drain_timeout_s)
            return report["lost"], report["closed"]
        except DrainTimeoutError as error:
            self._console.say(f"atomstream: {error}")
            return [], False


def _telling_apart(items: Iterable[Item]) -> Iterator[Item]:
    """``items``, with what goes wrong in reading told apart from what goes wrong in sending."""
    iterator = iter(items)
    end: Any = object()
    while True:
        try:
            item = next(iterator, end)
        except (ConfigError, OSError) as error:
            raise SourceBrokeError(f"{str(error).rstrip('.')}.") from error
        if item is end:
            return
        yield item


# A recording's chunks, paced, stamped and pushed.

FPS_TOLERANCE = 0.01
"""A file whose own rate differs by more from the camera's was written for watching: its times mean nothing."""


class PlaybackPlan:
    """Pushes ``source`` as chunks of the stream ``data_id``, taken at ``fps`` frames a second.

    Stamps: in real time and without times of its own, a chunk was captured just now, and the streamer stamps it.
    Otherwise frames lie on one time line, which begins now (paced) or ends now (as fast as it goes).
    """

    def __init__(
        self,
        streamer: RHEEDStreamer,
        data_id: str,
        source: FrameSource,
        fps: float,
        levels: tuple[float, float] | None,
    ) -> None:
        self._streamer = streamer
        self._data_id = data_id
        self._source = source
        self._fps = fps
        self._levels = levels
        self._pace = True
        self._uses_times = source.fps is None or abs(source.fps / fps - 1.0) <= FPS_TOLERANCE
        self._start_ms: float | None = None
        self._chunks_sent = 0
        self._frames_sent = 0

    def chunks(self, chunk_size: int, *, pace: bool) -> Iterable[SourceChunk]:
        """All chunks, each when a camera would have had it whole, or at once."""
        self._pace = pace
        chunks = self._source.chunks(chunk_size)
        return paced(chunks, self._fps) if pace else chunks

    def send(self, chunk: SourceChunk) -> int:
        """Push one chunk; its number of frames.

        Raises:
            SourceBrokeError: these pixels can't be sent to this server.
        """
        frames = to_uint8(chunk.frames, *self._levels) if self._levels else chunk.frames
        start_ms, times_ms = self._stamps(chunk)
        try:
            self._streamer.push(
                self._data_id, self._chunks_sent, frames, start_ms, frame_times_ms=times_ms, copy=False
            )
        except TypeError as error:  # uint16 towards a server that takes 8 bits
            raise SourceBrokeError(f"{error} Here: --levels LOW HIGH.") from error
        self._chunks_sent += 1
        self._frames_sent += len(frames)
        return len(frames)

    def _stamps(self, chunk: SourceChunk) -> tuple[float | None, list[float] | None]:
        if self._start_ms is None:
            self._start_ms = self._time_line_start(len(chunk.frames))
        if chunk.times_s is not None and self._uses_times:
            times_ms = (self._start_ms + 1000.0 * chunk.times_s).tolist()
            return times_ms[0], times_ms
        if self._pace:
            return None, None
        return self._start_ms + 1000.0 * self._frames_sent / self._fps, None

    def _time_line_start(self, first_frames: int) -> float:
        clock = self._streamer.clock_status()
        now_ms = 1000.0 * time.time() + (clock["offset_ms"] if clock else 0.0)
        past = first_frames if self._pace else self._source.n_frames or 0
        return now_ms - 1000.0 * past / self._fps


# The table at the end: what was sent, what is stored, what is not.


def table(rows: list[tuple[str, str]]) -> str:
    """Names in one column, what they are in another."""
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:<{width}}{text}" for name, text in rows)


def playback_report(outcome: Outcome) -> str:
    """What ``atomstream stream`` says at its end."""
    rows = [("Stream", outcome.data_id), *delivery_rows(outcome), ("Clock", clock_text(outcome.clock))]
    return f"{table(rows)}\n{verdict(outcome)}"


def delivery_rows(outcome: Outcome) -> list[tuple[str, str]]:
    """Frames, chunks and bytes; what is missing is named."""
    stats = outcome.stats
    stream = stats["streams"][outcome.data_id]
    rows = [
        ("Frames", f"{outcome.frames_read} read, {stats['frames_stored']} stored"),
        ("Chunks", f"{stream['chunks_stored']} of {stream['chunks_accepted']} stored"),
        ("Size", _size(stats["raw_bytes_encoded"], stats["bytes_encoded"])),
        ("Time", f"{outcome.seconds:.1f} s, {stats['frames_stored'] / outcome.seconds:.0f} frames a second"),
    ]
    if stream["chunks_pending"]:
        rows.append(("Undelivered", _undelivered(stream)))
    rows += [(f"Lost {index}", reason) for index, reason in outcome.lost[:10]]
    if len(outcome.lost) > 10:
        rows.append(("Lost", f"{len(outcome.lost) - 10} more chunks"))
    return rows


def _undelivered(stream: StreamStats) -> str:
    pending = stream["chunks_pending"]
    on_disk = pending - stream["chunks_in_memory_only"]
    return f"{pending} chunks; {on_disk} are kept on disk, and the next run for this server delivers them"


def _size(raw: int, encoded: int) -> str:
    ratio = f" (ratio {raw / encoded:.2f})" if encoded else ""
    return f"{raw / 1e6:.1f} MB of pixels, {encoded / 1e6:.1f} MB on the network{ratio}"


def clock_text(clock: ClockStatus | None) -> str:
    """How this computer's clock stands to the server's."""
    if clock is None:
        return "not measured against the server's"
    return f"offset to the server's {clock['offset_ms']:+.2f} ms, known to {clock['uncertainty_ms']:.2f} ms"


def verdict(outcome: Outcome) -> str:
    """The last line."""
    if outcome.exit_code is ExitCode.INCOMPLETE:
        return "INCOMPLETE: not everything that was read is stored."
    if outcome.interrupted:
        return "Interrupted: everything that was read before is stored."
    if outcome.source_problem:
        return "The source broke off: everything that was read before is stored."
    return "Complete: every frame is stored."
