"""Streams a source of frames to the end of the stream, handles Ctrl-C, and reports the outcome.

The first Ctrl-C stops reading, and the stream is finalized; the second exits at once and reports what was not
delivered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from atomstream.cameras import Transforms
from atomstream.cli.console import Console, Progress, console
from atomstream.cli.exit_codes import ExitCode
from atomstream.counted import counted
from atomstream.errors import AtomstreamError, CameraError, ConfigError, DrainTimeoutError
from atomstream.records import ClockStatus, Frames
from atomstream.sources import DamagedSourceError, FrameSource, Gap, Growing, SourceChunk, paced
from atomstream.sources.frame_source import Indices
from atomstream.streaming import RHEEDStreamer
from atomstream.streaming.statistics import StreamerStats, StreamStats

Item = TypeVar("Item")

MAX_GAPS: Final = 20
"""Largest number of gaps that the report lists one by one."""

CLOSE_S: Final = 2.0
"""Time in s for undelivered chunks to reach the spool when the streamer is closed."""


class SourceReadError(Exception):
    """The source could not be read further; ``__cause__`` is the error."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Frames of the source that are not in the stream, because they can't be read."""

    gaps: tuple[Gap, ...] = ()
    behind: int | None = 0
    """Frames behind the last gap that were not read; None if their number is not known."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one playback; ``seconds`` is the time from the first frame read to the last chunk stored."""

    data_id: str
    frames_read: int
    seconds: float
    stats: StreamerStats
    lost: list[tuple[int, str]]
    ended: bool
    interrupted: bool
    source_error: str
    missing: Missing
    clock: ClockStatus | None

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of the command."""
        stream = self.stats["streams"][self.data_id]
        if not self.ended or self.lost or stream["chunks_stored"] != stream["chunks_accepted"]:
            return ExitCode.INCOMPLETE
        if self.interrupted:
            return ExitCode.INTERRUPTED
        if self.missing.gaps:
            return ExitCode.DAMAGED
        return ExitCode.USAGE if self.source_error else ExitCode.DONE


@contextmanager
def closing_soon(streamer: RHEEDStreamer) -> Iterator[RHEEDStreamer]:
    """Close ``streamer`` at the end of the block; undelivered chunks get 2 s to reach the spool on disk."""
    try:
        yield streamer
    finally:
        streamer.close(CLOSE_S)


class Playback:
    """Sends one source to one stream of ``streamer``."""

    def __init__(
        self,
        console: Console,
        streamer: RHEEDStreamer,
        data_id: str,
        n_frames: int | None,
        drain_timeout_s: float | None = None,
        source: FrameSource | None = None,
    ) -> None:
        self._console = console
        self._source = source
        self._streamer = streamer
        self._data_id = data_id
        self._progress = Progress(console, streamer, data_id, n_frames)
        self._drain_timeout_s = drain_timeout_s
        self._interrupted = False
        self._source_error = ""
        self._damage: DamagedSourceError | None = None

    def run(self, items: Iterable[Item], send: Callable[[Item], int]) -> Outcome:
        """Call ``send`` with each item; it returns the number of frames. Then finalize in any case.

        Raises:
            AtomstreamError: ``send`` failed.
        """
        start = time.perf_counter()
        with self._progress:
            lost, ended = self._play(items, send)
            return Outcome(
                data_id=self._data_id,
                frames_read=self._progress.frames_sent,
                seconds=time.perf_counter() - start,
                stats=self._streamer.stats(),
                lost=lost,
                ended=ended,
                interrupted=self._interrupted,
                source_error=self._source_error,
                missing=self._missing(),
                clock=self._streamer.clock_status(),
            )

    def _play(self, items: Iterable[Item], send: Callable[[Item], int]) -> tuple[list[tuple[int, str]], bool]:
        try:
            self._send_all(items, send)
            return self._finish()
        except KeyboardInterrupt:
            # The second Ctrl-C, or the first one during finalize.
            self._interrupted = True
            self._console.write("Ctrl-C: exiting now.")
        return [], False

    def _send_all(self, items: Iterable[Item], send: Callable[[Item], int]) -> None:
        try:
            with closing(_mark_source_errors(items)) as marked:
                for item in marked:
                    self._progress.frames_sent += send(item)
        except KeyboardInterrupt:
            self.interrupted()
        except SourceReadError as error:
            self._source_error = str(error)
            self._damage = error.__cause__ if isinstance(error.__cause__, DamagedSourceError) else None
            self._console.write(f"atomstream: {error} Frames read before are delivered.")

    def interrupted(self) -> None:
        """Note that the user has ended the reading by Ctrl-C."""
        self._interrupted = True
        self._console.write(
            "Ctrl-C: reading stopped. Delivering the frames read so far; Ctrl-C again exits at once."
        )

    def _missing(self) -> Missing:
        gaps = tuple(self._source.gaps) if self._source is not None else ()
        if self._damage is None:
            return Missing(gaps)
        return Missing((*gaps, *self._damage.gaps), self._damage.behind)

    def _finish(self) -> tuple[list[tuple[int, str]], bool]:
        try:
            report = self._streamer.finalize(self._data_id, self._drain_timeout_s)
            return report["lost"], report["closed"]
        except DrainTimeoutError as error:
            self._console.write(f"atomstream: {error}")
            return [], False


def _mark_source_errors(items: Iterable[Item]) -> Generator[Item, None, None]:
    """Yield ``items``; errors in reading become SourceReadError, so that they differ from errors in sending.

    When this generator is closed, it closes ``items``, which stops a camera.
    """
    iterator = iter(items)
    end: Any = object()
    try:
        while True:
            try:
                item = next(iterator, end)
            except (ConfigError, CameraError, OSError) as error:
                raise SourceReadError(f"{str(error).rstrip('.')}.") from error
            if item is end:
                return
            yield item
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def following(
    chunks: Iterator[SourceChunk], source: Growing, playback: Playback
) -> Generator[SourceChunk, None, None]:
    """Yield the chunks of a file that grows. The first Ctrl-C ends it, and its last frames are yielded."""
    while True:
        try:
            chunk = next(chunks, None)
        except KeyboardInterrupt:
            if source.stopped:
                raise
            source.stop()
            playback.interrupted()
            continue
        if chunk is None:
            return
        yield chunk


FPS_TOLERANCE = 0.01
"""If the frame rate of a file differs by more from the camera's, its times are for display and are ignored."""


class PlaybackPlan:
    """Pushes ``source`` as chunks of the stream ``data_id``, with ``fps`` frames per second.

    Timestamps: in real time, without times in the file, the streamer stamps each chunk. Otherwise all frames are on
    one time line, which begins now (paced) or ends now (as fast as possible).
    """

    def __init__(
        self,
        streamer: RHEEDStreamer,
        data_id: str,
        source: FrameSource,
        fps: float,
        transforms: Transforms,
    ) -> None:
        self._streamer = streamer
        self._data_id = data_id
        self._source = source
        self._fps = fps
        self._transforms = transforms
        self._pace = True
        self._uses_times = source.fps is None or abs(source.fps / fps - 1.0) <= FPS_TOLERANCE
        self._start_ms: float | None = None
        self._chunks_sent = 0
        self._frames_sent = 0

    def follow(self, age_s: float) -> None:
        """Use the chunks' times, of which the first one was ``age_s`` seconds ago: a file that is being written."""
        self._pace, self._uses_times = False, True
        self._start_ms = self._now_ms() - 1000.0 * age_s

    def chunks(self, chunks: Iterable[SourceChunk], *, pace: bool) -> Iterable[SourceChunk]:
        """Yield the chunks of the source, in real time if ``pace``, else as fast as possible."""
        self._pace = pace
        return paced(chunks, self._fps) if pace else chunks

    def send(self, chunk: SourceChunk) -> int:
        """Push one chunk and return its number of frames.

        Raises:
            SourceReadError: The server does not accept these pixels.
        """
        frames = self._changed(chunk.frames)
        start_ms, times_ms = self._timestamps(chunk)
        ids = None if chunk.indices is None else chunk.indices.tolist()
        try:
            self._streamer.push(
                self._data_id,
                self._chunks_sent,
                frames,
                start_ms,
                frame_times_ms=times_ms,
                frame_ids=ids,
                copy=False,
            )
        except TypeError as error:  # uint16 for a server that accepts 8 bits only
            raise SourceReadError(f"{error} Use --levels LOW HIGH.") from error
        self._chunks_sent += 1
        self._frames_sent += len(frames)
        return len(frames)

    def _changed(self, frames: Frames) -> Frames:
        try:
            changed: Frames = self._transforms.apply(frames)
        except ConfigError as error:  # a dark frame, crop or bin factor that does not fit to these frames
            raise SourceReadError(f"{str(error).rstrip('.')}.") from error
        return changed

    def _timestamps(self, chunk: SourceChunk) -> tuple[float | None, list[float] | None]:
        if self._start_ms is None:
            self._start_ms = self._time_line_start(len(chunk.frames))
        if chunk.times_s is not None and self._uses_times:
            times_ms = (self._start_ms + 1000.0 * chunk.times_s).tolist()
            return times_ms[0], times_ms
        if self._pace:
            return self._stamps_of_now(chunk.indices)
        first = self._frames_sent if chunk.indices is None else int(chunk.indices[0])
        start_ms = self._start_ms + 1000.0 * first / self._fps
        return start_ms, self._spread(chunk.indices, start_ms)

    def _stamps_of_now(self, indices: Indices | None) -> tuple[float | None, list[float] | None]:
        """Return the times of a chunk whose last frame is taken now; the streamer computes them if none is missing."""
        if indices is None or self._spread(indices, 0.0) is None:
            return None, None
        now_ms = self._now_ms()
        start_ms = now_ms - 1000.0 * float(indices[-1] - indices[0]) / self._fps
        return start_ms, self._spread(indices, start_ms)

    def _spread(self, indices: Indices | None, start_ms: float) -> list[float] | None:
        """Return the time of each frame, if frames between them are missing: they keep the times they would have."""
        if indices is None or indices[-1] - indices[0] + 1 == len(indices):
            return None
        times: list[float] = (start_ms + 1000.0 * (indices - indices[0]) / self._fps).tolist()
        return times

    def _now_ms(self) -> float:
        clock = self._streamer.clock_status()
        return 1000.0 * time.time() + (clock["offset_ms"] if clock else 0.0)

    def _time_line_start(self, first_frames: int) -> float:
        past = first_frames if self._pace else self._source.n_frames or 0
        return self._now_ms() - 1000.0 * past / self._fps


def note_recording(streamer: RHEEDStreamer, data_id: str, attributes: dict[str, Any]) -> None:
    """Store in the stream's attributes how the frames were recorded. A failure is printed; the stream continues."""
    if not attributes:
        return
    try:
        streamer.set_attributes(data_id, attributes)
    except AtomstreamError as error:  # the frames come only once, and do not need it
        console.write(
            f"atomstream: The settings were not stored with the stream: {error} The frames are not affected."
        )


def table(rows: list[tuple[str, str]]) -> str:
    """Format rows of (name, text) as two aligned columns."""
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:<{width}}{text}" for name, text in rows)


def playback_report(outcome: Outcome) -> str:
    """Return the report of ``atomstream stream``."""
    rows = [("Stream", outcome.data_id), *delivery_rows(outcome), ("Clock", clock_text(outcome.clock))]
    return f"{table(rows)}\n{verdict(outcome)}"


def delivery_rows(outcome: Outcome) -> list[tuple[str, str]]:
    """Return rows with frames, chunks, bytes and time, and what is missing."""
    stats = outcome.stats
    stream = stats["streams"][outcome.data_id]
    rows = [
        ("Frames", f"{outcome.frames_read} read, {stats['frames_stored']} stored"),
        ("Chunks", f"{stream['chunks_stored']} of {stream['chunks_accepted']} stored"),
        ("Size", _size(stats["raw_bytes_encoded"], stats["bytes_encoded"])),
        (
            "Time",
            f"{outcome.seconds:.1f} s, {stats['frames_stored'] / outcome.seconds:.0f} frames per second",
        ),
    ]
    if stream["chunks_pending"]:
        rows.append(("Undelivered", _undelivered_text(stream)))
    rows += missing_rows(outcome.missing)
    rows += [(f"Lost {index}", reason) for index, reason in outcome.lost[:10]]
    if len(outcome.lost) > 10:
        rows.append(("Lost", f"{len(outcome.lost) - 10} more chunks"))
    return rows


def missing_rows(missing: Missing) -> list[tuple[str, str]]:
    """Return rows with the frames that could not be read, and how many behind them were not."""
    rows = [("Not read", str(gap)) for gap in missing.gaps[:MAX_GAPS]]
    if len(missing.gaps) > MAX_GAPS:
        frames = [gap.frames for gap in missing.gaps[MAX_GAPS:]]
        known = sum(count or 0 for count in frames)
        rows.append(("Not read", f"{counted(known, 'more frame')} in {counted(len(frames), 'place')}"))
    if missing.behind is None:
        rows.append(("Behind", "an unknown number of frames behind the damage; --skip-damaged goes on there"))
    elif missing.behind:
        rows.append(
            (
                "Behind",
                f"{counted(missing.behind, 'frame')} behind the damage; --skip-damaged streams them as well",
            )
        )
    return rows


def _undelivered_text(stream: StreamStats) -> str:
    pending = stream["chunks_pending"]
    on_disk = pending - stream["chunks_in_memory_only"]
    return f"{counted(pending, 'chunk')}; on disk: {on_disk}, which the next run for this server delivers"


def _size(raw: int, encoded: int) -> str:
    ratio = f" (ratio {raw / encoded:.2f})" if encoded else ""
    return f"{raw / 1e6:.1f} MB of pixels, {encoded / 1e6:.1f} MB on the network{ratio}"


def clock_text(clock: ClockStatus | None) -> str:
    """Describe the offset of this computer's clock to that of the server."""
    if clock is None:
        return "not compared with the server"
    return f"offset to the server {clock['offset_ms']:+.2f} ms, uncertainty {clock['uncertainty_ms']:.2f} ms"


def verdict(outcome: Outcome) -> str:
    """Return the last line of the report."""
    if outcome.exit_code is ExitCode.INCOMPLETE:
        return "INCOMPLETE: not all frames that were read are stored."
    if outcome.interrupted:
        return "Interrupted: all frames read before are stored."
    if outcome.missing.gaps:
        return "DAMAGED: the recording can't be read completely; every frame that was read is stored."
    if outcome.source_error:
        return "The source could not be read to its end: all frames read before are stored."
    return "Complete: every frame is stored."
