"""The cameras ``basler:SERIAL``: Basler, through pypylon, also the emulator of pylon (``PYLON_CAMEMU=1``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from atomstream.cameras.camera import NO_PIXELS, CameraFrame, CameraInfo, CameraSettings, FoundCamera, grey
from atomstream.cameras.genicam_nodes import GAIN, RATE_NOW, Nodes
from atomstream.cameras.names import chosen, driver
from atomstream.errors import CameraError, CameraLostError

BUFFERS: Final = 64
"""Buffers of the driver: at 120 frames per second they bridge half a second."""


class Basler:
    """One Basler camera; ``which`` is a serial number or an index from 0."""

    def __init__(self, which: str = "") -> None:
        self.name = f"basler:{which or 0}"
        self._which = which
        self._pylon = driver("basler", "pypylon.pylon")
        self._error: type[Exception] = driver("basler", "pypylon.genicam").GenericException
        self._camera: Any = None
        self._ticks_per_ms = 1e6

    @classmethod
    def found(cls) -> list[FoundCamera]:
        """All Basler cameras that pylon finds."""
        devices = driver("basler", "pypylon.pylon").TlFactory.GetInstance().EnumerateDevices()
        return [FoundCamera(f"basler:{one.GetSerialNumber()}", one.GetFriendlyName()) for one in devices]

    def open(self, settings: CameraSettings) -> CameraInfo:
        """See :class:`atomstream.cameras.Camera`."""
        factory = self._pylon.TlFactory.GetInstance()
        with self._errors(), self._or_close():
            devices = factory.EnumerateDevices()
            device = devices[chosen("basler", self._which, [one.GetSerialNumber() for one in devices])]
            self._camera = camera = self._pylon.InstantCamera(factory.CreateDevice(device))
            camera.Open()
            nodes = Nodes(self.name, camera.GetNodeMap().GetNode, "Value", (self._error, AttributeError))
            nodes.apply(settings)
            dtype, most = nodes.pixels()
            is_gige = device.GetDeviceClass() == "BaslerGigE"
            self._ticks_per_ms = float(nodes.read("GevTimestampTickFrequency") or 1e9) / 1e3
            roi, rate = nodes.region(), nodes.read(*RATE_NOW)
            camera.MaxNumBuffer.Value = BUFFERS
            camera.OutputQueueSize.Value = BUFFERS
            camera.StartGrabbing(self._pylon.GrabStrategy_OneByOne)
        return CameraInfo(
            model=f"{device.GetVendorName()} {device.GetModelName()} {device.GetSerialNumber()}",
            shape=(roi.height, roi.width),
            dtype=dtype,
            fps=rate,
            id_bits=16 if is_gige and nodes.read("GevGVSPExtendedIDMode") != "On" else 64,
            id_first=int(is_gige),
            device_clock=True,
            exposure_ms=nodes.exposure_ms(),
            gain=nodes.read(*GAIN),
            roi=roi,
            max_value=most,
        )

    def grab(self, timeout_s: float) -> CameraFrame | None:
        """See :class:`atomstream.cameras.Camera`. The frame is copied before its buffer is released."""
        with self._errors():
            if self._camera is None or self._camera.IsCameraDeviceRemoved():
                raise CameraLostError("The camera was removed.")
            result = self._camera.RetrieveResult(int(1000 * timeout_s), self._pylon.TimeoutHandling_Return)
            if not result.IsValid():
                return None
            try:
                time_ms = result.TimeStamp / self._ticks_per_ms if result.TimeStamp else None
                if not result.GrabSucceeded():
                    return CameraFrame(NO_PIXELS, result.BlockID, time_ms, problem=result.ErrorDescription)
                return CameraFrame(grey(self.name, result.GetArray()), result.BlockID, time_ms)
            finally:
                result.Release()

    def close(self) -> None:
        """See :class:`atomstream.cameras.Camera`."""
        camera, self._camera = self._camera, None
        if camera is not None:
            with self._errors():
                camera.Close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            text = " ".join(str(error).split())
            camera = self._camera
            if camera is not None and camera.IsPylonDeviceAttached() and camera.IsCameraDeviceRemoved():
                raise CameraLostError(f"The camera was removed: {text}") from error
            raise CameraError(f"{self.name}: {text}") from error

    @contextmanager
    def _or_close(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            camera, self._camera = self._camera, None
            if camera is not None:
                camera.Close()
            raise
