"""Trouble that emulators make themselves: lost packets, failed buffers, a camera that disappears and comes back."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from filelock import FileLock

from atomstream.cameras import CameraFrame, CameraSettings, Grabber, open_camera
from tests.cameras.emulators import aravis_library, basler, gige_camera, ioc, micromanager


def take(grabber: Grabber, count: int) -> list[CameraFrame]:
    """The next ``count`` complete frames."""
    return [frame for _, frame in zip(range(count), grabber.frames(), strict=False)]


def test_pylon_buffers_that_fail() -> None:
    """Buffers that pylon marks as failed are reported and left out; the numbers show the gap, and nothing else is
    lost.
    """
    messages: list[str] = []
    with (
        basler() as emulator,
        Grabber(emulator.camera(), emulator.settings, notify=messages.append) as grabber,
    ):
        first = take(grabber, 3)[-1]
        camera: Any = grabber._camera
        camera._camera.ForceFailedBufferCount.Value = 2
        camera._camera.ForceFailedBuffer.Execute()
        frames = [first]
        while grabber.counts.incomplete < 2 or len(frames) < 5:
            frames += take(grabber, 1)
    assert all(frame.pixels.size for frame in frames)
    assert grabber.counts.incomplete == 2
    assert grabber.counts.missing == 0
    assert (frames[-1].frame_id or 0) - (first.frame_id or 0) == len(frames) - 1 + 2
    assert "incompletely grabbed" in messages[0]


@pytest.fixture
def gige_port() -> Iterator[None]:
    """The one port of GigE Vision cameras on this computer: parallel tests use it one after the other."""
    with FileLock(Path(tempfile.gettempdir()) / "atomstream-tests-gige.lock"):
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("gige_port")
def test_gige_packets_that_are_lost() -> None:
    """Frames with lost packets never arrive as whole ones; the numbers of the whole ones show the gaps."""
    aravis_library()
    messages: list[str] = []
    with (
        gige_camera("-r", "3"),
        Grabber(open_camera("aravis:127.0.0.1"), CameraSettings(fps=50.0), notify=messages.append) as grabber,
    ):
        frames = take(grabber, 20)
        while not grabber.counts.incomplete:
            frames += take(grabber, 1)
    assert len({frame.pixels.shape for frame in frames}) == 1
    assert any("incomplete frames" in text for text in messages)
    numbers = [frame.frame_id or 0 for frame in frames]
    counts = grabber.counts
    assert numbers[-1] - numbers[0] >= len(frames) - 1
    assert numbers[-1] - numbers[0] <= len(frames) - 1 + counts.incomplete + counts.missing


@pytest.mark.slow
@pytest.mark.usefixtures("gige_port")
def test_a_gige_camera_that_is_unplugged_and_back() -> None:
    """A camera that stops answering is opened again when it is back; ids wrap from 65535 to 1 before that."""
    aravis_library()
    for _ in range(5):
        if unplugged_and_back():
            return
    pytest.fail("each time the first frame came after the wrap of the ids: the computer is too slow")


def unplugged_and_back() -> bool:
    """One try; False if the camera had sent the frames before the wrap when the first one was received."""
    messages: list[str] = []
    with (
        ExitStack() as later,  # the second camera is closed after the grabber, which waits for answers at its end
        gige_camera() as first,
        Grabber(
            open_camera("aravis:127.0.0.1"),
            CameraSettings(fps=100.0),
            notify=messages.append,
            retry_s=0.1,
        ) as grabber,
    ):
        before = take(grabber, 160)
        numbers = [frame.frame_id or 0 for frame in before]
        if numbers[0] < 1000:
            return False
        assert numbers[0] < 65535 < numbers[-1]
        assert numbers[-1] - numbers[0] == 159 + grabber.counts.missing
        first.kill()
        first.wait()
        later.enter_context(gige_camera())
        after = take(grabber, 200)[-1]
        assert grabber.counts.reconnects == 1
    assert (after.frame_id or 0) > numbers[-1]
    assert ["is lost" in text for text in messages].index(True) < [
        "is back" in text for text in messages
    ].index(True)
    return True


def test_an_ioc_that_stops_and_starts_again() -> None:
    """A lost connection to an IOC is reported; the images go on after its restart, none of them twice."""
    messages: list[str] = []
    lost = threading.Event()

    def notify(text: str) -> None:
        messages.append(text)
        if "is lost" in text:
            lost.set()

    with ioc() as served, Grabber(open_camera("epics:RHEED:Image"), notify=notify, retry_s=0.05) as grabber:
        before = take(grabber, 5)
        served.unplug()
        restart = threading.Thread(target=lambda: (lost.wait(), served.listen()))
        restart.start()
        after = take(grabber, 5)
        restart.join()
    frames = [*before, *after]
    assert grabber.counts.reconnects == 1
    assert [one for one in messages if "is back" in one]
    for frame in frames[:5]:
        assert np.array_equal(frame.pixels, served.frames[(frame.frame_id or 0) % 16])
    numbers = [frame.frame_id or 0 for frame in frames]
    assert numbers == sorted(set(numbers))


def test_a_ring_of_buffers_that_overflows() -> None:
    """Frames that Micro-Manager discards because its buffer is full are counted as missing."""
    with micromanager() as emulator, Grabber(emulator.camera(), emulator.settings) as grabber:
        take(grabber, 2)
        core: Any = cast("Any", grabber._camera)._core
        core.stopSequenceAcquisition()
        core.setCircularBufferMemoryFootprint(1)
        core.startContinuousSequenceAcquisition(0)
        most = 0
        while (waiting := core.getRemainingImageCount()) >= most:
            most = waiting
        frames = take(grabber, 3)
    assert grabber.counts.missing >= most - 3
    assert frames[-1].complete


def test_a_sequence_that_ends() -> None:
    """A camera that Micro-Manager stopped, for example because it was unplugged, is started again."""
    messages: list[str] = []
    with (
        micromanager() as emulator,
        Grabber(emulator.camera(), emulator.settings, notify=messages.append, retry_s=0.0) as grabber,
    ):
        before = take(grabber, 2)[-1]
        cast("Any", grabber._camera)._core.stopSequenceAcquisition()
        while not grabber.counts.reconnects:
            after = take(grabber, 1)[0]
    assert "sequence has ended" in messages[0]
    assert (after.frame_id or 0) > (before.frame_id or 0)


def test_frames_that_wait_in_the_ring_keep_their_times() -> None:
    """Micro-Manager's frames have the times at which they arrived in its ring, also if they are read later, at once."""
    with micromanager() as emulator:
        camera = emulator.camera()
        info = camera.open(CameraSettings(exposure_ms=20.0))
        try:
            core: Any = cast("Any", camera)._core
            while core.getRemainingImageCount() < 6:
                pass
            times = [frame.time_ms_utc for _ in range(6) if (frame := camera.grab(1.0))]
        finally:
            camera.close()
    assert info.device_clock
    assert times[0] is not None
    assert times[-1] is not None
    assert times[-1] - times[0] >= 5 * 20.0 * 0.9
