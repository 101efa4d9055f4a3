"""Images for browsers: small, 8 bit, equal to the frame; and which frame is shown when."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.protocol import PICTURE_HEADER
from atomstream.server.dashboard.images import (
    MAX_HEIGHT,
    MAX_WIDTH,
    PlaybackClock,
    binned,
    frame_at_azimuth,
    full_scale,
    make_picture,
)


def test_a_small_frame_is_sent_unchanged() -> None:
    """A frame up to the width of the screen is sent without loss, and the bytes match the header."""
    raw = np.arange(48, dtype=np.uint8).reshape(6, 8)
    body = make_picture(7, 1.5, raw).to_bytes()
    assert PICTURE_HEADER.unpack(body[: PICTURE_HEADER.size]) == (1.5, 7, 8, 6, 8, 6, 255)
    np.testing.assert_array_equal(np.frombuffer(body[PICTURE_HEADER.size :], np.uint8).reshape(6, 8), raw)


@pytest.mark.parametrize("shape", [(1024, 1024), (480, 641), (1, 5000), (70000, 3), (3, 2)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_large_frames_are_made_small(shape: tuple[int, int], dtype: str) -> None:
    """No image is wider than requested, and its mean intensity is that of the frame."""
    rng = np.random.default_rng(1)
    raw = rng.integers(0, 200, shape).astype(dtype)
    picture = make_picture(0, 0.0, raw)
    assert picture.pixels.shape[0] <= MAX_HEIGHT
    assert picture.pixels.shape[1] <= MAX_WIDTH
    assert PICTURE_HEADER.unpack(picture.to_bytes()[: PICTURE_HEADER.size])[4:6] == shape[::-1]
    assert picture.full_size == shape
    if min(shape) > 100:
        assert picture.pixels.mean() == pytest.approx(raw.mean() * 255 / picture.level, abs=1.0)


def test_binning_means() -> None:
    """A pixel of the image is the mean of its pixels in the frame."""
    raw = np.array([[0, 4, 8, 9], [4, 4, 8, 8]], dtype=np.uint8)
    np.testing.assert_array_equal(binned(raw, 2), [[3, 8]])


@pytest.mark.parametrize(("top", "level"), [(0, 255), (255, 255), (256, 1023), (4095, 4095), (65535, 65535)])
def test_full_scale_of_deep_cameras(top: int, level: int) -> None:
    """For a 16-bit frame the bit depth of the camera is sent, and full scale becomes 255."""
    raw = np.array([[0, top]], dtype=np.uint16)
    assert full_scale(raw) == level
    assert make_picture(0, 0.0, raw).pixels[0, 1] == (255 if top == level else round(top * 255 / level - 0.5))


def test_the_square_root_keeps_faint_parts() -> None:
    """On request a deep camera's pixels are roots, so that 1 % of full scale has 25 levels; 255 is full scale alone."""
    raw = np.array([[0, 41, 1024, 4094, 4095]], dtype=np.uint16)
    picture = make_picture(0, 0.0, raw, root=True)
    assert picture.pixels.tolist() == [[0, 25, 127, 254, 255]]
    assert picture.level == 4095
    small = np.array([[0, 64, 255]], dtype=np.uint8)
    assert make_picture(0, 0.0, small, root=True).pixels.tolist() == [[0, 64, 255]]


def test_full_scale_does_not_decrease() -> None:
    """A dim frame of a camera that was bright before is shown dim."""
    dim = np.full((2, 2), 100, dtype=np.uint16)
    assert make_picture(0, 0.0, dim, level=1023).pixels.max() == 24


def test_a_chunk_is_played() -> None:
    """Frames that arrived in one chunk are shown one after the other at the frame rate, none twice."""
    player = PlaybackClock(fps=120.0, chunk_size=240)
    assert player.next(0.0, 240) == 239
    shown = [player.next(0.1 * k, 480) for k in range(1, 30)]
    assert shown[:3] == [251, 263, 275]
    assert shown == sorted(shown)
    assert shown[-1] == 479


def test_a_backlog_is_skipped() -> None:
    """When many frames arrive at once, the shown frame is at most one chunk behind the newest."""
    player = PlaybackClock(fps=30.0, chunk_size=60)
    player.next(0.0, 60)
    assert player.next(0.1, 6000) == 5939


@pytest.mark.parametrize("chunk", [12, 24])
def test_playback_is_one_chunk_behind_again_after_a_delay(chunk: int) -> None:
    """After one late chunk the shown frame is soon one chunk behind the newest again, and not for ever further."""
    player, fps, step_s = PlaybackClock(fps=120.0, chunk_size=chunk), 120.0, 0.02
    behind = []
    for k in range(500):
        now_s = k * step_s
        arrived = int((now_s if not 1.0 < now_s < 1.4 else 1.0) * fps) // chunk * chunk
        shown = player.next(now_s, arrived)
        behind.append(arrived - 1 - shown if arrived else 0)
    assert max(behind[70:90]) > chunk  # the late frames arrived together
    assert max(behind[250:]) <= chunk + 0.05 * fps + 1


def test_nothing_stored_nothing_shown() -> None:
    """Before the first frame nothing is shown; playback then starts with the newest."""
    player = PlaybackClock(fps=30.0, chunk_size=60)
    assert player.next(0.0, 0) == -1
    assert player.next(5.0, 60) == 59


@pytest.mark.parametrize("angle", [0.0, 90.0, 359.0])
def test_measured_azimuths_align_the_image(angle: float) -> None:
    """The frame of the last turn whose measured angle is nearest to the azimuth is shown."""
    per_turn = 100.0
    angles = (np.arange(250) * 3.6 + 17.0) % 360.0
    frame = frame_at_azimuth(249, angle, angles, per_turn)
    assert 150 <= frame <= 249
    off = abs((angles[frame] - angle + 180.0) % 360.0 - 180.0)
    assert off <= 1.8


def test_nominal_azimuths_are_used_before() -> None:
    """Without measured angles the set rotation speed is used; never a frame of the future or before the first."""
    none = np.full(10, np.nan)
    frames = [frame_at_azimuth(upto, 90.0, none, 100.0) for upto in (3, 25, 124, 125, 250)]
    assert frames == [0, 25, 25, 125, 225]
