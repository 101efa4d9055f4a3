"""The camera ``file:PATH``: a recording that is played once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atomstream.cameras import CameraFeed, CameraSettings, Grabber, open_camera
from atomstream.errors import CameraEndedError, CameraError, ConfigError

FRAMES = np.random.default_rng(3).integers(0, 60000, (40, 12, 16), dtype=np.uint16)


@pytest.fixture
def name(tmp_path: Path) -> str:
    """The name of the camera."""
    np.save(tmp_path / "growth.npy", FRAMES)
    return f"file:{tmp_path / 'growth.npy'}"


def test_a_recording_is_played_once(name: str) -> None:
    """All frames, in order, in real time, and then the end: no error, and no search for a lost camera."""
    messages: list[str] = []
    for _ in range(2):  # opened again, it begins again
        with Grabber(open_camera(name), CameraSettings(fps=2000.0), notify=messages.append) as grabber:
            frames = list(grabber.frames())
        assert np.array_equal(np.stack([one.pixels for one in frames]), FRAMES)
        assert [one.frame_id for one in frames] == list(range(40))
        assert grabber.info.fps == 2000.0
        assert (grabber.counts.missing, grabber.counts.reconnects) == (0, 0)
    assert messages == [f"{name} has ended: all its frames were delivered."] * 2


def test_a_feed_of_it_ends(name: str) -> None:
    """A stream of it ends with its last frame."""
    with Grabber(open_camera(name), CameraSettings(fps=2000.0), notify=lambda _: None) as grabber:
        feed, received = CameraFeed(grabber), list[int]()
        feed.connect(lambda one: received.append(one.frame_id or 0))
        feed.start()
        assert sum(feed.progress()) == 40
    assert received == list(range(40))


def test_what_can_not_be_played(name: str, tmp_path: Path) -> None:
    """No rate, no file, a setting that a file has not, and no path: each is refused with a sentence."""
    for one, settings, words in (
        (name, CameraSettings(), "does not contain a frame rate"),
        (name, CameraSettings(fps=1.0, gain=2.0), "no setting gain"),
        (f"file:{tmp_path / 'none.npy'}", CameraSettings(fps=1.0), "does not exist"),
    ):
        with pytest.raises(ConfigError, match=words):
            open_camera(one).open(settings)
    with pytest.raises(ConfigError, match="state a path"):
        open_camera("file:")
    with pytest.raises(CameraError, match="is not open"):
        open_camera(name).grab(0.0)
    assert issubclass(CameraEndedError, CameraError)
