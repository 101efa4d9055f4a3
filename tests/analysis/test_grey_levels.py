"""Clipped sensors and inverted greys are recognised."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.analysis import Analyzer, Box
from atomstream.analysis.grey_levels import ClipDetector, inverted, white_level
from atomstream.analysis.pattern import is_inverted
from tests.analysis.spot_film import spot_film


def _film(peak: float, full: int, clip: int, count: int = 6) -> np.ndarray:
    """Frames of a spot of height ``peak`` x ``full`` from a sensor that clips at ``clip``."""
    y, x = np.mgrid[:40, :40]
    spot = peak * full * np.exp(-(((y - 20) / 8.0) ** 2) - ((x - 20) / 5.0) ** 2) + 0.05 * full
    noise = np.random.default_rng(5).normal(0, 0.01 * full, (count, 40, 40))
    frames = np.clip(spot * (1 + 0 * noise) + noise, 0, clip)
    whole: np.ndarray = np.rint(frames).astype(np.uint8 if full < 256 else np.uint16)
    return whole


@pytest.mark.parametrize(
    ("full", "clip"),
    [(255, 255), (255, 200), (1023, 1023), (4095, 4095), (4095, 4000), (16383, 16383), (65535, 65520), (65535, 50000)],
)  # fmt: skip
def test_the_clip_level_is_recognised_when_it_appears(full: int, clip: int) -> None:
    """The level is the largest grey level until the spot is clipped, and the clip level from that block on."""
    detector = ClipDetector.for_frames(_film(0.3, full, clip))
    for peak, level in ((0.3, detector.maximum), (0.6, detector.maximum), (1.2, clip), (0.6, clip)):
        detector.add(_film(peak, full, clip))
        assert detector.end_block() == level


def test_clipping_is_recognised_at_one_frame_per_block() -> None:
    """A slow camera has one frame in a block of 0.1 s: two successive clipped frames show the clip level."""
    detector, levels = ClipDetector.for_frames(_film(0.3, 4095, 4000)), []
    for peak in (0.3, 0.3, 1.2, 1.2, 0.3, 1.2):
        detector.add(_film(peak, 4095, 4000, 1))
        levels.append(detector.end_block())
    assert levels == [65535] * 3 + [4000] * 3


@pytest.mark.parametrize("fps", [1.0, 8.0, 14.0, 30.0])
def test_the_saturated_share_of_a_slow_camera(fps: float) -> None:
    """A spot that a 12-bit camera clips is reported as saturated at any frame rate."""
    frames = np.minimum(spot_film(np.ones(40), shape=(60, 80), peak=200.0, fwhm=(12.0, 6.0)), 150)
    batch = Analyzer(fps).feed(0, frames.astype(np.uint16) * np.uint16(27))
    assert batch.values["saturated_fraction"].value > 0.05


@pytest.mark.parametrize("full", [255, 1023, 65535])
@pytest.mark.parametrize("peak", [0.02, 0.1, 0.5, 0.9])
def test_a_spot_below_the_clip_level_is_not_clipped(full: int, peak: float) -> None:
    """Dim and bright spots, also without noise and with few grey levels, are not taken for clipped ones."""
    for frames in (_film(peak, full, full), np.repeat(_film(peak, full, full, 1), 6, axis=0)):
        detector = ClipDetector.for_frames(frames)
        detector.add(frames)
        assert detector.end_block() == detector.maximum


def test_a_drawing_is_not_clipped() -> None:
    """A flat square on a flat background is not a clipped spot."""
    frames = np.full((6, 40, 40), 30, np.uint8)
    frames[:, 15:25, 15:25] = 130
    detector = ClipDetector.for_frames(frames)
    detector.add(frames)
    assert detector.end_block() == 255


def test_a_higher_value_takes_the_level_back() -> None:
    """A pixel above the recognised level shows that it was wrong."""
    detector = ClipDetector.for_frames(_film(1.0, 4095, 4095))
    detector.add(_film(1.2, 4095, 3000))
    assert detector.end_block() == 3000
    detector.add(_film(0.9, 4095, 4095))
    assert detector.end_block() == 65535


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_inverted_greys_are_inverted_back(dtype: type) -> None:
    """Dark spots on a bright background are found; intensity and position are those of the original film."""
    film: np.ndarray = spot_film(1.0 - 0.3 * np.sin(np.arange(30)), shape=(96, 128)).astype(dtype)
    scaled = film * dtype(16) if dtype is np.uint16 else film
    white = white_level(scaled)
    turned = Analyzer(30.0).feed(0, inverted(scaled, white))
    original = Analyzer(30.0).feed(0, scaled)
    assert [e.kind for e in turned.events] == ["inverted"]
    assert [e.kind for e in original.events] == []
    for name in ("specular_intensity", "specular_x", "specular_y"):
        np.testing.assert_allclose(turned.frames[name], original.frames[name], rtol=1e-6)


def test_ordinary_pictures_are_not_inverted() -> None:
    """A dim spot, a spot on a bright screen, an overexposed picture, noise and a black frame are not inverted."""
    random = np.random.default_rng(3)
    for peak, dark_level, light in ((10.0, 0.0, 1.0), (60.0, 150.0, 1.0), (150.0, 0.0, 3.0)):
        frames = spot_film([1.0], shape=(96, 128), peak=peak, dark_level=dark_level, light=light)
        assert not is_inverted(frames[0].astype(np.float64))
    assert not is_inverted(random.normal(100, 5, (96, 128)))
    assert not is_inverted(np.zeros((96, 128)))


@pytest.mark.parametrize(("full", "shift"), [(4095, 0), (1023, 0), (4095, 4), (255, 0)])
def test_saturated_pixels_of_each_region_and_the_picture(full: int, shift: int) -> None:
    """Where another spot than the specular one clips, its box and the picture show it, at the sensor's own level."""
    film = np.minimum(spot_film(np.ones(60), shape=(96, 128), peak=60.0, fwhm=(8.0, 4.0)), 200) * (
        full / 255.0
    )
    rows, columns = np.mgrid[:96, :128]
    film = film + 1.6 * full * np.exp(-(((rows - 80) / 4.0) ** 2) - ((columns - 20) / 4.0) ** 2)
    raw = np.minimum(np.rint(film), full).astype(np.uint8 if full == 255 else np.uint16) << shift
    engine = Analyzer(20.0)
    specular = Box(63.5, 47.5, 6.0, 10.0, "specular")
    engine.set_regions([specular, Box(20.0, 80.0, 9.0, 9.0, "arc"), Box(100.0, 20.0, 9.0, 9.0, "dark")])
    values = engine.feed(0, raw).values
    true = float((raw[-1] == full << shift).mean())
    assert true > 0.001
    assert values["clip_level"].value == full << shift
    assert values["clip_level"].note == (
        "the largest value of uint8" if full == 255 else "seen in the pictures"
    )
    assert values["saturated_picture"].value == pytest.approx(true, rel=0.05)
    assert values["saturated:arc"].value == pytest.approx(
        float((raw[-1, 76:85, 16:25] == full << shift).mean()),
        rel=0.05,  # the box
    )
    assert (values["saturated_fraction"].value, values["saturated:dark"].value) == (0.0, 0.0)
    engine.set_regions([specular])
    assert "saturated:arc" not in engine.feed(60, raw).values
