"""The interface of all cameras: open, take frame after frame, close.

An adapter translates one driver to this interface. Functions that all cameras need are not in the adapters: counters
that wrap, clocks of devices, gaps and a camera that is unplugged are handled by :class:`atomstream.cameras.Grabber`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from atomstream.checks import checked_items, checked_number, checked_text, integer_in_range
from atomstream.errors import CameraError, ConfigError

Pixels: TypeAlias = npt.NDArray[Any]

NO_PIXELS: Pixels = np.empty((0, 0), np.uint8)
"""The pixels of an incomplete frame that the driver does not hand over."""


class Region(NamedTuple):
    """A region of interest in pixels: left column, top row, width and height."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class CameraSettings:
    """Settings that are applied when a camera is opened; a None is not applied.

    Args:
        exposure_ms: exposure time in ms, above 0.
        gain: gain in the camera's own unit (often dB).
        fps: frame rate in 1/s, above 0.
        roi: region of interest on the sensor.
        pixel_format: the driver's name of the pixel format, such as ``"Mono12"``.

    Raises:
        ConfigError: a value out of range.
    """

    exposure_ms: float | None = None
    gain: float | None = None
    fps: float | None = None
    roi: Region | None = None
    pixel_format: str | None = None

    def __post_init__(self) -> None:
        if self.pixel_format is not None:
            checked_text("pixel_format", self.pixel_format)
        for name in ("exposure_ms", "fps"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(checked_number(name, value)) and value > 0):
                raise ConfigError(f"{name} is {value}; it must be finite and above 0")
        if self.gain is not None and not math.isfinite(checked_number("gain", self.gain)):
            raise ConfigError(f"gain is {self.gain}; it must be finite")
        if self.roi is not None:
            region = checked_items("roi", self.roi, 4, "a Region (x, y, width, height)")
            for name, value in zip(Region._fields, region, strict=True):
                integer_in_range(f"roi {name}", value, -(1 << 31), 1 << 31)
        if self.roi is not None and (min(self.roi[:2]) < 0 or min(self.roi[2:]) < 1):
            raise ConfigError(
                f"roi is {tuple(self.roi)}; it is x, y, width, height in pixels, width and height above 0"
            )


@dataclass(frozen=True, slots=True)
class CameraInfo:
    """Description and present settings of an open camera.

    Args:
        model: name for people, with maker and serial number if the driver has them.
        shape: (H, W) of the frames.
        dtype: ``"uint8"`` or ``"uint16"``.
        fps: frame rate in 1/s that the driver states. None: not known, and the camera may pause.
        id_bits: width of the frame counter in bits: after 2**id_bits - 1 it goes on at ``id_first``. 0: no counter.
        id_first: the number after the wrap; GigE Vision with 16 bits never uses 0.
        device_clock: True if the frames' times are those of a clock in the camera, whose zero is not known.
        exposure_ms, gain, roi: the values in use; None where the camera has no such setting.
        max_value: the largest value of a pixel, such as 4095 for 12 bits; None: that of the dtype.
    """

    model: str
    shape: tuple[int, int]
    dtype: str = "uint8"
    fps: float | None = None
    id_bits: int = 0
    id_first: int = 0
    device_clock: bool = False
    exposure_ms: float | None = None
    gain: float | None = None
    roi: Region | None = None
    max_value: int | None = None

    @property
    def white(self) -> int:
        """The value of a saturated pixel."""
        return self.max_value if self.max_value is not None else int(np.iinfo(self.dtype).max)


@dataclass(frozen=True, slots=True, eq=False)
class CameraFrame:
    """One frame as a camera delivers it."""

    pixels: Pixels
    """(H, W), uint8 or uint16; a copy, so a driver that reuses its buffers can't change it."""
    frame_id: int | None = None
    """The camera's counter, which also counts frames that were dropped; None if it has none."""
    time_ms_utc: float | None = None
    """When the frame was captured, in UTC milliseconds, or in ms of the camera's own clock
    (:attr:`CameraInfo.device_clock`); None: not known."""
    problem: str = ""
    """Why the frame is not complete, such as missing packets; empty if it is complete."""

    @property
    def complete(self) -> bool:
        """Whether every pixel is from this exposure."""
        return not self.problem


@runtime_checkable
class Camera(Protocol):
    """One camera. Its methods are called by one thread at a time."""

    @property
    def name(self) -> str:
        """The name that opens it, such as ``basler:0``."""

    def open(self, settings: CameraSettings) -> CameraInfo:
        """Open the camera, set it and start it. A camera that was closed, or lost, can be opened again.

        Raises:
            CameraError: it is not there, used by another program, or does not work.
            ConfigError: it does not have one of the settings, or refuses the value. Nothing is left open.
        """

    def grab(self, timeout_s: float) -> CameraFrame | None:
        """Return the next frame, in the order of exposure; None if there is none within ``timeout_s`` seconds.

        Raises:
            CameraLostError: the camera was unplugged or switched off.
            CameraEndedError: it is a recording, and all its frames were delivered.
            CameraError: the driver failed in another way.
        """

    def close(self) -> None:
        """Stop and release the camera. May be called repeatedly, also if the camera is not open."""


class FoundCamera(NamedTuple):
    """A camera that discovery has found: the name that opens it, and what it is."""

    name: str
    description: str


def refuse_settings(name: str, settings: CameraSettings, *supported: str) -> None:
    """Raise ConfigError if a setting is given that is not among ``supported``."""
    for field in fields(settings):
        if field.name not in supported and getattr(settings, field.name) is not None:
            raise ConfigError(f"{name} has no setting {field.name}: leave it out")


def grey(name: str, pixels: Pixels) -> Pixels:
    """Return a C-contiguous copy (H, W) of a driver's picture, uint8 or uint16. A colour one becomes grey.

    ``pixels`` is (H, W), (H, W, 1) or (H, W, 3 or 4) with blue first or red first. The grey value is the mean of the
    three colours, which is exact for the grey pictures that many drivers deliver as colour.

    Raises:
        CameraError: another shape or dtype.
    """
    if pixels.dtype.kind != "u" or pixels.dtype.itemsize > 2:
        raise CameraError(f"{name} delivers {pixels.dtype} pixels; uint8 and uint16 can be streamed")
    native = pixels.dtype.newbyteorder("=")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4):
        mean = pixels[..., :3].astype(np.uint32).sum(axis=2)
        averaged: Pixels = ((mean + 1) // 3).astype(native)
        return averaged
    if pixels.ndim != 2:
        raise CameraError(f"{name} delivers frames of the shape {pixels.shape}; (H, W) is needed")
    return np.array(pixels, dtype=native, order="C", copy=True)
