"""The camera ``folder:PATH``: images that a program writes into a folder, one after the other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from atomstream.cameras import CameraFrame, CameraSettings, open_camera, watch_folder
from atomstream.cameras.watch_folder import WatchFolder
from atomstream.errors import CameraError, CameraLostError, ConfigError


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("POLL_S", 0.001), ("SETTLE_S", 0.003), ("DAMAGED_S", 0.01)):
        monkeypatch.setattr(watch_folder, name, seconds)


def picture(value: int, shape: tuple[int, int] = (4, 5), dtype: str = "uint8") -> Any:
    return np.full(shape, value, dtype)


def opened(folder: Path) -> WatchFolder:
    camera = WatchFolder(str(folder))
    camera.open(CameraSettings())
    return camera


def taken(camera: WatchFolder, count: int) -> list[CameraFrame]:
    frames: list[CameraFrame] = []
    while len(frames) < count:
        if (frame := camera.grab(5.0)) is not None:
            frames.append(frame)
    return frames


def test_new_images_in_the_order_of_their_names(tmp_path: Path) -> None:
    """Images from before the start are left out; frame2 comes before frame10; other files are ignored."""
    tifffile.imwrite(tmp_path / "frame1.tif", picture(1))
    camera = opened(tmp_path)
    (tmp_path / "notes.txt").write_text("growth 12")
    tifffile.imwrite(tmp_path / ".frame0.tif", picture(9))
    for number in (10, 2, 3):
        tifffile.imwrite(tmp_path / f"frame{number}.tif", picture(number, dtype="uint16"))
    frames = taken(camera, 3)
    assert [int(frame.pixels[0, 0]) for frame in frames] == [2, 3, 10]
    assert {str(frame.pixels.dtype) for frame in frames} == {"uint16"}
    assert frames[0].time_ms_utc == pytest.approx(
        (tmp_path / "frame2.tif").stat().st_mtime_ns / 1e6, abs=0.01
    )
    assert camera.grab(0.01) is None


def test_a_file_that_is_still_written_is_waited_for(tmp_path: Path) -> None:
    """An incomplete file is delivered when it is complete; the files after it wait for that."""
    camera = opened(tmp_path)
    tifffile.imwrite(tmp_path / "whole.tif", np.arange(4000, dtype=np.uint16).reshape(50, 80))
    whole = (tmp_path / "whole.tif").read_bytes()
    (tmp_path / "whole.tif").unlink()
    with (tmp_path / "a1.tif").open("wb") as file:
        file.write(whole[:3000])
        file.flush()
        tifffile.imwrite(tmp_path / "a2.tif", picture(2))
        watch_folder.DAMAGED_S = 1000.0
        assert camera.grab(0.05) is None
        file.write(whole[3000:])
    first, second = taken(camera, 2)
    assert np.array_equal(first.pixels, np.arange(4000).reshape(50, 80))
    assert second.pixels[0, 0] == 2


def test_a_damaged_file_is_reported_and_left_out(tmp_path: Path) -> None:
    """A file that stays undecodable is a frame with a problem that names it; the next image follows."""
    camera = opened(tmp_path)
    (tmp_path / "a1.tif").write_bytes(b"II*\0 no picture")
    tifffile.imwrite(tmp_path / "a2.tif", picture(2))
    bad, good = taken(camera, 2)
    assert not bad.complete
    assert "a1.tif" in bad.problem
    assert good.complete
    assert good.pixels[0, 0] == 2


def test_a_name_that_is_written_again_is_a_new_frame(tmp_path: Path) -> None:
    """Programs that overwrite one file give a frame for each version; an unchanged one is not delivered twice."""
    camera = opened(tmp_path)
    for value in (1, 2, 3):
        tifffile.imwrite(tmp_path / "latest.tif", picture(value))
        os.utime(tmp_path / "latest.tif", ns=(0, 10**18 + value))
        (frame,) = taken(camera, 1)
        assert frame.pixels[0, 0] == value
    assert camera.grab(0.02) is None


def test_several_pictures_in_one_file(tmp_path: Path) -> None:
    camera = opened(tmp_path)
    np.save(
        tmp_path / "burst.npy", np.arange(3, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 5), np.uint8)
    )
    assert [int(frame.pixels[0, 0]) for frame in taken(camera, 3)] == [0, 1, 2]


def test_a_folder_that_disappears_and_comes_back(tmp_path: Path) -> None:
    """A folder on a share that is not reachable is a lost camera; images written after its return are delivered."""
    folder = tmp_path / "share"
    folder.mkdir()
    camera = opened(folder)
    folder.rename(tmp_path / "away")
    with pytest.raises(CameraLostError, match="share"):
        camera.grab(1.0)
    camera.close()
    with pytest.raises(CameraError, match="share"):
        camera.open(CameraSettings())
    (tmp_path / "away").rename(folder)
    camera.open(CameraSettings())
    tifffile.imwrite(folder / "new.tif", picture(7))
    assert taken(camera, 1)[0].pixels[0, 0] == 7


def test_names_and_settings_that_are_not_possible(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="state a path"):
        open_camera("folder:")
    with pytest.raises(ConfigError, match="gain"):
        open_camera(f"folder:{tmp_path}").open(CameraSettings(gain=2.0))
