"""The camera of the recorder: a thread takes its frames, changes them, and adds them to the dashcam."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np

from atomstream.cameras import (
    Camera,
    CameraFrame,
    CameraInfo,
    CameraSettings,
    Grabber,
    GrabCounts,
    Transforms,
)
from atomstream.cameras.stream_facts import recording_attributes, stream_rate
from atomstream.errors import AtomstreamError
from atomstream.record.dashcam import Dashcam
from atomstream.system.log_privacy import get_logger

log = get_logger(__name__)

RATE_FRAMES: Final = 600
RATE_S: Final = 5.0
"""The frame rate is measured over this number of frames, or this time in s, whichever is shorter."""


@dataclass(frozen=True, slots=True)
class CapturePlan:
    """What to open: the name of a source, the settings of its camera, and the changes of its frames."""

    source: str
    settings: CameraSettings = field(default_factory=CameraSettings)
    transforms: Transforms = field(default_factory=Transforms)


class Capture:
    """Takes the frames of one camera from :meth:`start` to :meth:`close`.

    ``on_frame`` is called after each frame, and once after the last one, in the thread of the camera. ``notify`` is
    called with a sentence about each problem.
    """

    def __init__(
        self,
        plan: CapturePlan,
        camera: Camera,
        dashcam: Dashcam,
        on_frame: Callable[[], object],
        notify: Callable[[str], object],
    ) -> None:
        self.plan = plan
        self.camera = camera
        self.dashcam = dashcam
        self._on_frame = on_frame
        self._notify = notify
        self._grabber = Grabber(camera, plan.settings, notify=notify)
        self._thread = threading.Thread(target=self._run, name="atomstream-capture", daemon=True)
        self._newest: CameraFrame | None = None
        self._newest_at = time.monotonic()
        self._behind_s = 0.0
        self._recent: deque[tuple[float, int | None]] = deque(maxlen=RATE_FRAMES)
        self._problem = ""
        self._running = False

    def start(self) -> CameraInfo:
        """Open the camera and start to take frames; it may take seconds.

        Raises:
            CameraError, ConfigError: as :meth:`atomstream.cameras.Camera.open`; also if the changes of frames, such as
                a crop, do not fit to this camera's frames.
        """
        info = self._grabber.open()
        if info.shape != (0, 0):  # a watched folder has no frame size yet
            self.plan.transforms.apply(np.zeros(info.shape, info.dtype))
        self._running = True
        self._thread.start()
        return info

    def close(self) -> None:
        """Take no more frames, and close the camera and the dashcam."""
        self._grabber.stop()
        if self._thread.ident is not None:
            self._thread.join()
        self._grabber.close()
        self.dashcam.close()

    @property
    def state(self) -> Literal["running", "ended", "failed"]:
        """``ended``: a recording was played to its end. ``failed``: see :attr:`problem`."""
        if self._running:
            return "running"
        return "failed" if self._problem else "ended"

    @property
    def problem(self) -> str:
        """Why no more frames come, as a sentence; empty while they come."""
        return self._problem

    @property
    def info(self) -> CameraInfo:
        """Description and present settings of the camera."""
        return self._grabber.info

    @property
    def counts(self) -> GrabCounts:
        """What the grabber has counted."""
        return self._grabber.counts

    @property
    def newest(self) -> CameraFrame | None:
        """The newest frame, after the changes of the plan; None before the first."""
        return self._newest

    @property
    def silent_s(self) -> float:
        """Seconds since the newest frame."""
        return time.monotonic() - self._newest_at

    @property
    def behind_s(self) -> float:
        """How long after its exposure the newest frame came, in s: more than the transfer if the computer is slow."""
        return self._behind_s

    def white_of(self, frame: CameraFrame) -> int:
        """The value of a saturated pixel in a frame that was changed by the plan's transforms."""
        white, transforms = self._grabber.info.white, self.plan.transforms
        largest = int(np.iinfo(frame.pixels.dtype).max)
        if transforms.levels is not None:
            return largest
        if transforms.bin_factor > 1 and transforms.bin_mode == "sum":
            white *= transforms.bin_factor**2
        return min(white, largest)

    def measured_fps(self) -> float | None:
        """The frame rate in 1/s of the last seconds; None if there are fewer than three frames."""
        recent = list(self._recent)
        newest = recent[-1][0] if recent else 0.0
        recent = [one for one in recent if newest - one[0] <= 1000.0 * RATE_S] if len(recent) > 12 else recent
        if len(recent) < 3 or recent[-1][0] <= recent[0][0]:
            return None
        first, last = recent[0], recent[-1]
        periods = len(recent) - 1 if first[1] is None or last[1] is None else last[1] - first[1]
        return 1000.0 * periods / (last[0] - first[0])

    def fps(self) -> float | None:
        """The frame rate for a stream: what the camera states if the measured one agrees with it; None: not known."""
        return stream_rate(self._grabber.info.fps, self.plan.settings.fps, self.measured_fps())

    def attributes(self) -> dict[str, object]:
        """How the frames are recorded, for the stream's attributes."""
        return recording_attributes(self.plan.source, self._grabber.info, self.plan.transforms)

    def _run(self) -> None:
        try:
            for frame in self._grabber.frames():
                pixels = np.ascontiguousarray(self.plan.transforms.apply(frame.pixels))
                changed = replace(frame, pixels=pixels)
                self.dashcam.add(changed)
                self._recent.append((frame.time_ms_utc or 0.0, frame.frame_id))
                self._newest, self._newest_at = changed, time.monotonic()
                self._behind_s = max(0.0, time.time() - (frame.time_ms_utc or 0.0) / 1000.0)
                self._on_frame()
        except (AtomstreamError, OSError) as error:
            self._problem = str(error)
            self._notify(f"{self.plan.source}: {error}")
        except Exception as error:  # a driver may raise anything, and a recording must be ended safely
            log.exception("The capture of %s failed.", self.plan.source)
            self._problem = f"The driver of {self.plan.source} failed: {error}"
            self._notify(self._problem)
        finally:
            self._running = False
            self._on_frame()
