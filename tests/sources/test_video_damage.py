"""Damaged videos: each whole frame is delivered, none that FFmpeg has concealed, and the gap is reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from atomstream.errors import ConfigError
from atomstream.sources import DamagedSourceError, open_source
from tests.sources.source_files import FRAMES, av, write_video

RATE = 20
NOISE = np.random.default_rng(5).integers(0, 40, (24, 48, 64)).astype(np.uint8)
FILM = np.ascontiguousarray(np.resize(FRAMES, (24, 48, 64)) // 2 + NOISE)
GROUP = {"g": "6"}

CODECS: dict[str, dict[str, Any]] = {
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "png.mov": {"codec": "png"},
    "ffv1.mkv": {"codec": "ffv1", "options": {"level": "3", "slicecrc": "1", **GROUP}},
    "h264.mp4": {"codec": "libx264", "pix_fmt": "yuv420p", "options": {"bf": "2", **GROUP}},
    "mpeg4.avi": {"codec": "mpeg4", "pix_fmt": "yuv420p", "options": GROUP},
    "raw.avi": {"codec": "rawvideo"},
    "raw.y4m": {"codec": "rawvideo"},
}


def film(path: Path, kind: str) -> None:
    write_video(path / kind, FILM, list(range(24)), rate=RATE, **CODECS[kind])


def packets(path: Path) -> list[tuple[int, int]]:
    """Place and size of each packet in the file."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def whole_film(path: Path) -> npt.NDArray[Any]:
    return np.concatenate([chunk.frames for chunk in open_source(path).chunks(5)])


def until_damage(path: Path) -> tuple[npt.NDArray[Any], DamagedSourceError]:
    """Read up to the damage."""
    frames: list[npt.NDArray[Any]] = []
    with pytest.raises(DamagedSourceError) as caught:
        frames.extend(chunk.frames for chunk in open_source(path, skip_damaged=False).chunks(5))
    assert all(len(block) == 5 for block in frames[:-1])
    return np.concatenate(frames), caught.value


def all_that_is_whole(
    path: Path,
) -> tuple[dict[int, npt.NDArray[Any]], list[tuple[int, int | None]], dict[int, float]]:
    """Frames and times by their number, and the gaps, with skip_damaged."""
    source = open_source(path, skip_damaged=True)
    frames, times = {}, {}
    for chunk in source.chunks(5):
        assert chunk.indices is not None
        assert chunk.times_s is not None
        frames.update(zip(chunk.indices.tolist(), chunk.frames, strict=True))
        times.update(zip(chunk.indices.tolist(), chunk.times_s.tolist(), strict=True))
    return frames, [(gap.frame, gap.frames) for gap in source.gaps], times


@pytest.mark.parametrize("kind", ["mjpeg.avi", "png.mov", "ffv1.mkv", "h264.mp4", "mpeg4.avi"])
def test_one_damaged_packet(tmp_path: Path, kind: str) -> None:
    """A packet is overwritten to its end: nothing of it is delivered, nor of what is predicted from it."""
    film(tmp_path, kind)
    good = whole_film(tmp_path / kind)
    assert len(good) == 24
    content = bytearray((tmp_path / kind).read_bytes())
    place, size = packets(tmp_path / kind)[9]
    # H.264 has no checksums: what only changes its coefficients can't be noticed, so its headers are overwritten too.
    begin = 8 if kind == "h264.mp4" else size // 2
    content[place + begin : place + size - 4] = bytes(size - begin - 4)
    (tmp_path / kind).write_bytes(content)
    frames, error = until_damage(tmp_path / kind)
    np.testing.assert_array_equal(frames, good[: len(frames)])
    assert error.gap.frame == len(frames)
    assert kind in str(error)
    assert "--skip-damaged" in str(error)
    found, gaps, times = all_that_is_whole(tmp_path / kind)
    for number, frame in found.items():
        np.testing.assert_array_equal(frame, good[number], err_msg=f"frame {number}")
        assert times[number] == pytest.approx(number / RATE, abs=1e-3)
    missing = [number for number in range(24) if number not in found]
    assert gaps == [(missing[0], len(missing))]
    if kind in ("mjpeg.avi", "png.mov"):  # each frame is coded without reference to others
        assert missing == [9]
    assert missing[0] <= 9
    assert len(missing) <= 8


@pytest.mark.parametrize("kind", ["mjpeg.avi", "ffv1.mkv", "mpeg4.avi", "raw.avi", "raw.y4m"])
@pytest.mark.parametrize("part", [0.0, 0.5])
def test_a_video_cut_off(tmp_path: Path, kind: str, part: float) -> None:
    """A file that ends between two frames, or within one: the whole frames, and how many are missing."""
    film(tmp_path, kind)
    good = whole_film(tmp_path / kind)
    place, size = packets(tmp_path / kind)[9]
    (tmp_path / kind).write_bytes((tmp_path / kind).read_bytes()[: place + int(part * size)])
    if kind == "raw.y4m" and not part:  # such a file states nothing about its length
        np.testing.assert_array_equal(whole_film(tmp_path / kind), good[:9])
        return
    frames, error = until_damage(tmp_path / kind)
    np.testing.assert_array_equal(frames, good[:9])
    assert error.gap.frame == 9
    assert error.gap.frames == (1 if kind == "raw.y4m" else 15)
    found, gaps, _ = all_that_is_whole(tmp_path / kind)
    assert list(found) == list(range(9))
    assert gaps == [(9, error.gap.frames)]


def test_frames_that_a_camera_dropped_are_no_damage(tmp_path: Path) -> None:
    """An AVI stores a dropped frame as an empty chunk; such a file is complete."""
    film(tmp_path, "raw.avi")
    content = bytearray((tmp_path / "raw.avi").read_bytes())
    place, size = packets(tmp_path / "raw.avi")[9]
    content[place + 4 : place + 8] = bytes(4)
    del content[content.index(b"idx1") :]
    del content[place + 8 : place + 8 + size]
    content[4:8] = (len(content) - 8).to_bytes(4, "little")
    (tmp_path / "raw.avi").write_bytes(content)
    found, gaps, _ = all_that_is_whole(tmp_path / "raw.avi")
    assert gaps == []
    assert len(found) == 23


def test_an_avi_without_its_index(tmp_path: Path) -> None:
    """Without the index at its end, as after a crash of the recorder, all frames are read."""
    film(tmp_path, "mjpeg.avi")
    good = whole_film(tmp_path / "mjpeg.avi")
    content = (tmp_path / "mjpeg.avi").read_bytes()
    (tmp_path / "mjpeg.avi").write_bytes(content[: content.rindex(b"idx1")])
    np.testing.assert_array_equal(whole_film(tmp_path / "mjpeg.avi"), good)


def test_an_mp4_without_its_index(tmp_path: Path) -> None:
    """Without the index no frame can be found; the error states it and names what to do."""
    film(tmp_path, "h264.mp4")
    content = (tmp_path / "h264.mp4").read_bytes()
    (tmp_path / "h264.mp4").write_bytes(content[: content.index(b"moov") - 4])
    with pytest.raises(ConfigError, match=r"h264\.mp4.*index \(moov\) is missing.*not closed"):
        open_source(tmp_path / "h264.mp4")


def test_a_damaged_first_frame(tmp_path: Path) -> None:
    """Nothing is delivered; with skip_damaged the recording begins with the next frame, which keeps its number."""
    film(tmp_path, "mjpeg.avi")
    good = whole_film(tmp_path / "mjpeg.avi")
    content = bytearray((tmp_path / "mjpeg.avi").read_bytes())
    place, size = packets(tmp_path / "mjpeg.avi")[0]
    content[place + 8 : place + size] = bytes(size - 8)
    (tmp_path / "mjpeg.avi").write_bytes(content)
    with pytest.raises(DamagedSourceError, match=r"frame 0 of mjpeg\.avi"):
        open_source(tmp_path / "mjpeg.avi", skip_damaged=False)
    found, gaps, _ = all_that_is_whole(tmp_path / "mjpeg.avi")
    assert gaps == [(0, 1)]
    np.testing.assert_array_equal(np.stack(list(found.values())), good[1:])
