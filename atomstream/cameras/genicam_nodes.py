"""Settings of GenICam cameras, by the names of the Standard Features Naming Convention (SFNC 2.7) and older ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from atomstream.cameras.camera import CameraSettings, Region
from atomstream.errors import CameraError, ConfigError

EXPOSURE_US: Final = ("ExposureTime", "ExposureTimeAbs")
GAIN: Final = ("Gain", "GainRaw")
RATE: Final = ("AcquisitionFrameRate", "AcquisitionFrameRateAbs")
RATE_NOW: Final = ("ResultingFrameRate", "ResultingFrameRateAbs", "AcquisitionResultingFrameRate", *RATE)

_DEPTHS: Final = {"8": 255, "10": 1023, "12": 4095, "14": 16383, "16": 65535}


class Nodes:
    """Reads and writes nodes of one camera.

    ``find(name)`` returns a node or None; ``attribute`` is the node's property with its value. Errors of the driver
    are of the class ``errors``.
    """

    def __init__(
        self, camera: str, find: Callable[[str], Any], attribute: str, errors: tuple[type[Exception], ...]
    ) -> None:
        self._camera = camera
        self._find = find
        self._attribute = attribute
        self._errors = errors

    def read(self, *names: str) -> Any:
        """The value of the first of the nodes ``names`` that can be read; None if none can be read."""
        for name in names:
            try:
                node = self._find(name)
                if node is not None:
                    return getattr(node, self._attribute)
            except self._errors:
                continue
        return None

    def write(self, setting: str, value: Any, *names: str) -> None:
        """Write ``value`` to the first of the nodes ``names`` that the camera has.

        Raises:
            ConfigError: the camera has none of them, or refuses the value; the message names ``setting``.
        """
        problem = ""
        for name in names:
            try:
                node = self._find(name)
                if node is None:
                    continue
                kind = type(getattr(node, self._attribute))
                setattr(node, self._attribute, kind(value) if kind in (int, float) else value)
            except self._errors as error:
                problem = problem or f": {' '.join(str(error).split())}"
            else:
                return
        raise ConfigError(f"{self._camera} does not accept {setting}={value}{problem}")

    def apply(self, settings: CameraSettings) -> None:
        """Write the settings that are given.

        Raises:
            ConfigError: as :meth:`write`.
        """
        if settings.pixel_format is not None:
            self.write("pixel_format", settings.pixel_format, "PixelFormat")
        if settings.roi is not None:
            self._write_region(settings.roi)
        if settings.exposure_ms is not None:
            self.write("exposure_ms", 1000.0 * settings.exposure_ms, *EXPOSURE_US)
        if settings.gain is not None:
            self.write("gain", settings.gain, *GAIN)
        if settings.fps is not None:
            if self.read("AcquisitionFrameRateEnable") is False:
                self.write("fps", True, "AcquisitionFrameRateEnable")
            self.write("fps", settings.fps, *RATE)

    def _write_region(self, roi: Region) -> None:
        for name in ("OffsetX", "OffsetY"):  # first to 0: the offset limits the size
            if self.read(name):
                self.write("roi", 0, name)
        values = {"Width": roi.width, "Height": roi.height, "OffsetX": roi.x, "OffsetY": roi.y}
        for name, value in values.items():
            if self.read(name) != value:
                self.write("roi", value, name)

    def exposure_ms(self) -> float | None:
        """The exposure time in ms; None if the camera does not report it."""
        value = self.read(*EXPOSURE_US)
        return None if value is None else float(value) / 1000.0

    def region(self) -> Region:
        """The region of interest in use."""
        x, y, width, height = (self.read(name) for name in ("OffsetX", "OffsetY", "Width", "Height"))
        if not width or not height:
            raise CameraError(f"{self._camera} does not report the size of its frames.")
        return Region(int(x or 0), int(y or 0), int(width), int(height))

    def pixels(self) -> tuple[str, int | None]:
        """The dtype of the frames and their largest value.

        Raises:
            ConfigError: the format is packed: pixels share bytes, so they are not the elements of an array.
        """
        return depth_of(self._camera, str(self.read("PixelFormat")))


def depth_of(camera: str, pixel_format: str) -> tuple[str, int | None]:
    """The dtype and the largest value of a GenICam pixel format (PFNC) such as ``Mono12``.

    Raises:
        ConfigError: a packed format.
    """
    found = re.fullmatch(r"[A-Za-z]+?(8|10|12|14|16)?([pP].*)?", pixel_format)
    if found is None or found[1] is None:
        return "uint8", None
    if found[2] and found[1] != "8":
        raise ConfigError(
            f"{camera} delivers the packed format {pixel_format}: choose an unpacked one with --pixel-format, such "
            f"as Mono{found[1]}"
        )
    return ("uint8" if found[1] == "8" else "uint16"), _DEPTHS[found[1]]
