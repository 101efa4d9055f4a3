"""The live picture for the page: small enough for a browser, with saturated pixels marked, and how it is exposed."""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np

from atomstream.cameras import CameraFrame
from atomstream.cameras.camera import Pixels
from atomstream.cameras.preview import exposure_of

MAX_SIDE: Final = 800
"""Largest width and height of the picture in pixels; a larger frame is shrunk by whole factors."""

_HEADER: Final = struct.Struct("<dIIIII4x")
"""Header: time in UTC s, frame number, width and height of the picture, width and height of the frame."""

SATURATED: Final = 255
"""Grey level of saturated pixels. All other pixels have at most 254."""


def encoded(frame: CameraFrame, white: int) -> bytes:
    """A frame as the page gets it: a header of 32 bytes, then one byte for each pixel."""
    pixels = frame.pixels
    height, width = pixels.shape
    factor = max(1, -(-max(height, width) // MAX_SIDE))
    saturated = pixels >= white
    scaled = _shrunk(pixels, factor).astype(np.float32) * (254.0 / max(1, white))
    grey = np.minimum(scaled, 254.0).astype(np.uint8)
    # A block with one saturated pixel is marked: in the mean of the block it would disappear.
    grey[_any(saturated, factor)] = SATURATED
    seconds = (frame.time_ms_utc or 0.0) / 1000.0
    number = (frame.frame_id or 0) & 0xFFFFFFFF
    head = _HEADER.pack(seconds, number, grey.shape[1], grey.shape[0], width, height)
    return b"".join((head, grey.tobytes()))


def exposure(frame: CameraFrame, white: int) -> dict[str, Any]:
    """How a frame is exposed: extreme values, mean, share of saturated pixels, histogram and advice."""
    found = exposure_of(frame.pixels, white)
    return {
        "minimum": found.minimum,
        "maximum": found.maximum,
        "mean": found.mean,
        "white": white,
        "saturated": found.saturated,
        "histogram": [int(count) for count in found.histogram],
        "advice": found.advice,
    }


def _blocks(pixels: Pixels, factor: int) -> Pixels:
    height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
    return pixels[: height * factor, : width * factor].reshape(height, factor, width, factor)


def _shrunk(pixels: Pixels, factor: int) -> Pixels:
    if factor == 1:
        return pixels
    mean: Pixels = _blocks(pixels, factor).mean(axis=(1, 3), dtype=np.float32)
    return mean


def _any(mask: Pixels, factor: int) -> Pixels:
    if factor == 1:
        return mask
    return np.asarray(_blocks(mask, factor).any(axis=(1, 3)))
