"""The recorder: one state machine that owns the camera, the recording and the streamers."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from atomstream.cameras import Camera, open_camera
from atomstream.counted import counted
from atomstream.errors import AtomstreamError, ConfigError
from atomstream.login import NO_SERVER
from atomstream.record.camera_lock import CameraLock
from atomstream.record.capture import Capture, CapturePlan
from atomstream.record.dashcam import Dashcam
from atomstream.record.dashcam_folders import DashcamFolders
from atomstream.record.disk_space import DiskSpace, disk_space
from atomstream.record.earlier import EarlierRecordings
from atomstream.record.marks import Mark
from atomstream.record.recording import Recording, RecordingRequest
from atomstream.record.recordings_log import RecordingEntry, RecordingsLog
from atomstream.record.settings import RecorderSettings
from atomstream.record.sources import camera_name
from atomstream.record.states import NotPossibleError, RecorderState, check_possible
from atomstream.record.streamers import Streamers
from atomstream.streaming.statistics import StreamerStats
from atomstream.streaming.stream_request import InitializeRequest
from atomstream.system.log_privacy import get_logger

log = get_logger(__name__)

WATCH_S: Final = 1.0
"""Interval, in s, at which disk space and state are checked."""

MESSAGES: Final = 50

END_S: Final = 1.0
"""Longest wait in s for the end of a recording that no disk accepts."""


class Recorder:
    """Records one camera at a time. Used in one event loop; :meth:`start` first, :meth:`close` last.

    ``notify`` is called with each message for the user, in the loop's thread. Actions raise NotPossibleError,
    ConfigError or CameraError with a sentence, and then change nothing.
    """

    def __init__(self, settings: RecorderSettings, notify: Callable[[str], object] = log.warning) -> None:
        self.settings = settings
        self.state = RecorderState.IDLE
        self.capture: Capture | None = None
        self.recording: Recording | None = None
        self.space: DiskSpace | None = None
        self.messages: deque[tuple[float, str]] = deque(maxlen=MESSAGES)
        self.changed = asyncio.Condition()
        self.log = RecordingsLog(settings.record_dir / "recordings")
        self.entries: list[RecordingEntry] = []
        self._notify = notify
        self._loop = asyncio.get_running_loop()
        self._action = asyncio.Lock()
        self._look_now = asyncio.Event()
        self._streamers = Streamers(settings)
        self._earlier = EarlierRecordings(settings, self.log, self._streamers, self.notify)
        self._folders = DashcamFolders(settings.record_dir / "dashcam")
        self._folder: Path | None = None
        self._lock: CameraLock | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._running: asyncio.Task[None] | None = None
        self._closing = False
        self.finished: list[Recording] = []
        self.early_marks: deque[Mark] = deque(maxlen=1000)
        """Marks that were set while nothing was recorded; the dashcam still has their frames."""

    # -- start --

    async def start(self) -> None:
        """Open the spool, deliver what earlier processes left, and note which recordings were interrupted."""
        await asyncio.to_thread(self._folders.remove_abandoned)
        self.entries = await self._earlier.start()
        self._tasks.append(asyncio.create_task(self._watch(), name="atomstream-recorder"))

    # -- actions --

    async def open_source(self, plan: CapturePlan) -> None:
        """Open a camera, or the same one with other settings; the dashcam begins again.

        If that fails, the camera of before is opened again, without its dashcam.
        """
        async with self._action:
            self._check_open()
            check_possible("open another source", self.state)
            name = await asyncio.to_thread(camera_name, plan.source)
            camera = await asyncio.to_thread(open_camera, name)
            before = self.capture
            await self._close_capture()
            try:
                await self._open(plan, camera)
            except (AtomstreamError, OSError):
                if before is not None and before.state == "running":
                    with suppress(AtomstreamError, OSError):
                        await self._open(before.plan, before.camera)
                raise
            finally:
                await self._notify_waiters()

    async def _open(self, plan: CapturePlan, camera: Camera) -> None:
        lock = None
        if not camera.name.startswith("file:"):
            lock = CameraLock(self.settings.state_dir / "cameras", camera.name, self.settings.page)
            lock.acquire()
        folder = await asyncio.to_thread(self._folders.make)
        dashcam = Dashcam(folder, self.settings.dashcam_limits())
        capture = Capture(plan, camera, dashcam, self._on_frame, self.notify_from_thread)
        try:
            await asyncio.to_thread(capture.start)
        except BaseException:
            await asyncio.to_thread(capture.close)
            self._folders.remove(folder)
            if lock is not None:
                lock.release()
            raise
        self.capture, self._folder, self._lock = capture, folder, lock

    async def record(self, request: RecordingRequest) -> None:
        """Begin a recording; frames of the last ``request.before_s`` seconds belong to it."""
        async with self._action:
            self._check_open()
            check_possible("record", self.state)
            capture = self.capture
            if capture is None or capture.state != "running":
                raise NotPossibleError("No camera runs: choose a source first.")
            _check(request)
            streamer = await self._streamers.main()
            recording = Recording(
                streamer, capture, request, self.notify, self._streamers.local, self._note_begun
            )
            now_ms = 1000.0 * time.time()
            from_ms = now_ms - 1000.0 * request.before_s
            dashcam = capture.dashcam
            recording.begin(dashcam.number_at(from_ms) if request.before_s > 0 else dashcam.end)
            for mark in self.early_marks:
                if mark.time_ms >= from_ms:
                    recording.marks.add(mark)
            self.early_marks.clear()
            self.recording, self.state = recording, RecorderState.RECORDING
            self._running = asyncio.create_task(self._run(recording), name="atomstream-recording")
        await self._notify_waiters()

    async def pause(self) -> None:
        """Leave frames out from now on."""
        recording = self._change("pause", RecorderState.PAUSED)
        recording.pause()
        recording.marks.add(Mark("Recording paused", "note"))
        await self._notify_waiters()

    async def go_on(self) -> None:
        """Record frames again."""
        recording = self._change("go on", RecorderState.RECORDING)
        recording.begin(recording.capture.dashcam.end)
        recording.marks.add(Mark("Recording goes on", "note"))
        await self._notify_waiters()

    async def stop(self) -> None:
        """End the recording; the state becomes idle when it is saved."""
        self._change("stop", RecorderState.FINISHING).stop()
        await self._notify_waiters()

    async def mark(self, label: str, kind: str = "", time_ms: float | None = None) -> Mark:
        """Set a mark, now or at a time in UTC ms. Before a recording it is kept for one that begins earlier.

        Raises:
            ConfigError, TypeError: the text is empty, or too long.
            NotPossibleError: the recorder is being closed, and has no recording.
        """
        mark = Mark(label, kind)
        if time_ms is not None:
            mark.time_ms = time_ms
        if self.recording is not None and self.state is not RecorderState.IDLE:
            self.recording.marks.add(mark)
            self._look_now.set()
        else:
            self._check_open()
            self.early_marks.append(mark)
        await self._notify_waiters()
        return mark

    async def close(self) -> None:
        """End the recording, save it, close the camera, and release everything. What is not sent is in the spool."""
        self._closing = True
        async with self._action:  # a recording that is just being begun is saved too
            pass
        if self.state in {RecorderState.RECORDING, RecorderState.PAUSED}:
            await self.stop()
        if self._running is not None:
            await self._wait_saved(self._running)
        await self._earlier.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for recording in self.finished:
            await recording.close()
        await self._update_entries()
        async with self._action:
            await self._close_capture()
        await self._streamers.close()

    async def _wait_saved(self, running: asyncio.Task[None]) -> None:
        await asyncio.wait([running], timeout=self.settings.save_s)
        recording = self.recording
        if not running.done() and recording is not None:
            missing = recording.frames - recording.saved_frames + recording.waiting_frames
            self.notify(
                f"{counted(missing, 'frame')} at the end of {recording.request.name!r} could not be saved, because the "
                "disk accepts no more: lost. All frames before are saved."
            )
            recording.abandon()
            await asyncio.wait([running], timeout=END_S)
            running.cancel()  # no memory becomes free for the next frame, so it would wait for ever
            await asyncio.gather(running, return_exceptions=True)
        elif not running.cancelled():
            await running

    def _check_open(self) -> None:
        if self._closing:
            raise NotPossibleError(
                "The recorder is being closed: run `atomstream record` again for another recording."
            )

    # -- inside --

    def _change(self, action: str, to: RecorderState) -> Recording:
        check_possible(action, self.state)
        assert self.recording is not None
        self.state = to
        return self.recording

    async def _run(self, recording: Recording) -> None:
        try:
            await recording.run()
        except (AtomstreamError, OSError) as error:
            recording.problem = str(error)
            self.notify(f"The recording {recording.request.name!r} was ended: {error}")
        except Exception as error:
            log.exception("The recording failed.")
            recording.problem = f"{type(error).__name__}: {error}"
            self.notify(
                f"The recording {recording.request.name!r} was ended by an error: {recording.problem}"
            )
        finally:
            recording.stop()
            self.finished.append(recording)
            self.state = RecorderState.IDLE
        if recording.data_id:
            await self._write_entry(recording)
        await self._notify_waiters()

    def _note_begun(self) -> None:
        self._tasks.append(asyncio.create_task(self._add_entry()))

    async def _add_entry(self) -> None:
        recording = self.recording
        if recording is not None and recording.data_id:
            await self._write_entry(recording)

    async def _write_entry(self, recording: Recording) -> None:
        entry = self.entry_of(recording)
        self.entries = [entry, *(one for one in self.entries if one.data_id != entry.data_id)]
        await asyncio.to_thread(self.log.write, entry)

    def entry_of(self, recording: Recording) -> RecordingEntry:
        """The entry in the list of recordings for a recording of this process."""
        ended = self.recording is not recording or self.state is RecorderState.IDLE
        report = recording.report
        sent = report is not None and report["closed"]
        saved_ms = recording.saved_ms if report is None else recording.last_ms
        return RecordingEntry(
            data_id=recording.data_id,
            endpoint=self._streamers.endpoint_of(recording.streamer),
            name=recording.request.name,
            source=recording.capture.plan.source,
            sample=recording.request.sample or "",
            began_ms=recording.began_ms or 1000.0 * time.time(),
            ended_ms=saved_ms if ended else None,
            seconds=recording.seconds,
            frames=recording.frames,
            lost=recording.lost,
            state="sent" if sent and ended else "saved" if ended else "recording",
            server_id=recording.server_id or "",
            unsent_marks=[
                asdict(mark) | {"time_ms": mark.time_ms + recording.offset_ms}
                for mark in recording.marks.unsent
            ],
        )

    def is_local(self, recording: Recording | None) -> bool:
        """Whether a recording, or the next one, goes to no server."""
        if recording is None:
            return self.settings.login is None
        return self._streamers.endpoint_of(recording.streamer) == NO_SERVER.endpoint

    async def _close_capture(self) -> None:
        capture, folder, lock = self.capture, self._folder, self._lock
        self.capture = self._folder = self._lock = None
        if capture is not None:
            await asyncio.to_thread(capture.close)
        if folder is not None:
            await asyncio.to_thread(self._folders.remove, folder)
        if lock is not None:
            lock.release()

    def _on_frame(self) -> None:
        recording = self.recording
        if recording is not None:
            recording.wake.set()
        capture = self.capture
        if capture is not None and capture.state != "running":
            with suppress(RuntimeError):  # after the end of the loop
                self._loop.call_soon_threadsafe(self._look_now.set)

    async def _watch(self) -> None:
        while True:
            with suppress(AtomstreamError, OSError):
                await self._poll()
            await self._notify_waiters()
            with suppress(TimeoutError):
                async with asyncio.timeout(WATCH_S):
                    await self._look_now.wait()
            self._look_now.clear()

    async def _poll(self) -> None:
        oldest_ms = 1000.0 * (time.time() - self.settings.before_s)
        while self.early_marks and self.early_marks[0].time_ms < oldest_ms:
            self.early_marks.popleft()
        streamer = await self._streamers.main()
        stats = await self.stats()
        self.space = disk_space(await streamer.spool_status())
        recording, capture = self.recording, self.capture
        if recording is not None:
            await recording.update_server_id()
        rate = None if capture is None else capture.dashcam.bytes_per_s()
        active = self.state in {RecorderState.RECORDING, RecorderState.PAUSED}
        if active and capture is not None and capture.state != "running":
            name = recording.request.name if recording else ""
            self.notify(
                f"The recording {name!r} ends, because no more frames come. {capture.problem}".strip()
            )
            await self.stop()
        elif active and self.space.is_short(max(stats["bytes_in_per_s"], rate or 0.0)):
            await self._disk_is_short()
        await self._update_entries()

    async def _disk_is_short(self) -> None:
        capture, space = self.capture, self.space
        if (
            capture is not None
            and space is not None
            and not space.by_limit
            and capture.dashcam.stop_using_disk()
        ):
            self.notify("The disk is nearly full: the dashcam was emptied, so that the recording can go on.")
            return
        what = (
            "the limit of the spool is reached"
            if space is not None and space.by_limit
            else "the disk is full"
        )
        self.notify(
            f"The recording was stopped, because {what} ({self.settings.spool_dir}). All frames until now are saved. "
            "Free some space, or start the server so that recordings can be sent to it, and record again."
        )
        await self.stop()

    async def _update_entries(self) -> None:
        """Write what has changed: of a running recording only the marks, because frames come all the time."""
        running = None if self.state is RecorderState.IDLE else self.recording
        for recording in filter(None, (running, *self.finished)):
            known = next((one for one in self.entries if one.data_id == recording.data_id), None)
            if known is None or not recording.data_id:
                continue
            now = self.entry_of(recording)
            if known.unsent_marks != now.unsent_marks or (recording is not running and known != now):
                await self._write_entry(recording)

    async def stats(self) -> StreamerStats:
        """The statistics of the streamer that records, else of that of the server; the recording follows them."""
        recording = self.recording
        streamer = await self._streamers.main() if recording is None else recording.streamer
        stats = await streamer.stats()
        for one in (recording, *self.finished):
            if one is not None and one.streamer is streamer:
                one.stats(stats["streams"])
        return stats

    def notify(self, text: str) -> None:
        """Show a sentence to the users of the page and of the terminal."""
        self.messages.append((1000.0 * time.time(), text))
        self._notify(text)

    def notify_from_thread(self, text: str) -> None:
        """Call :meth:`notify` from another thread."""
        with suppress(RuntimeError):  # after the end of the loop
            self._loop.call_soon_threadsafe(self.notify, text)

    async def _notify_waiters(self) -> None:
        async with self.changed:
            self.changed.notify_all()


def _check(request: RecordingRequest) -> None:
    """Raise ConfigError if the stream could not be created with these values."""
    InitializeRequest(1.0, request.rpm, 1, request.name, request.sample, azimuth=request.azimuth).checked()
    if not 0.0 <= request.before_s < 1e7:
        raise ConfigError(f"before_s is {request.before_s}; it must be a number of seconds, 0 or more")
