"""A camera for tests: frames of a growth with known truth, with counters and capture times."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from atomstream.cameras import CameraFrame
from atomstream.errors import ConfigError
from atomstream.sources import GrowthSpec, Simulator, apaced, paced


class SimulatedCamera:
    """A camera that films a simulated growth, or plays an array.

    It delivers its frames once, in one of these ways: ``for`` or ``async for`` (one :class:`CameraFrame` after the
    other), :meth:`capture` (the next frames as an array), or :meth:`start` (a callback in a thread)::

        camera = SimulatedCamera(GrowthSpec(height=48, width=64), n_frames=240, dropped={17, 18})
        for frame in camera:
            streamer.push_frame(data_id, frame.pixels, frame.time_ms_utc, frame.frame_id)

    Args:
        scene: the growth to simulate, or an array of frames (N, H, W) to play.
        n_frames: how many frames are exposed; an array's length by default, else 240.
        fps: frames a second of an array, 120 by default. A growth has its own.
        dropped: numbers of frames that the camera loses. Its counter and its clock continue.
        real_time: deliver each frame when a camera would. If False, frames come as fast as they are made.
        start_ms_utc: capture time of frame 0; the time at which the camera is made by default.
    """

    def __init__(
        self,
        scene: GrowthSpec | npt.NDArray[Any] | None = None,
        *,
        n_frames: int | None = None,
        fps: float | None = None,
        dropped: Iterable[int] = (),
        real_time: bool = False,
        start_ms_utc: float | None = None,
    ) -> None:
        self._simulator: Simulator | None = None
        self._played: npt.NDArray[Any] | None = None
        if isinstance(scene, np.ndarray):
            self._played = scene
            self.fps = 120.0 if fps is None else float(fps)
            self.n_frames = len(scene) if n_frames is None else n_frames
            if self.n_frames > len(scene):
                raise ConfigError(f"n_frames is {self.n_frames}, but the array has {len(scene)} frames")
        else:
            self._simulator = Simulator(scene)
            self.fps = self._simulator.spec.fps
            self.n_frames = 240 if n_frames is None else n_frames
            if fps is not None:
                raise ConfigError("a simulated growth has its own frame rate: give GrowthSpec(fps=...)")
        self.dropped = frozenset(dropped)
        self.start_ms_utc = 1000.0 * time.time() if start_ms_utc is None else start_ms_utc
        self._delivered = self._deliver(real_time)
        self._real_time = real_time
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    @property
    def delivered_frames(self) -> npt.NDArray[Any]:
        """All frames that the camera delivers, dropped ones left out, (N, H, W): what should arrive."""
        kept = [self._expose(number) for number in range(self.n_frames) if number not in self.dropped]
        return np.stack(kept) if kept else np.empty((0, *self._expose(0).shape), np.uint8)

    def __iter__(self) -> Iterator[CameraFrame]:
        return self._delivered

    async def __aiter__(self) -> AsyncIterator[CameraFrame]:
        pixels = (self._expose(number) for number in range(self.n_frames))
        number = 0
        async for frame in apaced(pixels, self.fps) if self._real_time else _each(pixels):
            if number not in self.dropped:
                yield self._frame(number, frame)
            number += 1

    def capture(self, count: int) -> npt.NDArray[Any]:
        """The next ``count`` frames that are not dropped, (count, H, W); fewer at the end."""
        shots = [frame.pixels for _, frame in zip(range(count), self._delivered, strict=False)]
        return np.stack(shots) if shots else np.empty((0, *self._expose(0).shape), np.uint8)

    def start(self, callback: Callable[[CameraFrame], object]) -> None:
        """Call ``callback`` with each frame, in a thread; :meth:`wait` waits for the last one."""
        self._thread = threading.Thread(
            target=self._acquire, args=(callback,), name="simulated camera", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Wait until the last frame was delivered.

        Raises:
            Exception: what the callback raised; no frame was delivered after it.
        """
        if self._thread is not None:
            self._thread.join()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _acquire(self, callback: Callable[[CameraFrame], object]) -> None:
        try:
            for frame in self._delivered:
                callback(frame)
        except BaseException as error:  # raised again by wait(), in the caller's thread
            self._failure = error

    def _deliver(self, real_time: bool) -> Iterator[CameraFrame]:
        pixels = (self._expose(number) for number in range(self.n_frames))
        for number, frame in enumerate(paced(pixels, self.fps) if real_time else pixels):
            if number not in self.dropped:
                yield self._frame(number, frame)

    def _expose(self, number: int) -> npt.NDArray[Any]:
        frame: npt.NDArray[Any]
        if self._simulator is not None:
            frame = self._simulator.frames(number, 1)[0]
        else:
            assert self._played is not None
            frame = self._played[number].copy()
        return frame

    def _frame(self, number: int, pixels: npt.NDArray[Any]) -> CameraFrame:
        return CameraFrame(pixels, number, self.start_ms_utc + 1000.0 * number / self.fps)


async def _each(frames: Iterable[npt.NDArray[Any]]) -> AsyncIterator[npt.NDArray[Any]]:
    for frame in frames:
        await asyncio.sleep(0)
        yield frame
