from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from tests.cli.commands import atomstream, atomstream_here, running
from tests.live_server import ThreadedServer
from tests.paths import DATA

SB = DATA / "sb_deposition_6x259x346.npz"
NOBODY = "11111111-1111-4111-8111-111111111111"


def sb_frames() -> np.ndarray:
    with np.load(SB) as archive:
        return archive["frames"]


def archived(server: ThreadedServer) -> Any:
    """The only archive of ``server``, read with zarr-python."""
    (folder,) = (server.data_dir / "streams").iterdir()
    return zarr.open_group(folder / "frames.zarr", mode="r")


def calibration_of(server: ThreadedServer, data_id: str) -> dict[str, Any]:
    """Return the calibration that the server stores."""
    url = f"{server.url}/rheed/stream/{data_id}/calibration"
    request = urllib.request.Request(url, headers={"X-API-KEY": server.api_key})
    with urllib.request.urlopen(request, timeout=60) as reply:
        found: dict[str, Any] = json.load(reply)
    return found


def refused(*arguments: str | Path, code: int, message: str, **env: str) -> None:
    done = atomstream_here("stream", *arguments, **env)
    assert done.returncode == code, done.stderr
    assert message in done.stderr


@pytest.mark.parametrize("suffix", ["npz", "npy", "tif"])
def test_real_frames_arrive_pixel_for_pixel(
    suffix: str, server: ThreadedServer, env: dict[str, str], tmp_path: Path
) -> None:
    """A recording of real RHEED frames is stored unchanged, and the exit code is 0."""
    source = SB
    if suffix != "npz":
        source = tmp_path / f"sb.{suffix}"
        (np.save if suffix == "npy" else tifffile.imwrite)(source, sb_frames())
    done = atomstream("stream", source, "--fps", "2", "--no-pace", **env)
    assert done.returncode == 0, done.stderr
    assert "6 read, 6 stored" in done.stdout
    assert np.array_equal(archived(server)["frames"][:], sb_frames())


def test_calibration_options_are_stored(server: ThreadedServer, env: dict[str, str]) -> None:
    """Calibration options are stored with the stream, with the argument names of ``calibrate``."""
    options = ["--beam-energy", "15", "--distance", "300", "--px-per-mm", "12.5", "--layer-thickness", "0.39"]
    more = ["--incidence", "2.5", "--miller-n", "2", "--reference-spacing", "60", "--layer-unit", "unit cell"]
    done = atomstream_here("stream", SB, "--fps", "2", "--no-pace", *options, *more, **env)
    assert done.returncode == 0, done.stderr
    (folder,) = (server.data_dir / "streams").iterdir()
    assert calibration_of(server, folder.name) == {
        "beam_energy": 15.0, "screen_sample_distance": 300.0, "px_per_mm": 12.5, "layer_thickness_nm": 0.39,
        "incidence_deg": 2.5, "miller_n": 2.0, "reference_spacing_px": 60.0, "layer_unit": "unit cell",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("option", "value"),
    [("--beam-energy", "15000"), ("--layer-unit", " "), ("--distance", "0"), ("--px-per-mm", "nan")],
)
def test_invalid_calibration(option: str, value: str, server: ThreadedServer, env: dict[str, str]) -> None:
    """Calibration values out of range exit with 2 and name the option, and no stream is made."""
    refused(SB, "--fps", "2", "--no-pace", option, value, code=2, message=option, **env)
    assert not list((server.data_dir / "streams").iterdir())


def test_no_control_character_reaches_a_log(env: dict[str, str]) -> None:
    """If stderr is not a terminal, no carriage return or escape sequence is written."""
    done = atomstream("stream", SB, "--fps", "2", "--no-pace", **env)
    assert not {"\r", "\x1b"} & set(done.stdout + done.stderr)


def test_uint16_frames_are_stored_as_uint16(
    server: ThreadedServer, env: dict[str, str], tmp_path: Path
) -> None:
    """uint16 frames are stored as uint16."""
    frames = np.arange(5 * 6 * 7, dtype=np.uint16).reshape(5, 6, 7) * 300
    np.save(tmp_path / "deep.npy", frames)
    assert atomstream_here("stream", tmp_path / "deep.npy", "--fps", "2", "--no-pace", **env).returncode == 0
    stored = archived(server)["frames"]
    assert stored.dtype == np.uint16
    assert np.array_equal(stored[:], frames)


def test_levels_scale_to_8_bits(server: ThreadedServer, env: dict[str, str], tmp_path: Path) -> None:
    """``--levels`` maps black to 0 and white to 255."""
    np.save(tmp_path / "deep.npy", np.array([[[0, 4095, 9000]]], dtype=np.uint16))
    done = atomstream_here(
        "stream", tmp_path / "deep.npy", "--fps", "2", "--no-pace", "--levels", "0", "4095", **env
    )
    assert done.returncode == 0, done.stderr
    assert archived(server)["frames"][:].tolist() == [[[0, 255, 255]]]


def test_unpaced_frames_lie_on_one_time_line(
    server: ThreadedServer, env: dict[str, str], tmp_path: Path
) -> None:
    """Without pacing, the frames still have times according to their frame rate."""
    np.save(tmp_path / "many.npy", np.zeros((12, 4, 4), np.uint8))
    atomstream_here("stream", tmp_path / "many.npy", "--fps", "2", "--no-pace", **env)
    assert archived(server)["time"][:] == pytest.approx(np.arange(12) / 2.0, abs=0.0021)


def test_a_file_that_grows(server: ThreadedServer, env: dict[str, str], tmp_path: Path) -> None:
    """``--follow`` streams what is there and what is added, until nothing more comes."""
    frames = np.arange(9 * 6 * 8, dtype=np.uint8).reshape(9, 6, 8)
    path = tmp_path / "live.raw"
    path.write_bytes(frames[:4].tobytes())
    options = ["--fps", "2", "--geometry", "8x6", "--follow", "--idle-end", "2"]
    with running("stream", path, *options, **env) as command:
        command.wait_for("stream ")
        with path.open("ab") as file:
            for frame in frames[4:]:
                file.write(frame.tobytes())
                file.flush()
        assert command.end() == 0, command.text
    assert "9 read, 9 stored" in command.text
    assert np.array_equal(archived(server)["frames"][:], frames)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--follow", "--no-pace"], "leave out --no-pace"),
        (["--idle-end", "3"], "--idle-end is for --follow"),
        (["--follow"], "can't be followed"),
        (["--follow", str(SB)], "one SOURCE"),
    ],
)
def test_follow_with_other_options(options: list[str], message: str, env: dict[str, str]) -> None:
    """Options that contradict each other, and files that can't be followed, are refused."""
    refused(SB, "--fps", "2", *options, code=2, message=message, **env)


def test_times_in_another_unit_are_refused(env: dict[str, str], tmp_path: Path) -> None:
    """Times in ms without their unit differ from the rate by a factor of 1000: refused before a stream is made."""
    np.savez(tmp_path / "a.npz", frames=sb_frames(), time=np.arange(6) * 500.0)
    message = "lie 500 s apart by their times, but 0.5 s at 2 frames per second. Give the unit of the times"
    refused(tmp_path / "a.npz", "--fps", "2", code=2, message=message, **env)


def test_project_and_sample_are_linked(server: ThreadedServer, env: dict[str, str]) -> None:
    """A project made by the command contains the sample of a stream, and both are listed."""
    made = atomstream_here("project", "create", "GaN on Si", **env)
    assert made.returncode == 0, made.stderr
    uuid = made.stdout.strip()
    assert f"{uuid}  GaN on Si" in atomstream_here("project", "list", **env).stdout
    again = atomstream_here("project", "create", "gan on si ", **env)
    assert (again.returncode, uuid in again.stderr) == (3, True)
    sent = atomstream_here(
        "stream", SB, "--fps", "2", "--no-pace", "--project", uuid, "--sample", "A1", **env
    )
    assert sent.returncode == 0, sent.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.npy", "--fps", "2"], "does not exist"),
        ([SB], "--fps"),
        ([SB, "--fps", "nan"], "--fps"),
        ([SB, "--fps", "2", "--dataset", "movie"], "movie"),
        ([SB, "--fps", "2", "--rpm", "15", "--azimuth", "[110]"], "azimuth"),
        ([SB, "--fps", "2", "--levels", "9", "1"], "--levels"),
    ],
)
def test_invalid_input(arguments: list[str], message: str, env: dict[str, str]) -> None:
    """Invalid files and settings exit with 2 and a message that names them."""
    refused(*arguments, code=2, message=message, **env)


@pytest.mark.parametrize("name", ["growth.avi", "growth.npy", "growth.npz", "growth.tif", "growth.txt"])
def test_a_file_that_is_not_what_its_name_says(name: str, env: dict[str, str], tmp_path: Path) -> None:
    """A damaged file exits with 2 and a message that names the file."""
    (tmp_path / name).write_bytes(b"no frames in here" * 40)
    refused(tmp_path / name, "--fps", "2", code=2, message=name, **env)


@pytest.mark.parametrize("option", ["--sample", "--project", "--tag"])
def test_a_uuid_that_names_nothing(option: str, env: dict[str, str]) -> None:
    """An unknown sample, project or tag exits with 3 and a message that names it."""
    more = ["--sample", "A1"] if option == "--project" else []
    refused(SB, "--fps", "2", "--no-pace", option, NOBODY, *more, code=3, message=NOBODY, **env)


def test_a_wrong_key(env: dict[str, str]) -> None:
    """An unknown key exits with 3, and the message does not repeat it."""
    done = atomstream("stream", SB, "--fps", "2", "--api-key", "atst_not-this-one", **env)
    assert (done.returncode, "401" in done.stderr, "not-this-one" in done.stderr) == (3, True, False)


def test_no_key_at_all(env: dict[str, str]) -> None:
    """Without a key nothing is sent, and the message names where to set one."""
    refused(SB, "--fps", "2", code=2, message="ATOMSTREAM_API_KEY", **{**env, "ATOMSTREAM_API_KEY": ""})


def test_a_wrong_endpoint(env: dict[str, str], closed_port: int) -> None:
    """A port without a server exits with 3 and a message that names it."""
    url = f"http://127.0.0.1:{closed_port}"
    refused(SB, "--fps", "2", "--endpoint", url, code=3, message=url, **env)


def test_ctrl_c_delivers_the_frames_read(server: ThreadedServer, env: dict[str, str], tmp_path: Path) -> None:
    """After Ctrl-C the frames read are stored, the stream is ended, and the exit code is 130."""
    frames = np.random.default_rng(1).integers(0, 256, (4000, 8, 9), np.uint8)
    np.save(tmp_path / "long.npy", frames)
    with running("stream", tmp_path / "long.npy", "--fps", "40", "--chunk-size", "20", **env) as command:
        command.wait_for_frames()
        command.interrupt()
        assert command.end() == 130, command.text
    assert "Interrupted: all frames read before are stored." in command.text
    stored = archived(server)["frames"][:]
    assert 0 < len(stored) < len(frames)
    assert np.array_equal(stored, frames[: len(stored)])


@pytest.mark.slow
def test_a_second_ctrl_c_exits_at_once(server: ThreadedServer, env: dict[str, str], tmp_path: Path) -> None:
    """Without a server, a second Ctrl-C exits with 1 and reports what is not delivered."""
    np.save(tmp_path / "long.npy", np.zeros((4000, 8, 9), np.uint8))
    with running("stream", tmp_path / "long.npy", "--fps", "40", "--chunk-size", "20", **env) as command:
        command.wait_for_frames()
        server.stop()
        command.wait_for("kept")
        command.interrupt()
        command.wait_for("Ctrl-C again")
        command.interrupt()
        assert command.end() == 1, command.text
    assert "Undelivered" in command.text
    assert "Traceback" not in command.text
