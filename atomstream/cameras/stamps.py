"""Numbers and times of a camera's frames, made continuous: counters that wrap, clocks of devices.

A driver's counter has 16, 32 or 64 bits and begins again after a wrap, and at each start of the camera. A device's
clock has an unknown zero. The frames of a stream have one ascending number and a time in UTC.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from atomstream.frame_counter import MAX_MISSING, usual_step

DRIFT: Final = 1e-4
"""Largest difference between the rates of two clocks. Quartz clocks are at least five times better."""

JUMP_MS: Final = 1000.0
"""If a device's clock goes back by more than this, in ms, it was set or restarted."""


_STEPS: Final = 32
"""Steps between the numbers of neighbouring frames that are compared to find the usual one."""


class DeviceClock:
    """Converts times of a camera's clock to UTC.

    A frame arrives some time after its exposure: a constant transfer time plus a delay that varies. The offset
    between the clocks is the smallest difference seen between arrival and device time, so that a late frame keeps its
    time. It may rise by :data:`DRIFT` of the elapsed time, which follows a slower device clock.
    """

    def __init__(self) -> None:
        self._offset = math.inf
        self._last = -math.inf

    def utc_ms(self, device_ms: float, arrival_ms: float) -> float:
        """Return the UTC in ms of a frame with the device time ``device_ms`` that arrived at ``arrival_ms`` (UTC)."""
        difference = arrival_ms - device_ms
        elapsed = device_ms - self._last
        if elapsed < -JUMP_MS:
            self._offset = math.inf
        elif math.isfinite(self._offset) and elapsed > 0:
            self._offset += DRIFT * elapsed
        self._offset = min(self._offset, difference)
        self._last = device_ms
        return device_ms + self._offset


class FrameNumbers:
    """Makes one ascending number of the counters of a camera, and counts the missing frames.

    ``id_bits`` is the width of the counter, ``id_first`` the number that follows the largest one (see
    :class:`atomstream.cameras.CameraInfo`), ``fps`` the frame rate in 1/s if it is known. The first number is the
    camera's own.
    """

    def __init__(self, id_bits: int, id_first: int, fps: float | None) -> None:
        self._largest = (1 << id_bits) - 1
        self._period = self._largest + 1 - id_first
        self._unknown = self._largest if id_bits >= 32 else None  # drivers write all ones for "no number"
        self._fps = fps
        self._counter: int | None = None
        self._time_ms = 0.0
        self._restarted = False
        self._steps: deque[int] = deque(maxlen=_STEPS)
        self.last: int | None = None
        """Number of the previous frame."""

    def restart(self) -> None:
        """Start a new counter after the camera was opened again. Missing frames are then computed from the time."""
        self._restarted = True

    def next(self, counter: int | None, time_ms: float) -> tuple[int | None, int]:
        """Return the number of the next frame, and how many are missing directly before it.

        ``time_ms`` is the frame's time in UTC ms. A counter that is unknown or repeated shows no missing frames. A
        step that does not fit to the elapsed time is a restart of the counter. Returns (None, 0) for a camera
        without counter, and (-1, 0) for a frame that was exposed before the last one.
        """
        if counter is None or self._largest == 0:
            return None, 0
        last, before = self.last, self._counter
        known = counter != self._unknown and 0 <= counter <= self._largest
        if last is None:
            if not known:
                return None, 0
            step, self.last = 0, counter
        else:
            step = self._step(before, counter if known else None, time_ms - self._time_ms)
            if step < 0:
                return -1, 0
            self.last = last + step
        missing = self._missing(step, time_ms - self._time_ms) if step else 0
        self._counter, self._time_ms, self._restarted = counter if known else None, time_ms, False
        return self.last, missing

    def _missing(self, step: int, elapsed_ms: float) -> int:
        """Return how many frames a step of the number skips.

        Some drivers count in steps, for example if only every 4th frame is sent: the usual step is one frame, unless
        the elapsed time shows that frames are missing.
        """
        if self._restarted:
            return step - 1
        self._steps.append(step)
        usual = usual_step(self._steps)
        if self._fps is not None and elapsed_ms / 1000.0 * self._fps > 0.75 * step:
            usual = 1
        return max(0, round(step / usual) - 1)

    def _step(self, before: int | None, counter: int | None, elapsed_ms: float) -> int:
        expected = 1.0 if self._fps is None else elapsed_ms / 1000.0 * self._fps
        by_time = 1 if self._fps is None else min(MAX_MISSING, max(1, round(expected)))
        if self._restarted:
            return by_time
        if counter is None or before is None or counter == before:
            return 1
        step = (counter - before) % self._period
        if elapsed_ms < 0 and self._period - step < self._period // 2:
            return -1
        likely = 4.0 * max(0.0, expected) + 100.0 if self._fps is not None else MAX_MISSING
        return step if step <= min(likely, MAX_MISSING, self._period // 2 + 1) else by_time
