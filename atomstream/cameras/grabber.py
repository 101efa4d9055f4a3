"""Takes frames from a camera until it is stopped: numbers them, counts missing ones, and reopens a lost camera."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from atomstream.cameras.camera import Camera, CameraFrame, CameraInfo, CameraSettings
from atomstream.cameras.stamps import DeviceClock, FrameNumbers
from atomstream.errors import CameraEndedError, CameraError, CameraLostError, ConfigError
from atomstream.system.log_privacy import get_logger

log = get_logger(__name__)

POLL_S: Final = 0.25
"""Time limit, in s, for one call of a driver. A request to stop takes effect after the running call."""

RETRY_S: Final = 1.0
"""Time in s between two attempts to open a lost camera again."""

SILENT_S: Final = 5.0
SILENT_PERIODS: Final = 20.0
"""Time in s, and number of frame periods. A camera with a known rate that delivers nothing for the longer of the two is
opened again."""

NOTIFY_S: Final = 5.0
"""Shortest time in s between two messages of the same kind. The next message has the number of events in between."""


@dataclass(slots=True)
class GrabCounts:
    """What a grabber has counted so far."""

    frames: int = 0
    """Complete frames, handed on."""
    missing: int = 0
    """Frames that the camera's counter shows, but the driver did not deliver."""
    incomplete: int = 0
    """Frames with missing parts; they are not handed on."""
    late: int = 0
    """Frames that were delivered after a later one; they are not handed on."""
    reconnects: int = 0
    """How often the camera was lost and opened again."""


class Grabber:
    """Delivers the frames of one camera, in order, complete and numbered, until :meth:`stop`.

    * ``frame_id`` becomes one ascending number, also over wraps of the counter and restarts of the camera.
    * ``time_ms_utc`` is always UTC.
    * Incomplete frames are left out: the number of the next frame shows the gap.
    * A camera that is lost, or silent, is opened again until it is back; the frames go on with the same settings.

    Each problem is passed to ``notify`` as one sentence (by default a warning in the log), the same kind at most
    every 5 s. ``with`` opens and closes the camera. :meth:`stop` may be called from any thread.
    """

    def __init__(
        self,
        camera: Camera,
        settings: CameraSettings | None = None,
        *,
        notify: Callable[[str], object] | None = None,
        retry_s: float = RETRY_S,
        silent_s: float = SILENT_S,
        clock: Callable[[], float] = time.monotonic,
        utc_s: Callable[[], float] = time.time,
    ) -> None:
        self._camera = camera
        self._settings = settings or CameraSettings()
        self._notify = notify or (lambda text: log.warning("%s", text))
        self._retry_s = retry_s
        self._silent_s = silent_s
        self._clock = clock
        self._utc_s = utc_s
        self._stopped = threading.Event()
        self._reported_at: dict[str, float] = {}
        self._unreported: dict[str, int] = {}
        self._numbers = FrameNumbers(0, 0, None)
        self._device_clock = DeviceClock()
        self._heard = 0.0
        self._info: CameraInfo | None = None
        self.counts = GrabCounts()

    @property
    def info(self) -> CameraInfo:
        """Description and present settings of the camera; raises CameraError before it is open."""
        if self._info is None:
            raise CameraError(f"{self._camera.name} is not open.")
        return self._info

    def open(self) -> CameraInfo:
        """Open the camera.

        Raises:
            CameraError, ConfigError: as :meth:`Camera.open`.
        """
        self._info = info = self._camera.open(self._settings)
        self._numbers = FrameNumbers(info.id_bits, info.id_first, info.fps)
        self._heard = self._clock()
        return info

    def close(self) -> None:
        """Close the camera; an error of the driver at this time is logged."""
        try:
            self._camera.close()
        except (CameraError, OSError) as error:
            log.warning("%s was not closed properly: %s", self._camera.name, error)

    def __enter__(self) -> Grabber:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.close()

    def stop(self) -> None:
        """Let :meth:`frames` end within 0.25 s, or after the call of the driver that runs."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopped.is_set()

    def frames(self) -> Iterator[CameraFrame]:
        """Yield complete frames until :meth:`stop`, or the end of a recording, in the thread that iterates.

        Raises:
            CameraError: the driver failed for another reason than a lost camera, or the camera came back with frames of
                another size.
        """
        while not self._stopped.is_set():
            try:
                frame = self._camera.grab(POLL_S)
            except CameraLostError as error:
                self._open_again(str(error))
                continue
            except CameraEndedError as error:
                self._notify(str(error))
                return
            if frame is None:
                self._check_silence()
                continue
            self._heard = self._clock()
            if (numbered := self._numbered(frame)) is not None:
                self.counts.frames += 1
                yield numbered

    def _numbered(self, frame: CameraFrame) -> CameraFrame | None:
        """Return the frame with its number and its time in UTC; None if it is not complete, or late."""
        time_ms = 1000.0 * self._utc_s()
        if frame.time_ms_utc is not None and frame.complete:
            in_device = self.info.device_clock
            time_ms = (
                self._device_clock.utc_ms(frame.time_ms_utc, time_ms) if in_device else frame.time_ms_utc
            )
        number, missing = self._numbers.next(frame.frame_id, time_ms)
        if not frame.complete:  # counted as incomplete, and by its number not as missing too
            self.counts.missing += missing
            self.counts.incomplete += 1
            self._report_once("incomplete", 1, "incomplete frames, left out", frame.problem)
            return None
        if number == -1:
            self.counts.late += 1
            self._report_once("late", 1, "late frames, left out", "a later frame came before")
            return None
        if missing:
            self.counts.missing += missing
            self._report_once(
                "missing", missing, "missing frames", "the camera counted them, but they did not arrive"
            )
        return replace(frame, frame_id=number, time_ms_utc=time_ms)

    def _report_once(self, kind: str, count: int, what: str, why: str) -> None:
        self._unreported[kind] = self._unreported.get(kind, 0) + count
        now = self._clock()
        if now - self._reported_at.get(kind, -NOTIFY_S) >= NOTIFY_S:
            self._reported_at[kind] = now
            self._notify(f"{self._camera.name}: {what}: {self._unreported.pop(kind)} ({why})")

    def _check_silence(self) -> None:
        fps = self.info.fps
        if fps is None:
            return
        silent = self._clock() - self._heard
        if silent >= max(self._silent_s, SILENT_PERIODS / fps):
            self._open_again(f"It has delivered no frame for {silent:.0f} s.")

    def _open_again(self, why: str) -> None:
        lost_at = self._clock()
        self._notify(
            f"{self._camera.name} is lost: {why} It is opened again when it returns; frames until then are missing."
        )
        before = self.info
        while not self._stopped.wait(self._retry_s):
            self.close()
            try:
                info = self._camera.open(self._settings)
            except (CameraError, ConfigError, OSError) as error:
                log.debug("%s is not connected again yet: %s", self._camera.name, error)
                continue
            if (info.shape, info.dtype) != (before.shape, before.dtype):
                raise CameraError(
                    f"{self._camera.name} came back with frames {info.shape} {info.dtype} instead of {before.shape} "
                    f"{before.dtype}: the frames before are safe. Begin a new stream."
                )
            self._info = info
            self._numbers.restart()
            self._device_clock = DeviceClock()
            self._heard = self._clock()
            self.counts.reconnects += 1
            self._notify(
                f"{self._camera.name} is back after {self._heard - lost_at:.1f} s; the frames go on."
            )
            return
