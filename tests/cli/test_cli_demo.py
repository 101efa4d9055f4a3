from __future__ import annotations

import json
import os
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
import zarr

from atomstream.cli.demo_run import digest, verify_archive
from atomstream.sources import GrowthSpec, Simulator
from tests.cli.commands import atomstream, atomstream_here, running

SMALL = ("--size", "48x64", "--fps", "60")


def test_the_demo_ends_verified(tmp_path: Path) -> None:
    """A short demo exits with 0, reports that all frames are equal, and keeps an archive that zarr-python reads."""
    done = atomstream("demo", *SMALL, "--seconds", "1", "--rpm", "15", "--data", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "VERIFIED" in done.stdout
    assert "60 of 60 frames, all pixels" in done.stdout
    (archive,) = tmp_path.glob("streams/*/frames.zarr")
    assert str(archive) in done.stdout
    filmed = Simulator(GrowthSpec(height=48, width=64, fps=60.0, rpm=15.0)).frames(0, 60)
    assert np.array_equal(zarr.open_group(archive, mode="r")["frames"][:], filmed)


@pytest.mark.slow
def test_the_demo_prints_results_and_true_values(tmp_path: Path) -> None:
    """Rate, layers and spacing are printed with the simulated values, and the rate agrees within its error."""
    done = atomstream("demo", "--size", "120x160", "--fps", "30", "--seconds", "9", "--data", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Dashboard while the demo runs: http://127.0.0.1:" in done.stderr
    found = re.search(
        r"Growth rate +([0-9.]+) ± ([0-9.e-]+) monolayer/s.*\(simulated: 0\.4 ML/s\)", done.stdout
    )
    assert found is not None, done.stdout
    assert abs(float(found[1]) - 0.4) < max(0.01, 4 * float(found[2]))
    assert "Streak spacing" in done.stdout


def test_ctrl_c_verifies_the_frames_sent(tmp_path: Path) -> None:
    """Ctrl-C stops the camera; frames sent before are delivered and compared, and no server keeps running."""
    with running("demo", *SMALL, "--seconds", "60", "--data", tmp_path) as command:
        command.wait_for_frames()
        (child,) = psutil.Process(command.process.pid).children()
        command.interrupt()
        assert command.end() == 130, command.text
    assert "VERIFIED, though interrupted" in command.text
    assert not child.is_running()


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX's")
def test_a_killed_demo_leaves_no_server(tmp_path: Path) -> None:
    """If the demo is killed, its server exits too."""
    with running("demo", *SMALL, "--seconds", "60", "--data", tmp_path) as command:
        command.wait_for("Server at")
        (child,) = psutil.Process(command.process.pid).children()
        command.process.kill()
        command.process.wait()
        child.wait(60)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "480"], "HEIGHTxWIDTH"),
        (["--size", "0x64"], "HEIGHTxWIDTH"),
        (["--seconds", "3600", "--size", "99999x99999"], "free"),
    ],
)
def test_invalid_demo_settings(arguments: list[str], message: str, tmp_path: Path) -> None:
    """An invalid size, or more frames than the disk can hold, exits with 2 before anything starts."""
    done = atomstream_here("demo", *arguments, "--data", tmp_path / "data")
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "data").exists()


def make_archive(path: Path, frames: np.ndarray) -> Path:
    group = zarr.create_group(path)
    stored = group.create_array("frames", shape=frames.shape, dtype="u1", chunks=(1, 8, 8), shards=(4, 8, 8))
    stored[:] = frames
    times = group.create_array("time", shape=(len(frames),), dtype="f8")
    times[:] = np.arange(len(frames)) / 10.0
    return path


def test_one_wrong_pixel_is_found(tmp_path: Path) -> None:
    """The comparison finds the frame in which a single pixel differs, and fails."""
    frames = Simulator(GrowthSpec(height=8, width=8, fps=10.0)).frames(0, 10)
    sent = [digest(frame) for frame in frames]
    assert verify_archive(make_archive(tmp_path / "good", frames), sent, lambda _: None).passed
    frames[6, 3, 3] ^= 1
    bad = verify_archive(make_archive(tmp_path / "bad", frames), sent, lambda _: None)
    assert (bad.passed, bad.equal, bad.first_difference) == (False, 9, 6)


def test_a_frame_too_many_or_too_few_is_found(tmp_path: Path) -> None:
    """An archive that is longer or shorter than what was sent does not pass."""
    frames = Simulator(GrowthSpec(height=8, width=8, fps=10.0)).frames(0, 10)
    sent = [digest(frame) for frame in frames]
    archive = make_archive(tmp_path / "a", frames[:9])
    assert not verify_archive(archive, sent, lambda _: None).passed
    assert not verify_archive(archive, sent[:8], lambda _: None).passed


def test_the_page_is_opened_logged_in(tmp_path: Path) -> None:
    """With ``--open`` a browser gets a link that logs in once; the server runs until Ctrl-C, and then prints how to
    continue.
    """
    opened, script = tmp_path / "opened", tmp_path / "browser.py"
    script.write_text(f"import sys, pathlib; pathlib.Path({str(opened)!r}).write_text(sys.argv[1])")
    browser = f"{sys.executable} {script} %s"
    words = ("demo", *SMALL, "--seconds", "0.5", "--open", "--data", tmp_path / "data")
    with running(*words, BROWSER=browser) as command:
        page = command.wait_for("until Ctrl-C").split()[-1]
        assert "API key atst_" in command.wait_for("To open it again")
        link = urlsplit(opened.read_text())
        assert page.endswith(link.query.removeprefix("next="))
        token = link.fragment.removeprefix("link=")
        root = f"{link.scheme}://{link.netloc}"
        assert _log_in(root, token) == 204
        assert _log_in(root, token) == 401
        command.interrupt()
        assert command.end() == 0, command.text
    assert "VERIFIED" in command.text


def _log_in(root: str, token: str) -> int:
    request = urllib.request.Request(
        f"{root}/session", json.dumps({"link": token}).encode(), headers={"Origin": root}, method="POST"
    )
    try:
        with urllib.request.urlopen(request) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
