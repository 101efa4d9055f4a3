"""The camera ``sim``: a simulated growth, in real time. It needs no hardware and no driver."""

from __future__ import annotations

import re
import time

from atomstream.cameras.camera import (
    CameraFrame,
    CameraInfo,
    CameraSettings,
    FoundCamera,
    Region,
    refuse_settings,
)
from atomstream.errors import CameraError, ConfigError
from atomstream.sources import GrowthSpec, Simulator

DEFAULT_EXPOSURE_MS = 5.0
"""Exposure in ms at which the simulated picture has its usual brightness."""


class SimulatedGrowth:
    """Films a growth with known rate (0.4 layers per second); ``which`` is empty or ``WIDTHxHEIGHT``.

    It exposes frames at ``settings.fps`` (120 by default) from :meth:`open` on. A frame that is not grabbed in time is
    delivered later, none is lost. Exposure and gain change the brightness.
    """

    def __init__(self, which: str = "") -> None:
        found = re.fullmatch(r"(\d{1,4})x(\d{1,4})", which or "640x480")
        if found is None:
            raise ConfigError(f"sim:{which} is invalid; it is sim, or sim:WIDTHxHEIGHT such as sim:320x240")
        self.name = f"sim:{which}" if which else "sim"
        self._width, self._height = int(found[1]), int(found[2])
        self._simulator: Simulator | None = None
        self._roi: Region | None = None
        self._next = 0
        self._began = self._began_ms = 0.0

    @classmethod
    def found(cls) -> list[FoundCamera]:
        """The one simulated camera."""
        return [FoundCamera("sim", "simulated growth, 640x480 at 120 frames per second")]

    def open(self, settings: CameraSettings) -> CameraInfo:
        """Start the growth from its beginning; see :class:`atomstream.cameras.Camera`."""
        refuse_settings(self.name, settings, "exposure_ms", "gain", "fps", "roi")
        roi = settings.roi or Region(0, 0, self._width, self._height)
        if roi.x + roi.width > self._width or roi.y + roi.height > self._height:
            raise ConfigError(f"roi {tuple(roi)} is not inside the {self._width}x{self._height} sensor")
        exposure = settings.exposure_ms or DEFAULT_EXPOSURE_MS
        gain = 1.0 if settings.gain is None else settings.gain
        spec = GrowthSpec(
            height=self._height,
            width=self._width,
            fps=settings.fps or 120.0,
            gain=max(0.0, gain) * exposure / DEFAULT_EXPOSURE_MS,
        )
        self._simulator, self._roi, self._next = Simulator(spec), roi, 0
        self._began, self._began_ms = time.monotonic(), 1000.0 * time.time()
        return CameraInfo(
            model="simulated growth",
            shape=(roi.height, roi.width),
            fps=spec.fps,
            id_bits=63,
            exposure_ms=exposure,
            gain=gain,
            roi=roi,
        )

    def grab(self, timeout_s: float) -> CameraFrame | None:
        """Wait until the next frame is exposed; see :class:`atomstream.cameras.Camera`."""
        simulator, roi = self._simulator, self._roi
        if simulator is None or roi is None:
            raise CameraError(f"{self.name} is not open.")
        fps = simulator.spec.fps
        due = self._began + (self._next + 1) / fps
        now = time.monotonic()
        if due > now + timeout_s:
            time.sleep(timeout_s)
            return None
        time.sleep(max(0.0, due - now))
        number, self._next = self._next, self._next + 1
        pixels = simulator.frames(number, 1)[0, roi.y : roi.y + roi.height, roi.x : roi.x + roi.width]
        return CameraFrame(pixels.copy(), number, self._began_ms + 1000.0 * number / fps)

    def close(self) -> None:
        """Stop the growth."""
        self._simulator = None
