"""Distinguishes one picture with samples per pixel, (H, W, samples), from frames (N, H, W): both have three axes.

Cameras and OpenCV deliver (H, W, 1) and (H, W, 3). Taken as (N, H, W), such a picture would become H frames that
are 1 to 4 pixels wide, without any error. Frames of RHEED are never so narrow, so the shape is enough to decide.
"""

from __future__ import annotations

from typing import Final

_SAMPLES: Final = (1, 2, 3, 4)
"""Samples per pixel of grey, grey with opacity, colour, and colour with opacity."""

_SMALLEST: Final = 8
"""Smallest side in pixels for which pictures and frames are distinguished. Smaller arrays, as in tests, may be both."""


def is_one_picture(shape: tuple[int, ...]) -> bool:
    """Return True if ``shape`` is that of one picture (H, W, samples), and not of frames (N, H, W)."""
    return len(shape) == 3 and shape[2] in _SAMPLES and min(shape[:2]) >= _SMALLEST
