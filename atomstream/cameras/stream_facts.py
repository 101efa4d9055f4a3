"""What a stream of a camera states about it: the frame rate, and how the frames are recorded."""

from __future__ import annotations

from typing import Final

from atomstream.cameras.camera import CameraInfo
from atomstream.cameras.transforms import Transforms

RATE_TOLERANCE: Final = 0.05
"""Largest relative difference between stated and measured rate. If they differ by more, the stream gets the measured
one."""


def stream_rate(stated: float | None, given: float | None, measured: float | None) -> float | None:
    """The frame rate of a stream in 1/s; None if nothing is known.

    ``stated`` is the rate that the camera states; it is used if ``measured`` agrees with it. If there is none, the
    result is ``given``, the rate that the user has set, and if that is None too, ``measured``. Each is None if it is
    not known.
    """
    if stated is None:
        return given if given is not None else _rounded(measured)
    if measured is None or abs(measured / stated - 1.0) <= RATE_TOLERANCE:
        return stated
    return _rounded(measured)


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 3)


def recording_attributes(name: str, info: CameraInfo, transforms: Transforms) -> dict[str, object]:
    """How the frames of the camera ``name`` are recorded, for the stream's attributes; without what is not known."""
    found = {
        "camera": name,
        "camera_model": info.model,
        "exposure_ms": info.exposure_ms,
        "gain": info.gain,
        "roi_x_y_width_height": None if info.roi is None else list(info.roi),
        "stated_fps": info.fps,
        "max_value": info.max_value,
    }
    return {key: value for key, value in found.items() if value is not None} | transforms.attributes()
