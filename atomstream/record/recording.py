"""One recording: which frames belong to it, and the task that reads them from the dashcam and pushes them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from atomstream.cameras import CameraFrame
from atomstream.counted import counted
from atomstream.errors import AtomstreamError, DrainTimeoutError, LinkError, ServiceError, StreamError
from atomstream.record.capture import Capture
from atomstream.record.dashcam import Part
from atomstream.record.marks import Mark, MarkSender
from atomstream.record.saved_time import SavedTime
from atomstream.records import StreamReport
from atomstream.streaming import AsyncRHEEDStreamer
from atomstream.streaming.statistics import StreamStats
from atomstream.system.log_privacy import get_logger

log = get_logger(__name__)

CHUNK_S: Final = 2.0
"""Length of a chunk in s; the hosted service accepts no shorter ones."""

SAVE_POLL_S: Final = 0.1
SLOW_DISK_S: Final = 3.0
"""After this time in s without being saved, the end of a recording is reported."""

DELIVERY: Final = "atomstream-delivery"
"""Name of the task that delivers a recording."""

ANNOTATION_RETRY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class RecordingRequest:
    """The user's values for a recording; the frames of the last ``before_s`` seconds belong to it too."""

    name: str
    sample: str | None = None
    rpm: float = 0.0
    azimuth: str | None = None
    before_s: float = 0.0


@dataclass(slots=True)
class Span:
    """Frames of the dashcam from ``begin`` to before ``end``; None: new frames still belong to it."""

    begin: int
    end: int | None = None


class Wake:
    """An event of a loop that any thread may set."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def set(self) -> None:
        """Set it; does nothing after the end of the loop."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        """Wait until it is set, and clear it."""
        await self._event.wait()
        self._event.clear()


class Recording:
    """Pushes the frames of its spans to one stream. Used in one loop; :meth:`run` is a task.

    ``streamer`` is open. If its server refuses the stream, that of ``fallback`` is used, so that a wrong key or a
    deleted sample holds back no growth. ``begun`` is called as soon as the stream exists.
    """

    def __init__(
        self,
        streamer: AsyncRHEEDStreamer,
        capture: Capture,
        request: RecordingRequest,
        notify: Callable[[str], object],
        fallback: Callable[[], Awaitable[AsyncRHEEDStreamer]],
        begun: Callable[[], object],
    ) -> None:
        self._fallback = fallback
        self._begun = begun
        self.request = request
        self.capture = capture
        self.streamer = streamer
        self.wake = Wake()
        self.data_id = ""
        self.server_id: str | None = None
        self.frames = 0
        self.lost = 0
        self.began_ms: float | None = None
        self.last_ms: float | None = None
        self.problem = ""
        self.report: StreamReport | None = None
        self.marks = MarkSender(self._send_mark, notify)
        self._notify = notify
        self._spans: list[Span] = []
        self._stopped = self._abandoned = False
        self._saved = SavedTime()
        self._finished_s = 0.0
        self._left_out = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._offset_ms = 0.0
        self._done = 0
        self._position = 0
        self._skipped = 0
        self._before: CameraFrame | None = None
        self._span_ms: tuple[float, float] | None = None

    # -- spans of frames --

    def begin(self, number: int) -> None:
        """Begin a span: record the dashcam's frames from ``number`` on."""
        if self._done == len(self._spans):  # otherwise older frames must be read first
            self.capture.dashcam.need(number)
        self._spans.append(Span(number))
        self.wake.set()

    def pause(self) -> None:
        """End the current span: frames from now on do not belong to the recording."""
        self._spans[-1].end = self.capture.dashcam.end
        self.wake.set()

    def stop(self) -> None:
        """End the recording: later frames do not belong to it, and :meth:`run` returns when all earlier ones are
        saved."""
        if self._spans and self._spans[-1].end is None:
            self.pause()
        self._stopped = True
        self.wake.set()

    # -- progress --

    def stats(self, all_stats: dict[str, StreamStats]) -> StreamStats | None:
        """The statistics of the recording's stream, from ``all_stats`` of its streamer."""
        found = all_stats.get(self.data_id)
        if found is not None:
            self._saved.update(found)
        return found

    @property
    def saved_ms(self) -> float | None:
        """Time in UTC ms of the last frame that is on disk or on the server; None if none is."""
        return self._saved.time_ms

    @property
    def saved_frames(self) -> int:
        """Frames that are on disk or on the server."""
        return self._saved.frames

    @property
    def waiting_frames(self) -> int:
        """Number of frames of the dashcam that belong to the recording and were not pushed yet."""
        newest = self.capture.dashcam.end
        ends = [(span.begin, newest if span.end is None else span.end) for span in self._spans[self._done :]]
        return sum(max(0, end - max(self._position, begin)) for begin, end in ends)

    @property
    def offset_ms(self) -> float:
        """What is added to times of this computer's clock in ms, so that they are those of the server's clock."""
        return self._offset_ms

    @property
    def seconds(self) -> float:
        """Recorded time in s, without pauses."""
        return self._finished_s + self._span_seconds()

    # -- the task --

    async def run(self) -> None:
        """Create the stream, push all frames until :meth:`stop`, and return when they are saved.

        The frames are then sent by a task that :meth:`close` ends; after an error, those until then.

        Raises:
            AtomstreamError: the stream could not be created, or accepts no more frames.
        """
        try:
            fps = await self._frame_rate()
            if fps is None:
                self._notify("Nothing was recorded: no frame came.")
                return
            await self._create(fps)
            await self._feed()
        finally:
            self.capture.dashcam.need(-1)
            if self.data_id:
                self._tasks.append(asyncio.create_task(self._deliver(), name=DELIVERY))
        await self._wait_saved()

    async def _frame_rate(self) -> float | None:
        """Wait until the frame rate is known; None if it is not at the end."""
        while (fps := self.capture.fps()) is None and not self._stopped:
            await self.wake.wait()
        return fps

    async def _create(self, fps: float) -> None:
        try:
            self.data_id = await self._initialize(fps)
        except (ServiceError, LinkError) as error:
            self._notify(f"The recording is kept on this computer only: {error}")
            self.streamer = await self._fallback()
            self.data_id = await self._initialize(fps)
        self._begun()
        clock = await self.streamer.clock_status()
        self._offset_ms = clock["offset_ms"] if clock else 0.0
        self._tasks.append(asyncio.create_task(self._annotate(), name="atomstream-marks"))

    async def _initialize(self, fps: float) -> str:
        request = self.request
        chunk_size = max(1, math.ceil(CHUNK_S * fps))
        return await self.streamer.initialize(
            fps, request.rpm, chunk_size, request.name, request.sample, azimuth=request.azimuth
        )

    async def _annotate(self) -> None:
        attributes: Any = self.capture.attributes()
        while True:
            try:
                await self.streamer.set_attributes(self.data_id, attributes)
                break
            except (StreamError, ServiceError, ValueError) as error:
                if not getattr(error, "retriable", False):
                    log.warning(
                        "The camera settings of the recording %s could not be saved: %s", self.data_id, error
                    )
                    break
                await asyncio.sleep(ANNOTATION_RETRY_S)
        await self.marks.run()

    async def update_server_id(self) -> None:
        """Look up the id of the stream on the server, which a stream that began without it gets later."""
        if self.server_id is None and self.data_id:
            with suppress(AtomstreamError):
                self.server_id = await self.streamer.server_id(self.data_id)

    async def _send_mark(self, mark: Mark) -> None:
        await self.streamer.mark(self.data_id, mark.label, mark.kind, mark.time_ms + self._offset_ms)

    async def _feed(self) -> None:
        while True:
            if self._done < len(self._spans):
                await self._feed_span(self._spans[self._done])
                self._done += 1
                rest = self._spans[self._done :]
                self.capture.dashcam.need(rest[0].begin if rest else -1)
            elif self._stopped:
                return
            else:
                await self.wake.wait()

    async def _feed_span(self, span: Span) -> None:
        dashcam = self.capture.dashcam
        self._position, self._before, self._skipped = span.begin, None, 0
        while span.end is None or self._position < span.end:
            part = await self._read(self._position)
            if not part.frames and not part.skipped:
                await self.wake.wait()
                continue
            end = math.inf if span.end is None else span.end
            room = int(min(part.next, end))
            self._note_skipped(int(min(part.skipped, end - self._position)))
            first = part.next - len(part.frames)
            self._position = min(first, room)
            for frame in part.frames[: max(0, room - first)]:
                await self._push(frame)
                self._position += 1
            dashcam.need(room)
            await asyncio.sleep(0)  # so that the page works during an hour of older frames
        self._finished_s += self._span_seconds()
        self._span_ms = None

    async def _read(self, number: int) -> Part:
        dashcam = self.capture.dashcam
        while True:
            if dashcam.in_memory(number):
                return dashcam.read(number)
            try:
                return await asyncio.to_thread(dashcam.read, number)
            except (OSError, ValueError) as error:  # the dashcam has deleted them: the next read skips them
                self._notify(f"Frames of the dashcam can't be read, and are missing: {error}")

    def _note_skipped(self, skipped: int) -> None:
        if skipped:
            self._notify(
                f"{counted(skipped, 'frame was', 'frames were')} not recorded: the disk or the computer was too slow, "
                "and deleted from the dashcam before."
            )
            self.lost += skipped
            self._skipped += skipped

    async def _push(self, frame: CameraFrame) -> None:
        time_ms = frame.time_ms_utc or 1000.0 * time.time()
        self._count_lost(frame)
        try:
            await self.streamer.push_frame(
                self.data_id, frame.pixels, time_ms + self._offset_ms, frame.frame_id
            )
        except (TypeError, ValueError) as error:  # such as an image of another size in a watched folder
            self.lost += 1
            self._left_out += 1
            if self._left_out == 1:
                self._notify(f"A frame does not fit to the recording and is left out: {error}")
            return
        self.frames += 1
        self._saved.pushed(self.frames, time_ms)
        self.began_ms = time_ms if self.began_ms is None else self.began_ms
        self._span_ms = (time_ms if self._span_ms is None else self._span_ms[0], time_ms)
        self.last_ms = time_ms

    def _count_lost(self, frame: CameraFrame) -> None:
        """Count the frames that are missing between the last frame of this span and ``frame``.

        Those that were deleted from the dashcam between the two are counted already.
        """
        before, self._before = self._before, frame
        counted, self._skipped = self._skipped, 0
        if before is None:
            return
        if frame.frame_id is not None and before.frame_id is not None:
            self.lost += max(0, frame.frame_id - before.frame_id - 1 - counted)
            return
        fps = self.capture.info.fps
        gap_s = ((frame.time_ms_utc or 0.0) - (before.time_ms_utc or 0.0)) / 1000.0
        if fps is not None and gap_s > max(1.0, 3.0 / fps):
            self.lost += max(0, round(gap_s * fps) - 1 - counted)

    def _span_seconds(self) -> float:
        return 0.0 if self._span_ms is None else max(0.0, self._span_ms[1] - self._span_ms[0]) / 1000.0

    # -- after the last frame --

    async def _deliver(self) -> None:
        """End the stream on the server, whenever it answers."""
        while self.report is None:
            with suppress(DrainTimeoutError):  # the server is unreachable: nothing is discarded
                self.report = await self.streamer.finalize(self.data_id)

    async def _wait_saved(self) -> None:
        """Return when no chunk is in memory only, or the stream is delivered or gone, or :meth:`abandon` was called."""
        began, reported = time.monotonic(), False
        while not (self._abandoned or any(t.done() for t in self._tasks if t.get_name() == DELIVERY)):
            stats = self.stats((await self.streamer.stats())["streams"])
            if stats is None or (stats["finalized"] and not stats["chunks_in_memory_only"]):
                return
            if not reported and time.monotonic() - began > SLOW_DISK_S:
                reported = True
                self._notify(
                    f"The end of {self.request.name!r} ({counted(stats['chunks_in_memory_only'], 'chunk')}) is only in "
                    "memory, because the disk accepts no more. Free some space and keep the recorder running: it is "
                    "saved then."
                )
            await asyncio.sleep(SAVE_POLL_S)

    def abandon(self) -> None:
        """Wait no longer for a disk that accepts nothing."""
        self._abandoned = True

    async def close(self) -> None:
        """End the tasks that send marks and the end of the stream; what is not sent is in the spool."""
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception) and not isinstance(outcome, AtomstreamError):
                log.warning("The delivery of %s failed: %s", self.data_id, outcome)
