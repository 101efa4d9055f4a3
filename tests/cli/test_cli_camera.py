"""``atomstream camera`` and ``atomstream stream --camera``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from atomstream.cameras.transforms import bin_pixels, rotate
from atomstream.sources import GrowthSpec, Simulator
from atomstream.testing import MemoryService
from tests.cli.commands import atomstream_here, running
from tests.live_server import ThreadedServer

SMALL = ["--camera", "sim:64x48", "--fps", "60"]
GROWTH = GrowthSpec(height=48, width=64, fps=60.0)


def archived(server: ThreadedServer) -> Any:
    """The only archive of ``server``, read with zarr-python."""
    (folder,) = (server.data_dir / "streams").iterdir()
    return zarr.open_group(folder / "frames.zarr", mode="r")


def test_list() -> None:
    """The list has the simulated camera with a name that opens it."""
    done = atomstream_here("camera", "list", "--kind", "sim")
    assert done.returncode == 0
    assert done.stdout.startswith("sim  ")
    refused = atomstream_here("camera", "list", "--kind", "polaroid")
    assert (refused.returncode, "polaroid" in refused.stderr) == (2, True)


def test_preview(tmp_path: Path) -> None:
    """The preview has picture, histogram, saturation and the measured rate, and writes a PNG."""
    out = tmp_path / "now.png"
    done = atomstream_here("camera", "preview", "sim:64x48", "--seconds", "0.2", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert re.search(r"Rate +\d+\.\d+ frames per second; the camera states 120\.00", done.stdout)
    assert re.search(r"Saturated +\d\.\d+ %", done.stdout)
    assert "Histogram" in done.stdout
    from atomstream.sources import open_source

    (chunk,) = open_source(out).chunks(2)
    assert chunk.frames.shape == (1, 48, 64)
    assert chunk.frames.max() == 255


def test_preview_warns_of_saturation() -> None:
    arguments = ["--seconds", "0.1", "--gain", "40", "--no-picture"]
    done = atomstream_here("camera", "preview", "sim:64x48", *arguments)
    assert "shorter exposure" in done.stdout


def test_a_camera_is_streamed_frame_for_frame(server: ThreadedServer, env: dict[str, str]) -> None:
    """Each frame from the first one on is stored, with the camera's numbers as times, and with its settings."""
    done = atomstream_here("stream", *SMALL, "--frames", "90", "--exposure", "5", **env)
    assert done.returncode == 0, done.stderr
    assert "90 read, 90 stored" in done.stdout
    group = archived(server)
    assert np.array_equal(group["frames"][:], Simulator(GROWTH).frames(0, 90))
    assert group["time"][:] == pytest.approx(np.arange(90) / 60.0, abs=1e-3)
    found = {name: value for name, value in group.attrs.items() if name.startswith("recording_")}
    assert found == {
        "recording_camera": "sim:64x48",
        "recording_camera_model": "simulated growth",
        "recording_exposure_ms": 5.0,
        "recording_gain": 1.0,
        "recording_roi_x_y_width_height": [0, 0, 64, 48],
        "recording_stated_fps": 60.0,
    }


def test_changes_before_the_upload(server: ThreadedServer, env: dict[str, str], tmp_path: Path) -> None:
    """Crop, bin, dark frame and rotation are applied to each frame and recorded with the stream."""
    dark = np.full((2, 48, 64), 3, np.uint8)
    dark[1] = 4
    np.save(tmp_path / "dark.npy", dark)
    changes = [
        "--dark",
        tmp_path / "dark.npy",
        "--crop",
        "4",
        "8",
        "40",
        "30",
        "--bin",
        "2",
        "--bin-mode",
        "sum",
    ]
    done = atomstream_here("stream", *SMALL, "--frames", "65", *changes, "--rotate", "270", **env)
    assert done.returncode == 0, done.stderr
    frames = Simulator(GROWTH).frames(0, 65)
    expected = np.maximum(frames, 4) - 4
    expected = rotate(bin_pixels(expected[:, 8:38, 4:44], 2, "sum"), 270)
    group = archived(server)
    assert group["frames"].dtype == np.uint16
    assert np.array_equal(group["frames"][:], expected)
    assert group.attrs["recording_bin_mode"] == "sum"
    assert group.attrs["recording_dark_frame"] == "dark.npy"
    assert group.attrs["recording_crop_x_y_width_height"] == [4, 8, 40, 30]


def test_changes_of_a_recording(server: ThreadedServer, env: dict[str, str], tmp_path: Path) -> None:
    """The same options change the frames of a file."""
    frames = np.random.default_rng(2).integers(0, 256, (4, 6, 8), np.uint8)
    np.save(tmp_path / "film.npy", frames)
    done = atomstream_here(
        "stream", tmp_path / "film.npy", "--fps", "2", "--no-pace", "--flip", "vertical", "--bin", "2", **env
    )
    assert done.returncode == 0, done.stderr
    group = archived(server)
    assert np.array_equal(group["frames"][:], bin_pixels(frames, 2)[:, ::-1])
    assert group.attrs["recording_flipped"] == "vertical"


def test_a_watched_folder_is_streamed(server: ThreadedServer, env: dict[str, str], tmp_path: Path) -> None:
    """Images that appear in a folder are stored in order, also those from before the stream was created."""
    frames = np.random.default_rng(4).integers(0, 4096, (6, 12, 16), np.uint16)
    folder = tmp_path / "vendor"
    folder.mkdir()
    arguments = ["--camera", f"folder:{folder}", "--fps", "50", "--frames", "6"]
    with running("stream", *arguments, **env) as command:
        command.wait_for("waiting for")
        for number, frame in enumerate(frames):
            tifffile.imwrite(folder / f"{number}.tif", frame)
        assert command.end() == 0, command.text
    assert np.array_equal(archived(server)["frames"][:], frames)


def test_ctrl_c_ends_the_stream_of_a_camera(server: ThreadedServer, env: dict[str, str]) -> None:
    """After Ctrl-C every frame that was taken is stored, the stream has ended, and the exit code is 130."""
    with running("stream", *SMALL, "--chunk-size", "20", **env) as command:
        command.wait_for_frames()
        command.interrupt()
        assert command.end() == 130, command.text
    assert "all frames read before are stored" in command.text
    stored = archived(server)["frames"][:]
    assert len(stored) >= 20
    assert np.array_equal(stored, Simulator(GROWTH).frames(0, len(stored)))


def test_16_bits_for_a_server_that_accepts_8() -> None:
    """The hosted service accepts 8 bits only: the message names --levels, and the stream is ended."""
    with MemoryService() as service:
        login = {"ATOMSTREAM_ENDPOINT": service.url, "ATOMSTREAM_API_KEY": service.api_key}
        done = atomstream_here("stream", *SMALL, "--bin", "2", "--bin-mode", "sum", "--frames", "70", **login)
        (data_id,) = service.data_ids
        assert service.ended(data_id)
    assert done.returncode == 2, done.stderr
    assert "--levels LOW HIGH" in done.stderr
    assert "attributes" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--camera", "polaroid:1"], "polaroid"),
        (["--camera", "sim:12"], "WIDTHxHEIGHT"),
        ([*SMALL, "--pixel-format", "Mono12"], "pixel_format"),
        ([*SMALL, "--roi", "0", "0", "65", "3"], "not inside"),
        ([*SMALL, "--crop", "0", "0", "65", "3"], "not inside"),
        ([*SMALL, "--rotate", "45"], "rotation"),
        ([*SMALL, "--dark", "nowhere.tif"], "nowhere.tif"),
        ([*SMALL, "film.npy"], "SOURCE"),
        (["--camera", "folder:/does/not/exist"], "/does/not/exist"),
        (["film.npy", "--exposure", "3"], "--exposure"),
        ([], "--camera"),
    ],
)
def test_what_can_not_be_streamed(
    arguments: list[str], message: str, server: ThreadedServer, env: dict[str, str]
) -> None:
    """A wrong name, setting or change exits with 2 and names it; no stream is created."""
    done = atomstream_here("stream", *arguments, **env)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert not list((server.data_dir / "streams").iterdir())
