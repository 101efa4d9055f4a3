"""A thread that takes frames from a camera, changes them, and hands each one on: to a streamer, or to a preview.

The frames that arrive before the receiver is connected are held in memory. So the frame rate can be measured, and the
stream created on the server, without losing the first frames.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from atomstream.cameras.camera import CameraFrame
from atomstream.cameras.grabber import Grabber
from atomstream.cameras.transforms import Transforms
from atomstream.frame_counter import usual_step

HELD_BYTES: Final = 256 << 20
"""Most bytes of frames that are held before a receiver is connected. At this limit grabbing waits, and the driver may
drop frames."""

MEASURE_S: Final = 1.0
MEASURE_FRAMES: Final = 10
"""Least time in s and least number of frames over which a rate is measured."""

MEASURE_SLOW_S: Final = 4.0
"""Time in s after which three frames are enough, for slow cameras."""


class CameraFeed:
    """Runs ``grabber.frames()`` in a thread, which applies ``transforms`` and hands the frames on.

    The order of use: :meth:`start`, :meth:`first_frame` and :meth:`measured_rate` if wanted, :meth:`connect`, then
    iteration of :meth:`progress`, or :meth:`stop` and :meth:`raise_failure`. ``max_frames`` and ``max_seconds`` (of the
    frames' own times) end it.
    """

    def __init__(
        self,
        grabber: Grabber,
        transforms: Transforms | None = None,
        *,
        max_frames: int | None = None,
        max_seconds: float | None = None,
    ) -> None:
        self.grabber = grabber
        self._transforms = transforms or Transforms()
        self._max_frames = max_frames
        self._max_seconds = max_seconds
        self._changed = threading.Condition()
        self._held: deque[CameraFrame] = deque()
        self._held_bytes = 0
        self._first: CameraFrame | None = None
        self._receive: Callable[[CameraFrame], object] | None = None
        self._taken = 0
        self._delivered = 0
        self._ended = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="atomstream-camera", daemon=True)

    def start(self) -> None:
        """Start the thread; the grabber is open."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more frames, and wait until the thread has ended. Frames that are held and not connected are lost."""
        self.grabber.stop()
        with self._changed:
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def first_frame(self) -> CameraFrame:
        """Wait for the first frame and return it, changed as all frames are.

        Raises:
            AtomstreamError: the camera failed, or the changes do not fit to its frames.
            EOFError: the feed was stopped.
        """
        with self._changed:
            while self._first is None:
                self._wait()
            return self._first

    def measured_rate(self) -> float:
        """Wait until the frame rate can be measured, and return it in 1/s: at least 1 s, and 10 frames or 4 s.

        Dropped frames count, so it is the rate of the camera's exposures. Raises as :meth:`first_frame`.
        """
        with self._changed:
            while (rate := _rate(self._held)) is None and self._held_bytes < HELD_BYTES:
                self._wait()
            return rate or _plain_rate(self._held)

    def connect(self, receive: Callable[[CameraFrame], object]) -> None:
        """Hand the held frames and all later ones to ``receive``, in the feed's thread."""
        with self._changed:
            self._receive = receive
            self._changed.notify_all()

    def progress(self, period_s: float = 0.1) -> Iterator[int]:
        """Yield the number of frames handed on since the last yield, about every ``period_s`` seconds, until the end.

        When the iterator is closed, the feed is stopped.

        Raises:
            Exception: what the camera or the receiver raised; frames before it were handed on.
        """
        reported, began = 0, time.monotonic()
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._ended, period_s)
                    new, reported, ended = self._delivered - reported, self._delivered, self._ended
                if new:
                    yield new
                if ended:
                    self.raise_failure()
                    return
                if self._max_seconds is not None and time.monotonic() - began > self._max_seconds + 1.0:
                    self.stop()  # a camera without frames must not prolong the stream
        finally:
            self.stop()

    @property
    def delivered(self) -> int:
        """Number of frames handed on so far."""
        return self._delivered

    def raise_failure(self) -> None:
        """Raise the error of the camera or the receiver that ended the feed, once; do nothing if there was none."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _wait(self) -> None:
        if self._ended:
            self.raise_failure()
            raise EOFError("The camera was stopped before it delivered the frames that were needed.")
        self._changed.wait()

    def _run(self) -> None:
        try:
            for frame in self.grabber.frames():
                pixels = np.ascontiguousarray(self._transforms.apply(frame.pixels))
                if not self._take(replace(frame, pixels=pixels)):
                    break
            self._deliver_held(wait=True)
        except BaseException as error:  # raised again in the thread that uses the feed
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _take(self, frame: CameraFrame) -> bool:
        """Hold the frame or hand it on. Returns False if it is the last one, or behind the end."""
        if self._first is None:
            self._first = frame
        elif self._is_behind_end(frame, self._first):
            return False
        self._taken += 1
        with self._changed:
            self._held.append(frame)
            self._held_bytes += frame.pixels.nbytes
            self._changed.notify_all()
        self._deliver_held(wait=self._held_bytes >= HELD_BYTES)
        return self._max_frames is None or self._taken < self._max_frames

    def _is_behind_end(self, frame: CameraFrame, first: CameraFrame) -> bool:
        if self._max_seconds is None or frame.time_ms_utc is None or first.time_ms_utc is None:
            return False
        return frame.time_ms_utc - first.time_ms_utc >= 1000.0 * self._max_seconds

    def _deliver_held(self, *, wait: bool) -> None:
        with self._changed:
            while wait and self._receive is None and not self.grabber.stopped:
                self._changed.wait(1.0)
            receive = self._receive
        while receive is not None and self._held:
            receive(self._held[0])
            with self._changed:
                self._held_bytes -= self._held.popleft().pixels.nbytes
                self._delivered += 1


def _rate(frames: deque[CameraFrame]) -> float | None:
    if len(frames) < 3:
        return None
    seconds = _seconds(frames)
    enough = MEASURE_FRAMES if seconds < MEASURE_SLOW_S else 3
    return _plain_rate(frames) if seconds >= MEASURE_S and len(frames) >= enough else None


def _seconds(frames: deque[CameraFrame]) -> float:
    first, last = frames[0].time_ms_utc, frames[-1].time_ms_utc
    return 0.0 if first is None or last is None else (last - first) / 1000.0


def _plain_rate(frames: deque[CameraFrame]) -> float:
    numbers = [frame.frame_id for frame in frames if frame.frame_id is not None]
    periods: float = len(frames) - 1
    if len(numbers) == len(frames):  # a driver may count in steps, of which each is one frame
        steps = [after - before for before, after in itertools.pairwise(numbers)]
        periods = (numbers[-1] - numbers[0]) / usual_step(steps)
    return periods / max(_seconds(frames), 1e-6)
