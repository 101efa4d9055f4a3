"""The cameras ``aravis:ID``: GigE Vision and USB3 Vision of any maker, through Aravis.

Aravis and its Python interface (PyGObject) are packages of the operating system, such as ``gir1.2-aravis-0.8`` and
``python3-gi`` of Debian.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import numpy as np

from atomstream.cameras.camera import (
    NO_PIXELS,
    CameraFrame,
    CameraInfo,
    CameraSettings,
    FoundCamera,
    Region,
    grey,
)
from atomstream.cameras.genicam_nodes import depth_of
from atomstream.cameras.names import driver
from atomstream.errors import CameraError, CameraLostError, ConfigError

BUFFERS: Final = 64


class AravisCamera:
    """One camera; ``which`` is an id of Aravis, a serial number or an IP address, and the first camera if empty."""

    def __init__(self, which: str = "") -> None:
        self.name = f"aravis:{which}"
        self._which = which
        self._aravis = _library()
        self._camera: Any = None
        self._stream: Any = None
        self._dtype = np.dtype(np.uint8)
        self._lost = False

    @classmethod
    def found(cls) -> list[FoundCamera]:
        """All cameras that Aravis finds."""
        library = _library()
        library.update_device_list()
        places = range(library.get_n_devices())
        return [
            FoundCamera(f"aravis:{library.get_device_id(one)}", library.get_device_model(one))
            for one in places
        ]

    def open(self, settings: CameraSettings) -> CameraInfo:
        """See :class:`atomstream.cameras.Camera`."""
        library = self._aravis
        with self._errors(), self._or_close():
            library.update_device_list()
            self._camera = camera = library.Camera.new(self._which or None)
            self._apply(settings)
            dtype, most = depth_of(self.name, camera.get_pixel_format_as_string())
            self._dtype, self._lost = np.dtype(dtype), False
            roi = Region(*camera.get_region())
            self._stream = camera.create_stream(None, None)
            camera.get_device().connect("control-lost", self._note_lost)
            for _ in range(BUFFERS):
                self._stream.push_buffer(library.Buffer.new_allocate(camera.get_payload()))
            camera.start_acquisition()
            is_16_bit = camera.is_gv_device() and not self._has_long_ids()
            return CameraInfo(
                model=f"{camera.get_vendor_name()} {camera.get_model_name()} {camera.get_device_serial_number()}",
                shape=(roi.height, roi.width),
                dtype=dtype,
                fps=camera.get_frame_rate() if camera.is_frame_rate_available() else None,
                # The fake camera inside the library counts like a GigE camera.
                id_bits=16 if is_16_bit or (not camera.is_uv_device() and not camera.is_gv_device()) else 64,
                id_first=0 if camera.is_uv_device() else 1,
                device_clock=True,
                exposure_ms=camera.get_exposure_time() / 1e3 if camera.is_exposure_time_available() else None,
                gain=camera.get_gain() if camera.is_gain_available() else None,
                roi=roi,
                max_value=most,
            )

    def grab(self, timeout_s: float) -> CameraFrame | None:
        """See :class:`atomstream.cameras.Camera`. The frame is copied before its buffer is pushed back."""
        if self._lost or self._stream is None:
            raise CameraLostError("The camera does not answer any more.")
        buffer = self._stream.timeout_pop_buffer(int(1e6 * timeout_s))
        if buffer is None:
            return None
        try:
            status = buffer.get_status()
            number, time_ms = buffer.get_frame_id(), buffer.get_timestamp() / 1e6
            if status != self._aravis.BufferStatus.SUCCESS:
                return CameraFrame(NO_PIXELS, number, time_ms or None, problem=f"status {status.value_nick}")
            shape = (buffer.get_image_height(), buffer.get_image_width())
            data = np.frombuffer(buffer.get_data(), np.uint8)[: shape[0] * shape[1] * self._dtype.itemsize]
            return CameraFrame(
                grey(self.name, data.view(self._dtype).reshape(shape)), number, time_ms or None
            )
        finally:
            self._stream.push_buffer(buffer)

    def close(self) -> None:
        """See :class:`atomstream.cameras.Camera`."""
        camera, self._camera, self._stream = self._camera, None, None
        if camera is not None:
            with suppress(_glib_error()):  # a camera that is gone can't be stopped
                camera.stop_acquisition()

    def _apply(self, settings: CameraSettings) -> None:
        camera = self._camera
        try:
            if settings.pixel_format is not None:
                camera.set_pixel_format_from_string(settings.pixel_format)
            if settings.roi is not None:
                camera.set_region(*settings.roi)
            if settings.exposure_ms is not None:
                camera.set_exposure_time(1e3 * settings.exposure_ms)
            if settings.gain is not None:
                camera.set_gain(settings.gain)
            if settings.fps is not None:
                camera.set_frame_rate(settings.fps)
        except _glib_error() as error:
            raise ConfigError(f"{self.name} does not accept a setting: {error}") from error
        if settings.roi is not None and tuple(camera.get_region()) != tuple(settings.roi):
            raise ConfigError(f"{self.name} does not accept roi={tuple(settings.roi)}")

    def _has_long_ids(self) -> bool:
        try:
            return bool(self._camera.get_device().get_boolean_feature_value("GevGVSPExtendedIDMode"))
        except _glib_error():
            return False

    def _note_lost(self, _device: Any) -> None:
        self._lost = True

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except _glib_error() as error:
            raise CameraError(f"{self.name}: {error}") from error

    @contextmanager
    def _or_close(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._camera = self._stream = None
            raise


def _library() -> Any:
    try:
        gi = driver("aravis", "gi")
        gi.require_version("Aravis", "0.8")
        return driver("aravis", "gi.repository.Aravis")
    except (ConfigError, ValueError) as error:
        raise ConfigError(
            f"aravis: cameras need Aravis 0.8 and PyGObject ({error}): install the packages of your operating "
            "system, such as gir1.2-aravis-0.8 and python3-gi"
        ) from error


def _glib_error() -> Any:
    return driver("aravis", "gi.repository.GLib").Error
