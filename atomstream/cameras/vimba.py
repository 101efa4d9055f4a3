"""The cameras ``vimba:ID``: Allied Vision, through vmbpy (Vimba X)."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Final

from atomstream.cameras.camera import (
    NO_PIXELS,
    CameraFrame,
    CameraInfo,
    CameraSettings,
    FoundCamera,
    grey,
)
from atomstream.cameras.frame_queue import FrameQueue
from atomstream.cameras.genicam_nodes import GAIN, RATE_NOW, Nodes
from atomstream.cameras.names import chosen, driver
from atomstream.errors import CameraError, CameraLostError

BUFFERS: Final = 32


class Vimba:
    """One Allied Vision camera; ``which`` is its id, or an index from 0."""

    def __init__(self, which: str = "") -> None:
        self.name = f"vimba:{which or 0}"
        self._which = which
        self._vmbpy = driver("vimba", "vmbpy")
        self._frames = FrameQueue()
        self._opened = ExitStack()
        self._camera: Any = None

    @classmethod
    def found(cls) -> list[FoundCamera]:
        """All cameras that Vimba X finds."""
        vmbpy = driver("vimba", "vmbpy")
        try:
            with vmbpy.VmbSystem.get_instance() as system:
                return [
                    FoundCamera(f"vimba:{one.get_id()}", f"{one.get_name()} {one.get_serial()}")
                    for one in system.get_all_cameras()
                ]
        except vmbpy.VmbSystemError as error:
            raise CameraError(f"vimba: {error}") from error
        except vmbpy.VmbTransportLayerError as error:
            raise CameraError(f"vimba: {error}: install Vimba X") from error

    def open(self, settings: CameraSettings) -> CameraInfo:
        """See :class:`atomstream.cameras.Camera`."""
        vmbpy, self._frames = self._vmbpy, FrameQueue()
        try:
            with ExitStack() as stack:
                system = stack.enter_context(vmbpy.VmbSystem.get_instance())
                cameras = list(system.get_all_cameras())
                place = chosen("vimba", self._which, [one.get_id() for one in cameras])
                self._camera = camera = stack.enter_context(cameras[place])
                nodes = Nodes(self.name, lambda name: _Feature(camera, name), "value", self._errors())
                nodes.apply(settings)
                dtype, most = nodes.pixels()
                roi, rate = nodes.region(), nodes.read(*RATE_NOW)
                camera.start_streaming(handler=self._note, buffer_count=BUFFERS)
                stack.callback(camera.stop_streaming)
                self._opened = stack.pop_all()
        except self._errors() as error:
            raise CameraError(f"{self.name}: {error}") from error
        return CameraInfo(
            model=f"{camera.get_name()} {camera.get_serial()}",
            shape=(roi.height, roi.width),
            dtype=dtype,
            fps=rate,
            id_bits=64,
            device_clock=True,
            exposure_ms=nodes.exposure_ms(),
            gain=nodes.read(*GAIN),
            roi=roi,
            max_value=most,
        )

    def grab(self, timeout_s: float) -> CameraFrame | None:
        """See :class:`atomstream.cameras.Camera`."""
        frame = self._frames.get(timeout_s)
        if frame is None and self._camera is not None and not self._is_there():
            raise CameraLostError("The camera was removed.")
        return frame

    def close(self) -> None:
        """See :class:`atomstream.cameras.Camera`."""
        opened, self._opened, self._camera = self._opened, ExitStack(), None
        try:
            opened.close()
        except self._errors() as error:
            raise CameraError(f"{self.name}: {error}") from error

    def _note(self, camera: Any, _stream: Any, frame: Any) -> None:
        """Copy one frame, in vmbpy's thread, before its buffer is queued again."""
        try:
            if frame.get_status() == self._vmbpy.FrameStatus.Complete:
                pixels, problem = grey(self.name, frame.as_numpy_ndarray()), ""
            else:
                pixels, problem = NO_PIXELS, f"status {frame.get_status().name}"
            time_ns = frame.get_timestamp()
            self._frames.put(CameraFrame(pixels, frame.get_id(), time_ns / 1e6 if time_ns else None, problem))
        except Exception as error:  # raised again in the thread that grabs
            self._frames.put(error)
        finally:
            camera.queue_frame(frame)

    def _is_there(self) -> bool:
        try:
            return self._camera.get_id() in {
                one.get_id() for one in self._vmbpy.VmbSystem.get_instance().get_all_cameras()
            }
        except self._errors():
            return False

    def _errors(self) -> tuple[type[Exception], ...]:
        v = self._vmbpy
        return (v.VmbSystemError, v.VmbTransportLayerError, v.VmbCameraError, v.VmbFeatureError, v.VmbTimeout)


class _Feature:
    """A feature of a camera with its value as a property; a name that does not exist raises VmbFeatureError."""

    def __init__(self, camera: Any, name: str) -> None:
        self._feature = camera.get_feature_by_name(name)

    @property
    def value(self) -> Any:
        """The value; of an enumeration its name."""
        found = self._feature.get()
        return found if isinstance(found, (bool, int, float)) else str(found)

    @value.setter
    def value(self, value: Any) -> None:
        self._feature.set(value)
