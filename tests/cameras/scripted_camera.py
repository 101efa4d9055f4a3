"""A camera whose frames and failures a test writes down, for the parts that all cameras share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np

from atomstream.cameras import CameraFrame, CameraInfo, CameraSettings, Grabber

Step: TypeAlias = CameraFrame | Exception | None
"""What one call of ``grab`` gives: a frame, an error, or no frame in time."""


def frame(frame_id: int | None, time_ms: float | None = None, problem: str = "") -> CameraFrame:
    """A frame of 2x3 pixels whose value is its number."""
    return CameraFrame(np.full((2, 3), (frame_id or 0) % 256, np.uint8), frame_id, time_ms, problem)


class ScriptedCamera:
    """Executes ``steps``, one per ``grab``, then calls ``at_end``.

    ``opening`` has an entry for each call of ``open``: an error, another description, or None for success.
    """

    name = "scripted:0"

    def __init__(
        self, steps: Iterable[Step], info: CameraInfo, opening: Iterable[Exception | CameraInfo | None] = ()
    ) -> None:
        self._steps = iter(steps)
        self._info = info
        self._opening = iter(opening)
        self.opened = self.closed = 0
        self.at_end: Callable[[], object] = lambda: None

    def open(self, settings: CameraSettings) -> CameraInfo:
        """Open, unless the script has an error for this call, or another description."""
        self.opened += 1
        outcome = next(self._opening, None)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome or self._info

    def grab(self, timeout_s: float) -> CameraFrame | None:
        """The next step of the script."""
        try:
            step = next(self._steps)
        except StopIteration:
            self.at_end()
            return None
        if isinstance(step, Exception):
            raise step
        return step

    def close(self) -> None:
        """Count the call."""
        self.closed += 1


class Clock:
    """Monotonic and UTC time in s that a test, or a step of the script, sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def grab_all(
    camera: ScriptedCamera, clock: Clock | None = None
) -> tuple[list[CameraFrame], Grabber, list[str]]:
    """Grab until the script ends. Returns the frames, the grabber, and the messages."""
    messages: list[str] = []
    clock = clock or Clock()
    grabber = Grabber(camera, notify=messages.append, retry_s=0.0, clock=clock, utc_s=clock)
    camera.at_end = grabber.stop
    with grabber:
        return list(grabber.frames()), grabber, messages
