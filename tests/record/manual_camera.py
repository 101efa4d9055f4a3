"""A camera whose frames a test hands over one by one, and a recorder that records it."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atomstream.cameras import CameraFrame, CameraInfo, CameraSettings
from atomstream.login import ServerLogin
from atomstream.record import recorder as recorder_module
from atomstream.record.capture import CapturePlan
from atomstream.record.recorder import Recorder
from atomstream.record.settings import RecorderSettings
from atomstream.record.states import RecorderState

FPS = 20.0
SHAPE = (24, 32)


class ManualCamera:
    """Delivers the frames and raises the errors that :meth:`give` gets. Its clock runs at 20 frames per second.

    Frame 0 was captured ``age_s`` seconds ago.
    """

    name = "manual:0"

    def __init__(self, age_s: float = 60.0, **info: Any) -> None:
        self._info = CameraInfo(**{"model": "manual", "shape": SHAPE, "fps": FPS, "id_bits": 32, **info})
        self._steps: queue.Queue[CameraFrame | Exception] = queue.Queue()
        self._start_ms = 1000.0 * (time.time() - age_s)
        self.opened = 0
        self.refuse: Exception | None = None

    def give(self, *numbers: int) -> None:
        """Deliver the frames with these numbers."""
        for number in numbers:
            self._steps.put(CameraFrame(pixels(number), number, self.time_ms(number)))

    def fail(self, error: Exception) -> None:
        """Raise this at the next grab."""
        self._steps.put(error)

    def time_ms(self, number: int) -> float:
        """The time of a frame in UTC ms."""
        return self._start_ms + 1000.0 * number / FPS

    def open(self, settings: CameraSettings) -> CameraInfo:
        """Open, unless :attr:`refuse` is set."""
        self.opened += 1
        if self.refuse is not None:
            raise self.refuse
        return self._info

    def grab(self, timeout_s: float) -> CameraFrame | None:
        """The next frame."""
        try:
            step = self._steps.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(step, Exception):
            raise step
        return step

    def close(self) -> None:
        """Nothing to release."""


def pixels(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The pixels of one frame; they contain its number."""
    rows, columns = np.indices(SHAPE)
    return ((7 * rows + 3 * columns + 11 * number) % 251).astype(np.uint8)


def stack(*numbers: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The pixels of several frames."""
    return np.stack([pixels(number) for number in numbers])


@asynccontextmanager
async def recording_of(
    folder: Path,
    camera: ManualCamera,
    patch: pytest.MonkeyPatch,
    login: ServerLogin | None = None,
    messages: list[str] | None = None,
    **settings: Any,
) -> AsyncIterator[Recorder]:
    """A recorder with this camera open."""
    patch.setattr(recorder_module, "open_camera", lambda _name: camera)
    patch.setattr(recorder_module, "camera_name", lambda source: source)
    options = {"spool_dir": folder / "spool", "state_dir": folder / "state", **settings}
    recorder = Recorder(
        RecorderSettings(login=login, **options), (messages if messages is not None else []).append
    )
    await recorder.start()
    try:
        await recorder.open_source(CapturePlan("manual:0"))
        yield recorder
    finally:
        await recorder.close()


async def until(recorder: Recorder, condition: Callable[[], object]) -> None:
    """Wait until ``condition`` is true; the recorder's state or its camera's frames change it."""
    async with asyncio.timeout(60.0):
        while not condition():
            await recorder.stats()
            await asyncio.sleep(0.005)


async def taken(recorder: Recorder, camera: ManualCamera, *numbers: int) -> None:
    """Give frames, and wait until the dashcam has them."""
    assert recorder.capture is not None
    dashcam = recorder.capture.dashcam
    end = dashcam.end + len(numbers)
    camera.give(*numbers)
    await until(recorder, lambda: dashcam.end == end or recorder.capture is None)


async def stopped(recorder: Recorder) -> None:
    """Stop, and wait until the recording is saved."""
    await recorder.stop()
    await until(recorder, lambda: recorder.state is RecorderState.IDLE)


async def delivered(recorder: Recorder) -> None:
    """Wait until the server has ended the stream of the last recording."""
    recording = recorder.recording
    assert recording is not None
    await until(recorder, lambda: recording.report is not None)
