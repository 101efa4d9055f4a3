"""``atomstream stream`` with damaged recordings, raw pixels and several files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from tests.cli.commands import atomstream_here
from tests.live_server import ThreadedServer

FRAMES = np.arange(12 * 8 * 9, dtype=np.uint32).reshape(12, 8, 9).astype(np.uint8)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twelve images, of which the seventh is empty."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number, frame in enumerate(FRAMES):
        tifffile.imwrite(folder / f"img{number}.tif", frame)
    (folder / "img6.tif").write_bytes(b"")
    return folder


def archives(server: ThreadedServer) -> list[Any]:
    """The archives of all streams."""
    return [
        zarr.open_group(folder / "frames.zarr", mode="r")
        for folder in (server.data_dir / "streams").iterdir()
    ]


def test_frames_up_to_the_damage(server: ThreadedServer, env: dict[str, str], images: Path) -> None:
    """By default the stream ends at the damage; the report and exit code 4 show what is missing."""
    done = atomstream_here("stream", images, "--fps", "2", "--no-pace", **env)
    assert done.returncode == 4, done.stderr
    (archive,) = archives(server)
    np.testing.assert_array_equal(archive["frames"][:], FRAMES[:6])
    assert "6 read, 6 stored" in done.stdout
    assert "frame 6 of img6.tif: the file is empty" in done.stdout
    assert "5 frames behind the damage; --skip-damaged streams them as well" in done.stdout
    assert (
        "DAMAGED: the recording can't be read completely; every frame that was read is stored." in done.stdout
    )


def test_frames_behind_the_damage(server: ThreadedServer, env: dict[str, str], images: Path) -> None:
    """With --skip-damaged all others are stored, with their own numbers and times; the exit code is still 4."""
    done = atomstream_here("stream", images, "--fps", "2", "--no-pace", "--skip-damaged", **env)
    assert done.returncode == 4, done.stderr
    (archive,) = archives(server)
    there = np.delete(np.arange(12), 6)
    stored = archive["frames"][:]
    times = archive["time"][:]
    taken = np.isfinite(times)
    np.testing.assert_array_equal(stored[taken], FRAMES[there])
    assert archive["frame_id"][:][taken].tolist() == there.tolist()
    np.testing.assert_allclose(times[taken] - times[taken][0], there / 2.0, atol=0.003)
    assert "frame 6 of img6.tif: the file is empty" in done.stdout


def test_nothing_is_registered_before_the_first_frame(
    server: ThreadedServer, env: dict[str, str], tmp_path: Path
) -> None:
    """If the first frame can't be read, the command exits with 2, and no stream is made."""
    tifffile.imwrite(tmp_path / "a.tif", FRAMES, compression="zlib", metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        place = tif.pages[0].dataoffsets[0]
    with (tmp_path / "a.tif").open("r+b") as file:
        file.seek(place)
        file.write(b"\xff" * 20)
    for path in (tmp_path / "a.tif", tmp_path / "missing.tif"):
        done = atomstream_here("stream", path, "--fps", "2", "--no-pace", **env)
        assert done.returncode == 2, done.stdout
        assert path.name in done.stderr
    assert archives(server) == []


def test_raw_pixels_and_several_files(server: ThreadedServer, env: dict[str, str], tmp_path: Path) -> None:
    """Raw files with a stated geometry, given in a row, are one stream."""
    (tmp_path / "a.raw").write_bytes(b"head" + FRAMES[:7].tobytes())
    (tmp_path / "b.raw").write_bytes(b"head" + FRAMES[7:].tobytes())
    options = ["--fps", "2", "--no-pace", "--geometry", "9x8+4"]
    done = atomstream_here("stream", tmp_path / "a.raw", tmp_path / "b.raw", *options, **env)
    assert done.returncode == 0, done.stderr
    (archive,) = archives(server)
    np.testing.assert_array_equal(archive["frames"][:], FRAMES)
