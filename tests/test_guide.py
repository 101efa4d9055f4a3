from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.live_server import ThreadedServer
from tests.paths import DATA
from tests.scripts import run_python

GUIDE = DATA / "guide"
UUID = "a1b2c3d4-e5f6-7890-abcd-ef1234567890"

CAMERA = """
import runpy, sys
import numpy as np

class Camera:
    frames = np.load("film.npy")
    def capture(self, count):
        taken, self.frames = self.frames[:count], self.frames[count:]
        return taken

runpy.run_path(sys.argv[1], init_globals={"camera": Camera(), "num_chunks": 2})
"""


@pytest.fixture
def server(serve_in_thread: Callable[..., ThreadedServer]) -> ThreadedServer:
    """A server, whose key replaces the guide's ``YOUR_API_KEY``."""
    return serve_in_thread()


def follow(server: ThreadedServer, cwd: Path, *scripts: Path) -> subprocess.CompletedProcess[str]:
    """Run the scripts' copies with the server's own key: the first one, with the others as its arguments."""
    copies = [cwd / f"with_key_{script.name}" for script in scripts]
    for script, copy in zip(scripts, copies, strict=True):
        copy.write_text(script.read_text().replace("YOUR_API_KEY", server.api_key))
    return run_python(
        *copies, cwd=cwd, ATOMSTREAM_ENDPOINT=server.url, ATOMSTREAM_SPOOL_DIR=str(cwd / "spool")
    )


def ask(server: ThreadedServer, path: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(
        server.url + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"X-API-KEY": server.api_key, "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def the_archive(server: ThreadedServer) -> Any:
    (folder,) = (server.data_dir / "streams").iterdir()
    return zarr.open_group(folder / "frames.zarr", mode="r")["frames"][:]


def film(n_frames: int) -> np.ndarray:
    return np.random.default_rng(n_frames).integers(0, 256, (n_frames, 12, 16), np.uint8)


@pytest.mark.slow
def test_the_guide_s_push_mode(server: ThreadedServer, tmp_path: Path) -> None:
    """The push loop printed in the guide stores the camera's frames with its name and sample."""
    np.save(tmp_path / "film.npy", film(480))
    (tmp_path / "camera.py").write_text(CAMERA)
    done = follow(server, tmp_path, tmp_path / "camera.py", GUIDE / "push_mode.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert np.array_equal(the_archive(server), film(480))
    (entry,) = ask(server, "/data_entries/")
    assert (entry["raw_name"], entry["physical_sample_name"]) == ("Growth 001", "GaN-2025-001")
    assert entry["pipeline_status"] in {"stream_finalizing", "success"}


@pytest.mark.slow
def test_the_guide_s_run_mode(server: ThreadedServer, tmp_path: Path) -> None:
    """The sleeping generator printed in the guide stores the recording, including its last short chunk."""
    np.save(tmp_path / "recorded_frames.npy", film(300))
    done = follow(server, tmp_path, GUIDE / "run_mode.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert np.array_equal(the_archive(server), film(300))


def test_the_guide_s_samples_and_projects(server: ThreadedServer, tmp_path: Path) -> None:
    """The guide's three ways to specify a sample (name, UUID, with a project) all link it."""
    sample = ask(server, "/physical_samples/", {"name": "by its UUID"})["id"]
    project = ask(server, "/projects/", {"name": "GaN on Si"})["id"]
    script = tmp_path / "samples.py"
    text = (GUIDE / "samples.py").read_text()
    script.write_text(text.replace(UUID, sample).replace("your-project-uuid", project))
    done = follow(server, tmp_path, script)
    assert (done.returncode, done.stderr) == (0, "")
    linked = sorted(entry["physical_sample_name"] for entry in ask(server, "/data_entries/"))
    assert linked == ["Wafer-A1", "Wafer-A1", "by its UUID"]
    (listed,) = ask(server, "/projects/")
    assert listed["physical_sample_count"] == 1


def test_the_guide_s_uuid_must_exist(server: ThreadedServer, tmp_path: Path) -> None:
    """The UUID printed in the guide, which no sample here has, is an error with this UUID, and no stream is created."""
    done = follow(server, tmp_path, GUIDE / "samples.py")
    assert done.returncode == 1
    assert f"no physical sample with the UUID {UUID}" in done.stderr
    assert len(ask(server, "/data_entries/")) == 1
