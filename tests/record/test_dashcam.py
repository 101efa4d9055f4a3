"""The dashcam: what it keeps, its limits, and disks that are slow, full or damaged."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from atomstream.cameras import CameraFrame
from atomstream.record.dashcam import Dashcam, DashcamLimits
from atomstream.record.dashcam_folders import DashcamFolders
from atomstream.record.segment import Segment

FPS = 10.0


def frame(number: int, shape: tuple[int, int] = (20, 30), dtype: type = np.uint8) -> CameraFrame:
    """A frame whose noise depends on its number; 0.1 s after the one before."""
    high = np.iinfo(dtype).max
    return CameraFrame(
        np.random.default_rng(number).integers(0, high, shape, dtype), number, 1000.0 * number / FPS
    )


@contextmanager
def dashcam(folder: Path, **limits: float) -> Iterator[Dashcam]:
    """A dashcam in a new folder."""
    folders = DashcamFolders(folder)
    made = Dashcam(folders.make(), DashcamLimits(**limits))  # type: ignore[arg-type]  # numbers of both kinds
    try:
        yield made
    finally:
        made.close()


def read_all(camera: Dashcam, number: int = 0) -> tuple[list[CameraFrame], int]:
    """All frames from ``number`` on, and how many of them were deleted before."""
    frames, skipped = list[CameraFrame](), 0
    while number < camera.end:
        part = camera.read(number)
        frames += part.frames
        skipped += part.skipped
        number = part.next
    return frames, skipped


def wait_for(condition: Callable[[], object]) -> None:
    """Wait for the writer's thread."""
    ready = threading.Event()
    while not condition():
        ready.wait(0.005)


def on_disk(camera: Dashcam) -> None:
    """Wait until all but the newest two segments are on the disk."""
    wait_for(lambda: camera._next_to_write() is None)


def test_frames_come_back_as_they_were(tmp_path: Path) -> None:
    """Frames are read from memory and disk in order, with numbers and times, also where shape or dtype changes."""
    frames = [frame(k) for k in range(50)]
    frames += [frame(k, (8, 9), np.uint16) for k in range(50, 80)]
    with dashcam(tmp_path) as camera:
        for one in frames:
            camera.add(one)
        on_disk(camera)
        status = camera.status()
        assert (status.frames, status.problem) == (80, "")
        assert status.seconds == pytest.approx(7.9)
        assert status.disk_bytes == sum(path.stat().st_size for path in tmp_path.rglob("*.zst")) > 0
        found, skipped = read_all(camera)
        assert skipped == 0
        for one, expected in zip(found, frames, strict=True):
            assert one.pixels.dtype == expected.pixels.dtype
            assert np.array_equal(one.pixels, expected.pixels)
            assert (one.frame_id, one.time_ms_utc) == (expected.frame_id, expected.time_ms_utc)
        for time_ms, number in ((-1.0, 0), (0.0, 0), (1234.0, 13), (7900.0, 79), (7901.0, 80)):
            assert camera.number_at(time_ms) == number
    assert list(tmp_path.rglob("*.zst")) == []


def test_its_limits_of_time_and_disk(tmp_path: Path) -> None:
    """Older frames are deleted; those to be read stay beyond the time limit, but not beyond that of the disk."""
    with dashcam(tmp_path, seconds=2.0) as camera:
        for k in range(100):
            camera.add(frame(k))
        assert 2.0 <= camera.status().seconds <= 3.5
        camera.need(70)
        for k in range(100, 200):
            camera.add(frame(k))
        assert camera.number_at(0.0) <= 70
        camera.need(-1)
        camera.add(frame(200))
        assert camera.number_at(0.0) > 170
    with dashcam(tmp_path, disk_bytes=20_000) as camera:
        camera.need(0)
        for k in range(300):
            camera.add(frame(k))
            on_disk(camera)
        assert 10_000 < camera.status().disk_bytes <= 20_000
        found, skipped = read_all(camera)
        assert skipped > 0
        assert [one.frame_id for one in found] == list(range(skipped, 300))


def test_a_disk_that_can_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault is reported, memory stays within its limit, and later frames are on the disk when it works again."""
    write, failing = Segment.write, True

    def fail(segment: Segment, path: Path) -> int:
        if failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(segment, path)

    monkeypatch.setattr(Segment, "write", fail)
    monkeypatch.setattr("atomstream.record.dashcam.RETRY_S", 0.01)
    with dashcam(tmp_path, memory_bytes=60_000) as camera:
        for k in range(300):
            camera.add(frame(k))
        wait_for(lambda: camera.status().problem)
        assert "No space left on device" in camera.status().problem
        assert camera.status().memory_bytes <= 60_000
        found, skipped = read_all(camera)
        assert [one.frame_id for one in found] == list(range(skipped, 300))
        failing = False
        wait_for(lambda: camera.status().disk_bytes)
        assert camera.status().problem == ""


def test_a_slow_disk_keeps_what_is_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If frames come faster than the disk takes them, new ones are left out, not the old ones on the disk."""
    write, blocked = Segment.write, threading.Event()
    blocked.set()

    def wait(segment: Segment, path: Path) -> int:
        assert blocked.wait(60)
        return write(segment, path)

    monkeypatch.setattr(Segment, "write", wait)
    with dashcam(tmp_path, memory_bytes=60_000) as camera:
        for k in range(100):
            camera.add(frame(k))
        on_disk(camera)
        blocked.clear()
        for k in range(100, 400):
            camera.add(frame(k))
        blocked.set()
        found, skipped = read_all(camera)
        assert skipped > 0
        assert [one.frame_id for one in found][:70] == list(range(70))
        assert found[-1].frame_id == 399


def test_a_damaged_file_costs_its_frames_only(tmp_path: Path) -> None:
    """The error is raised once, with the file's name; then its frames are skipped."""
    with dashcam(tmp_path) as camera:
        for k in range(60):
            camera.add(frame(k))
        on_disk(camera)
        second = sorted(tmp_path.rglob("*.zst"))[1]
        second.write_bytes(b"x" * 100)
        assert len(camera.read(0).frames) == 10
        with pytest.raises(ValueError, match=second.name):
            camera.read(10)
        part = camera.read(10)
        assert (part.skipped, part.frames[0].frame_id) == (10, 20)


def test_it_gives_its_disk_to_a_recording(tmp_path: Path) -> None:
    """After ``stop_using_disk`` the files of the dashcam are deleted, and it writes no more."""
    with dashcam(tmp_path) as camera:
        for k in range(60):
            camera.add(frame(k))
        on_disk(camera)
        assert camera.stop_using_disk()
        assert list(tmp_path.rglob("*.zst")) == []
        for k in range(60, 120):
            camera.add(frame(k))
        assert not camera.stop_using_disk()
        assert read_all(camera)[0][-1].frame_id == 119


def test_unread_frames_stay_after_a_disk_fault(tmp_path: Path) -> None:
    """A recording reads every frame that it still needs; each file is deleted when it was read."""
    with dashcam(tmp_path) as camera:
        for k in range(60):
            camera.add(frame(k))
        on_disk(camera)
        camera.need(25)
        assert camera.stop_using_disk()
        assert not camera.stop_using_disk()
        camera.add(frame(60))
        found, skipped = read_all(camera, 25)
        assert ([one.frame_id for one in found], skipped) == (list(range(25, 61)), 0)
        camera.need(40)
        camera.add(frame(61))
        assert camera.number_at(0.0) == 40
        camera.need(-1)
        camera.add(frame(62))
        assert list(tmp_path.rglob("*.zst")) == []


def test_folders_of_killed_recorders_are_removed(tmp_path: Path) -> None:
    """Folders of killed recorders are removed; those in use stay."""
    mine, other = DashcamFolders(tmp_path), DashcamFolders(tmp_path)
    kept, left = mine.make(), tmp_path / "0011223344556677"
    left.mkdir()
    (left / "frames-00000001.zst").write_bytes(b"x")
    other.remove_abandoned()
    assert [path.name for path in tmp_path.iterdir()] == [kept.name]
    mine.remove(kept)
    assert list(tmp_path.iterdir()) == []
