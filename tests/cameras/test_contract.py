"""What every adapter must do, on an emulator that really delivers frames: one suite for all of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from atomstream import RHEEDStreamer
from atomstream.cameras import (
    Camera,
    CameraFeed,
    CameraFrame,
    CameraSettings,
    Grabber,
    Transforms,
    list_cameras,
    open_camera,
)
from atomstream.cameras.names import driver
from atomstream.errors import CameraError, ConfigError
from atomstream.testing import MemoryService
from tests.cameras.emulators import EMULATORS, Emulator

WAIT_S = 60.0


@pytest.fixture(scope="module", params=list(EMULATORS))
def emulator(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    """Each emulator in turn; skipped with the reason where it can't run."""
    with EMULATORS[request.param]() as there:
        yield there


def take(camera: Camera, count: int) -> list[CameraFrame]:
    """The next ``count`` frames; fails if they do not come."""
    frames: list[CameraFrame] = []
    deadline = time.monotonic() + WAIT_S
    while len(frames) < count and time.monotonic() < deadline:
        if (frame := camera.grab(0.5)) is not None:
            frames.append(frame)
    assert len(frames) == count
    return frames


def test_discovery(emulator: Emulator) -> None:
    """Discovery finds it, with a name that opens it; nothing else is imported or fails."""
    found, not_searched = list_cameras([emulator.name.split(":")[0]])
    assert not_searched == {}
    if emulator.listed:
        kind = emulator.name.split(":")[0]
        assert found
        assert all(one.name.split(":")[0] == kind and one.description for one in found)
        assert isinstance(open_camera(found[0].name), Camera)


def test_frames(emulator: Emulator) -> None:
    """Frames are as the camera describes itself, have separate memory, ascending numbers and plausible times."""
    camera = emulator.camera()
    assert camera.name.startswith(emulator.name)
    info = camera.open(emulator.settings)
    try:
        emulator.prepare()
        first = take(camera, 1)[0]
        before = first.pixels.copy()
        frames = [first, *take(camera, 11)]
    finally:
        camera.close()
    camera.close()
    assert np.array_equal(first.pixels, before)  # no driver writes into a frame that was handed over
    assert all(frame.complete for frame in frames)
    if info.shape != (0, 0):  # a watched folder has no frame size yet
        assert {(frame.pixels.shape, str(frame.pixels.dtype)) for frame in frames} == {
            (info.shape, info.dtype)
        }
    assert all(frame.pixels.flags.c_contiguous and frame.pixels.flags.owndata for frame in frames)
    assert len({frame.pixels.ctypes.data for frame in frames}) == len(frames)
    assert max(int(frame.pixels.max()) for frame in frames) <= info.white or info.shape == (0, 0)
    if info.id_bits:
        period = (1 << info.id_bits) - info.id_first
        steps = [((after.frame_id or 0) - (one.frame_id or 0)) % period for one, after in pairwise(frames)]
        assert min(steps) >= 1
    else:
        assert {frame.frame_id for frame in frames} == {None}
    times = [frame.time_ms_utc for frame in frames if frame.time_ms_utc is not None]
    assert times == sorted(times)
    if not info.device_clock:
        assert all(abs(one - 1000.0 * time.time()) < 60_000.0 for one in times)


def test_settings(emulator: Emulator) -> None:
    """After the start the camera reports the settings that were given."""
    wanted = emulator.settings
    camera = emulator.camera()
    info = camera.open(wanted)
    camera.close()
    if wanted.exposure_ms is not None:
        assert info.exposure_ms == pytest.approx(wanted.exposure_ms, rel=0.01)
    if wanted.gain is not None:
        assert info.gain == pytest.approx(wanted.gain, rel=0.01)
    if wanted.fps is not None:
        assert info.fps == pytest.approx(wanted.fps, rel=0.01)
    if wanted.roi is not None:
        assert info.roi == wanted.roi
        assert info.shape == (wanted.roi.height, wanted.roi.width)
    if wanted.pixel_format is not None:
        assert info.dtype == ("uint16" if "16" in wanted.pixel_format else "uint8")


def test_refused_settings_leave_nothing_open(emulator: Emulator) -> None:
    """A setting that the camera does not have, or refuses, is named; the camera can be opened afterwards."""
    for settings in emulator.refused:
        with pytest.raises(ConfigError):
            emulator.camera().open(settings)
    camera = emulator.camera()
    camera.open(CameraSettings())
    camera.close()


def test_a_camera_that_is_not_there(emulator: Emulator) -> None:
    """A name that opens nothing is an error that names it."""
    with pytest.raises((CameraError, ConfigError), match=emulator.name.split(":")[0]):
        open_camera(emulator.absent).open(CameraSettings())


def test_it_can_be_opened_again(emulator: Emulator) -> None:
    """The same object is opened, closed and opened again, as after a lost connection."""
    camera = emulator.camera()
    for _ in range(2):
        camera.open(emulator.settings)
        emulator.prepare()
        assert len(take(camera, 2)) == 2
        camera.close()


def test_each_frame_is_streamed(emulator: Emulator, tmp_path: Path) -> None:
    """Each frame of the camera reaches the service once, unchanged and in order; numbers ascend by one."""
    sent: list[CameraFrame] = []
    with (
        MemoryService() as service,
        RHEEDStreamer(service.api_key, service.url, spool_dir=tmp_path, clock_sync=False) as streamer,
        Grabber(emulator.camera(), emulator.settings) as grabber,
    ):
        emulator.prepare()
        eight_bits = Transforms(levels=(0.0, 65535.0) if emulator.deep else None)
        feed = CameraFeed(grabber, eight_bits, max_frames=40)
        feed.start()
        feed.first_frame()
        data_id = streamer.initialize(50.0, 0.0, 100)

        def push(frame: CameraFrame) -> None:
            streamer.push_frame(data_id, frame.pixels, frame.time_ms_utc, frame.frame_id)
            sent.append(frame)

        feed.connect(push)
        assert sum(feed.progress()) == 40
        streamer.finalize(data_id)
        stored = service.frames(data_id)
    assert np.array_equal(stored, np.stack([frame.pixels for frame in sent]))
    counts = grabber.counts
    assert (counts.frames, counts.incomplete, counts.late, counts.reconnects) == (40, 0, 0, 0)
    if sent[0].frame_id is not None:
        numbers = [frame.frame_id or 0 for frame in sent]
        assert numbers[-1] - numbers[0] == 39 + counts.missing


def test_a_driver_does_not_change_logging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that sets the root logger's level at its import, as pymmcore-plus does, has no effect on the program."""
    (tmp_path / "loud_driver.py").write_text("import logging\nlogging.getLogger().setLevel(1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = logging.getLogger().level
    driver("micromanager", "loud_driver")
    assert logging.getLogger().level == before
