"""Light that changes all spots alike is not growth, also where the camera adds a large dark level."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.analysis.common_light import CommonLight, outside_of
from atomstream.analysis.illumination import sample_picture
from atomstream.analysis.shapes import Box
from tests.analysis.spot_film import spot_film

T = np.arange(60) * 0.1
WAVE = np.sin(2 * np.pi * 0.4 * T)


def _watched(spot: np.ndarray, light: np.ndarray, dark_level: float) -> str:
    """Return the reason after 6 s; each frame is one block, and the samples are every pixel."""
    frames = spot_film(spot, shape=(60, 80), light=light, dark_level=dark_level, fwhm=(6.6, 3.0), noise=0.2)
    pictures = sample_picture(frames)
    outside = outside_of(Box(40, 25, 5, 9), (60, 80), np.arange(60), np.arange(80))
    common = CommonLight()
    for i in range(len(frames)):
        common.feed((spot * light)[i : i + 1], pictures[i : i + 1], outside)
    return common.reason


@pytest.mark.parametrize("dark_level", [0.0, 20.0, 60.0, 100.0])
@pytest.mark.parametrize("size", [0.05, 0.2])
def test_common_light_is_recognised(dark_level: float, size: float) -> None:
    """A wave of the light is recognised at any dark level."""
    assert _watched(np.ones(60), 1.0 + size * WAVE, dark_level)


@pytest.mark.parametrize("dark_level", [0.0, 60.0])
def test_growth_and_rest_are_no_common_light(dark_level: float) -> None:
    """An oscillation of the spot alone, also with some hum, and constant light give no reason."""
    assert not _watched(0.8 + 0.2 * WAVE, np.ones(60), dark_level)
    assert not _watched(0.8 + 0.2 * WAVE, 1.0 + 0.03 * np.sin(2 * np.pi * 1.3 * T), dark_level)
    assert not _watched(np.ones(60), np.ones(60), dark_level)
