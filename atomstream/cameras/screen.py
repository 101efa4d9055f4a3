"""The camera ``screen:X,Y,W,H``: a part of the screen, through mss. For programs that only show their pictures."""

from __future__ import annotations

import re
import time
from typing import Any, Final

import numpy as np

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

DEFAULT_FPS: Final = 20.0


class ScreenCamera:
    """Takes a picture of a part of the screen at ``settings.fps`` (20 by default); grey is the mean of the colours.

    Other windows in front are in the picture too, and scaling by the desktop changes pixels. So use it only if the
    camera's program offers neither a driver nor files.
    """

    def __init__(self, which: str) -> None:
        found = re.fullmatch(r"(-?\d+),(-?\d+),(\d+),(\d+)", which)
        if found is None or "0" in found.groups()[2:]:
            raise ConfigError(f"screen:{which} is invalid; it is screen:X,Y,WIDTH,HEIGHT in pixels")
        self.name = f"screen:{which}"
        self._region = Region(*map(int, found.groups()))
        self._mss = driver("screen", "mss")
        self._screen: Any = None
        self._period_s = 1.0 / DEFAULT_FPS
        self._due = 0.0

    @classmethod
    def found(cls) -> list[FoundCamera]:
        """One camera for each monitor, with its whole picture."""
        mss = driver("screen", "mss")
        try:
            with mss.MSS() as screen:
                monitors = screen.monitors[1:]
        except mss.ScreenShotError as error:
            raise CameraError(f"screen: {error}") from error
        return [
            FoundCamera(f"screen:{one['left']},{one['top']},{one['width']},{one['height']}", "monitor")
            for one in monitors
        ]

    def open(self, settings: CameraSettings) -> CameraInfo:
        """See :class:`atomstream.cameras.Camera`."""
        refuse_settings(self.name, settings, "fps")
        fps = settings.fps or DEFAULT_FPS
        try:
            self._screen = self._mss.MSS()
            self._take()
        except self._mss.ScreenShotError as error:
            self.close()
            raise CameraError(f"{self.name}: {error}") from error
        self._period_s, self._due = 1.0 / fps, time.monotonic()
        return CameraInfo(
            model="screen", shape=(self._region.height, self._region.width), fps=fps, roi=self._region
        )

    def grab(self, timeout_s: float) -> CameraFrame | None:
        """See :class:`atomstream.cameras.Camera`."""
        wait = self._due - time.monotonic()
        if wait > timeout_s:
            time.sleep(timeout_s)
            return None
        time.sleep(max(0.0, wait))
        self._due = max(self._due + self._period_s, time.monotonic() - self._period_s)
        time_ms = 1000.0 * time.time()
        try:
            return CameraFrame(grey(self.name, self._take()), None, time_ms)
        except self._mss.ScreenShotError as error:
            raise CameraLostError(f"The screen can't be read: {error}") from error

    def close(self) -> None:
        """See :class:`atomstream.cameras.Camera`."""
        screen, self._screen = self._screen, None
        if screen is not None:
            screen.close()

    def _take(self) -> Any:
        x, y, width, height = self._region
        shot = self._screen.grab({"left": x, "top": y, "width": width, "height": height})
        return np.frombuffer(shot.raw, np.uint8).reshape(shot.height, shot.width, 4)
