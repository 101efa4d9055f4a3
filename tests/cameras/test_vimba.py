"""Allied Vision: the adapter against vmbpy's own classes, with a fake system in place of the driver."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from atomstream.cameras import CameraSettings, Grabber, Region, list_cameras, open_camera
from atomstream.errors import CameraError, CameraLostError, ConfigError

vmbpy = pytest.importorskip("vmbpy", reason="the package vmbpy is not installed")


class FakeFrame:
    """A frame in a buffer of the driver, which the driver writes again after ``queue_frame``."""

    def __init__(self, height: int, width: int) -> None:
        self.buffer = (ctypes.c_uint8 * (height * width))()
        self.shape = (height, width)
        self.number = 0
        self.status = vmbpy.FrameStatus.Complete

    def get_status(self) -> Any:
        return self.status

    def as_numpy_ndarray(self) -> Any:
        return np.frombuffer(self.buffer, np.uint8).reshape(*self.shape, 1)

    def get_id(self) -> int:
        return self.number

    def get_timestamp(self) -> int:
        return 10_000_000 * (self.number + 1)


class FakeFeature:
    """A feature with a value and a largest value."""

    def __init__(self, value: Any, most: float = 1e9) -> None:
        self.value, self.most = value, most

    def get(self) -> Any:
        return self.value

    def set(self, value: Any) -> None:
        if not isinstance(value, type(self.value)) or (not isinstance(value, str) and value > self.most):
            raise vmbpy.VmbFeatureError(f"Invalid value {value}")
        self.value = value


class FakeCamera:
    """Streams frames whose pixels are their number, from a thread, with two buffers that are used in turn."""

    def __init__(self, frames: int) -> None:
        self.features = {
            "Width": FakeFeature(32, 640),
            "Height": FakeFeature(24, 480),
            "OffsetX": FakeFeature(0),
            "OffsetY": FakeFeature(0),
            "PixelFormat": FakeFeature("Mono8"),
            "ExposureTime": FakeFeature(5000.0, 1e6),
            "Gain": FakeFeature(0.0, 24.0),
            "AcquisitionFrameRateEnable": FakeFeature(False),
            "AcquisitionFrameRate": FakeFeature(30.0, 500.0),
        }
        self._frames = frames
        self.is_open = False
        self.queued = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def get_id(self) -> str:
        return "DEV_1AB22C000001"

    def get_name(self) -> str:
        return "Allied Vision Alvium"

    def get_serial(self) -> str:
        return "01ABC"

    def get_feature_by_name(self, name: str) -> FakeFeature:
        if name not in self.features:
            raise vmbpy.VmbFeatureError(f"Feature '{name}' not found.")
        return self.features[name]

    def __enter__(self) -> FakeCamera:
        self.is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open = False

    def start_streaming(self, handler: Callable[[Any, Any, Any], None], buffer_count: int) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._stream, args=(handler,), name="vmbpy")
        self._thread.start()

    def stop_streaming(self) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join()

    def queue_frame(self, frame: FakeFrame) -> None:
        ctypes.memset(frame.buffer, 255, len(frame.buffer))
        self.queued += 1

    def _stream(self, handler: Callable[[Any, Any, Any], None]) -> None:
        height, width = self.features["Height"].value, self.features["Width"].value
        buffers = [FakeFrame(height, width) for _ in range(2)]
        for number in range(self._frames):
            frame = buffers[number % 2]
            frame.number = number
            frame.status = vmbpy.FrameStatus.Incomplete if number == 3 else vmbpy.FrameStatus.Complete
            ctypes.memset(frame.buffer, number, len(frame.buffer))
            handler(self, None, frame)
            if self._stop.is_set():
                return


class FakeSystem:
    """Stands for the one ``VmbSystem``."""

    def __init__(self) -> None:
        self.cameras = [FakeCamera(12)]

    def __enter__(self) -> FakeSystem:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def get_all_cameras(self) -> tuple[FakeCamera, ...]:
        return tuple(self.cameras)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> FakeSystem:
    """A system with one camera."""
    fake = FakeSystem()
    monkeypatch.setattr(vmbpy.VmbSystem, "get_instance", lambda: fake)
    return fake


def test_frames_are_copied_before_their_buffer_is_used_again(system: FakeSystem) -> None:
    """Each complete frame arrives with its own pixels; the incomplete one is reported and left out; buffers return to
    the driver.
    """
    settings = CameraSettings(
        exposure_ms=2.0, gain=6.0, fps=100.0, roi=Region(4, 2, 16, 8), pixel_format="Mono8"
    )
    messages: list[str] = []
    with Grabber(open_camera("vimba:DEV_1AB22C000001"), settings, notify=messages.append) as grabber:
        frames = [frame for _, frame in zip(range(11), grabber.frames(), strict=False)]
        info = grabber.info
    assert [int(frame.pixels.max()) for frame in frames] == [0, 1, 2, *range(4, 12)]
    assert [frame.frame_id for frame in frames] == [0, 1, 2, *range(4, 12)]
    assert {frame.pixels.shape for frame in frames} == {(8, 16)}
    assert grabber.counts.incomplete == 1
    assert "Incomplete" in messages[0]
    assert system.cameras[0].queued == 12
    assert (info.exposure_ms, info.gain, info.fps, info.roi) == (2.0, 6.0, 100.0, Region(4, 2, 16, 8))
    assert system.cameras[0].features["AcquisitionFrameRateEnable"].value is True
    assert not system.cameras[0].is_open


def test_discovery(system: FakeSystem) -> None:
    found, not_searched = list_cameras(["vimba"])
    assert [one.name for one in found] == ["vimba:DEV_1AB22C000001"]
    assert not_searched == {}


@pytest.mark.parametrize(
    "settings",
    [
        CameraSettings(gain=100.0),
        CameraSettings(roi=Region(0, 0, 999, 8)),
        CameraSettings(exposure_ms=1e9),
    ],
)
def test_refused_settings_close_the_camera(system: FakeSystem, settings: CameraSettings) -> None:
    with pytest.raises(ConfigError, match="vimba:0 does not accept"):
        open_camera("vimba:0").open(settings)
    assert not system.cameras[0].is_open


def test_a_camera_that_is_removed(system: FakeSystem) -> None:
    """A camera that Vimba does not list any more is lost, after its last frames."""
    camera = open_camera("vimba:")
    camera.open(CameraSettings())
    for _ in range(12):
        assert camera.grab(5.0) is not None
    assert camera.grab(0.0) is None
    removed = system.cameras.pop()
    with pytest.raises(CameraLostError, match="removed"):
        camera.grab(0.0)
    camera.close()
    assert not removed.is_open
    with pytest.raises(CameraError, match="found: none"):
        camera.open(CameraSettings())


def test_without_vimba_x() -> None:
    """The wheel alone has no transport layers: discovery states it and what to install."""
    _, not_searched = list_cameras(["vimba"])
    assert "install Vimba X" in not_searched["vimba"]
