"""The cameras ``micromanager:CONFIG``: what Micro-Manager supports, through pymmcore-plus.

``CONFIG`` is a configuration file (.cfg) that Micro-Manager wrote; its default camera is used. Without one it is the
demo camera. The device adapters are found as pymmcore-plus finds them (``mmcore install``, or MICROMANAGER_PATH).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

from atomstream.cameras.camera import (
    CameraFrame,
    CameraInfo,
    CameraSettings,
    FoundCamera,
    Region,
    grey,
    refuse_settings,
)
from atomstream.cameras.names import driver
from atomstream.errors import CameraError, CameraLostError, ConfigError

BUFFER_MB: Final = 256
"""Size of the core's ring of frames in MB. When it overflows, the core discards all of them, and the numbers skip."""

POLL_S: Final = 0.001
"""Interval, in s, at which the core is polled for a new frame: it has no call that waits for one."""


class MicroManager:
    """The default camera of a Micro-Manager configuration."""

    def __init__(self, which: str = "") -> None:
        self.name = f"micromanager:{which}"
        self._config = Path(which) if which else None
        self._core: Any = None
        self._label = ""
        driver("micromanager", "pymmcore_plus")

    @classmethod
    def found(cls) -> list[FoundCamera]:
        """The demo camera, if device adapters are installed: a configuration can't be searched for."""
        has_adapters = driver("micromanager", "pymmcore_plus").find_micromanager() is not None
        return [FoundCamera("micromanager:", "Micro-Manager's demo camera")] if has_adapters else []

    def open(self, settings: CameraSettings) -> CameraInfo:
        """See :class:`atomstream.cameras.Camera`."""
        refuse_settings(self.name, settings, "exposure_ms", "gain", "roi", "pixel_format")
        core = driver("micromanager", "pymmcore_plus").CMMCorePlus()
        try:
            if self._config is None:
                core.loadDevice("Camera", "DemoCamera", "DCam")
                core.initializeDevice("Camera")
                core.setCameraDevice("Camera")
            else:
                core.loadSystemConfiguration(str(self._config))
            self._core, self._label = core, core.getCameraDevice()
            if not self._label:
                raise CameraError(f"{self.name} has no default camera: set one in its configuration.")
            self._apply(settings)
            core.setCircularBufferMemoryFootprint(BUFFER_MB)
            core.startContinuousSequenceAcquisition(0)
            names = core.getDevicePropertyNames(self._label)
            return CameraInfo(
                model=f"{core.getDeviceLibrary(self._label)} {core.getDeviceName(self._label)}",
                shape=(core.getImageHeight(), core.getImageWidth()),
                dtype="uint8" if core.getBytesPerPixel() in {1, 4} else "uint16",
                id_bits=63,
                device_clock=True,
                exposure_ms=core.getExposure(),
                gain=float(core.getProperty(self._label, "Gain")) if "Gain" in names else None,
                roi=Region(*core.getROI()),
                max_value=2 ** core.getImageBitDepth() - 1,
            )
        except (RuntimeError, OSError) as error:
            self.close()
            raise CameraError(f"{self.name}: {' '.join(str(error).split())}") from error
        except BaseException:
            self.close()
            raise

    def grab(self, timeout_s: float) -> CameraFrame | None:
        """See :class:`atomstream.cameras.Camera`. The time is that at which the core received the frame, in ms from the
        start of its sequence: a frame that waits in its ring keeps it.
        """
        core, deadline = self._core, time.monotonic() + timeout_s
        try:
            while not core.getRemainingImageCount():
                if not core.isSequenceRunning():
                    raise CameraLostError("The camera's sequence has ended.")
                if time.monotonic() >= deadline:
                    return None
                time.sleep(POLL_S)
            pixels, tags = core.popNextImageAndMD(0, 0)
        except RuntimeError as error:
            raise CameraLostError(" ".join(str(error).split())) from error
        number, elapsed = tags.get("ImageNumber"), tags.get("ElapsedTime-ms")
        return CameraFrame(
            grey(self.name, pixels),
            None if number is None else int(number),
            None if elapsed is None else float(elapsed),
        )

    def close(self) -> None:
        """See :class:`atomstream.cameras.Camera`."""
        core, self._core = self._core, None
        if core is not None:
            try:
                core.stopSequenceAcquisition()
                core.reset()
            except RuntimeError as error:
                raise CameraError(f"{self.name}: {' '.join(str(error).split())}") from error

    def _apply(self, settings: CameraSettings) -> None:
        core = self._core
        try:
            if settings.pixel_format is not None:
                core.setProperty(self._label, "PixelType", settings.pixel_format)
            if settings.roi is not None:
                core.setROI(*settings.roi)
            if settings.exposure_ms is not None:
                core.setExposure(settings.exposure_ms)
            if settings.gain is not None:
                core.setProperty(self._label, "Gain", str(settings.gain))
        except RuntimeError as error:
            raise ConfigError(
                f"{self.name} does not accept a setting: {' '.join(str(error).split())}"
            ) from error
