"""The cameras ``opencv:NUMBER`` and ``opencv:URL``: webcams, frame grabbers and network streams, through OpenCV."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from atomstream.cameras.camera import (
    CameraFrame,
    CameraInfo,
    CameraSettings,
    FoundCamera,
    grey,
    refuse_settings,
)
from atomstream.cameras.names import driver
from atomstream.errors import CameraError, CameraLostError, ConfigError

MOST: Final = 4
"""Discovery tries the device numbers below this one."""


class OpenCVCamera:
    """One capture device; ``which`` is its number, or a URL or device file. It has no frame counter.

    OpenCV gives no capture times: a frame's time is that of its arrival. Colour frames become the mean of the colours.
    """

    def __init__(self, which: str = "0") -> None:
        self.name = f"opencv:{which or 0}"
        self._source: int | str = int(which or 0) if (which or "0").isdecimal() else which
        self._cv2 = driver("opencv", "cv2")
        self._capture: Any = None

    @classmethod
    def found(cls) -> list[FoundCamera]:
        """The video devices of this computer (Linux: without opening them)."""
        if Path("/dev").is_dir():
            numbers = [one.name.removeprefix("video") for one in sorted(Path("/dev").glob("video*"))]
            driver("opencv", "cv2")
            return [FoundCamera(f"opencv:{one}", f"/dev/video{one}") for one in numbers if one.isdecimal()]
        cv2, found = driver("opencv", "cv2"), []
        for number in range(MOST):
            capture = cv2.VideoCapture(number)
            if capture.isOpened():
                found.append(FoundCamera(f"opencv:{number}", capture.getBackendName()))
            capture.release()
        return found

    def open(self, settings: CameraSettings) -> CameraInfo:
        """See :class:`atomstream.cameras.Camera`. A region can't be set: crop the frames instead."""
        refuse_settings(self.name, settings, "exposure_ms", "gain", "fps")
        cv2 = self._cv2
        self._capture = capture = cv2.VideoCapture(self._source)
        try:
            if not capture.isOpened():
                raise CameraError(
                    f"{self.name} can't be opened: it is not there, or another program uses it."
                )
            wanted = {
                "exposure_ms": (cv2.CAP_PROP_EXPOSURE, settings.exposure_ms),
                "gain": (cv2.CAP_PROP_GAIN, settings.gain),
                "fps": (cv2.CAP_PROP_FPS, settings.fps),
            }
            for setting, (key, value) in wanted.items():
                if value is not None and not capture.set(key, value):
                    raise ConfigError(f"{self.name} does not accept {setting}={value}")
            width, height = (
                int(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
            )
        except BaseException:
            self.close()
            raise
        return CameraInfo(
            model=f"OpenCV {capture.getBackendName()} {self._source}",
            shape=(height, width),
            fps=capture.get(cv2.CAP_PROP_FPS) or None,
        )

    def grab(self, timeout_s: float) -> CameraFrame | None:
        """See :class:`atomstream.cameras.Camera`. OpenCV has its own time limit, which can't be set here."""
        there, pixels = self._capture.read()
        if not there:
            raise CameraLostError("The camera delivers no frame.")
        return CameraFrame(grey(self.name, pixels))

    def close(self) -> None:
        """See :class:`atomstream.cameras.Camera`."""
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()
