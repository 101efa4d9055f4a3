from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from atomstream.sources import GrowthSpec, Simulator
from benchmarks.truth import closed_loop
from tests.live_server import ThreadedServer
from tests.scripts import REPO, run_python

SMALL = ["--fps", "20", "--height", "48", "--width", "64"]
SPEC = GrowthSpec(height=48, width=64, fps=20.0)
SB = REPO / "tests" / "data" / "sb_deposition_6x259x346.npz"


@pytest.fixture
def server(serve_in_thread: Callable[..., ThreadedServer]) -> ThreadedServer:
    return serve_in_thread()


def run_example(server: ThreadedServer, tmp_path: Path, name: str, *arguments: str | Path) -> tuple[str, Any]:
    """Run an example; returns its output and the stream's frames in the archive."""
    done = run_python(
        REPO / "examples" / name,
        *arguments,
        ATOMSTREAM_ENDPOINT=server.url,
        ATOMSTREAM_API_KEY=server.api_key,
        ATOMSTREAM_SPOOL_DIR=str(tmp_path / "spool"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (data_id,) = re.findall(r"data_id: (\S+)", done.stdout)
    return done.stdout, zarr.open_group(server.folder(data_id) / "frames.zarr", mode="r")["frames"][:]


def test_every_example_is_run() -> None:
    """Every example in the folder is run by a test of this file."""
    here = Path(__file__).read_text()
    assert [path.name for path in (REPO / "examples").glob("*.py") if f'"{path.name}"' not in here] == []


@pytest.mark.slow
def test_async_instrument_app(server: ThreadedServer, tmp_path: Path) -> None:
    """The asyncio program stores every frame and prints the longest stall of its event loop."""
    output, frames = run_example(server, tmp_path, "async_instrument_app.py", "--seconds", "2.5", *SMALL)
    assert np.array_equal(frames, Simulator(SPEC).frames(0, 50))
    assert re.search(r"longest stall of the event loop: \d+\.\d ms", output)


@pytest.mark.slow
def test_temperature_and_shutter(server: ThreadedServer, tmp_path: Path) -> None:
    """The frames are stored; temperature and shutter are arrays beside them, and the shutter's opening is a mark."""
    output, frames = run_example(
        server,
        tmp_path,
        "temperature_and_shutter.py",
        "--seconds",
        "1",
        "--fps",
        "20",
        "--height",
        "48",
        "--width",
        "64",
    )
    assert np.array_equal(frames, Simulator(SPEC).frames(0, 20))
    (data_id,) = re.findall(r"data_id: (\S+)", output)
    server.stop()  # what is not written yet is written then
    group = zarr.open_group(server.folder(data_id) / "frames.zarr", mode="r")
    assert "signal_substrate" in group
    assert np.nanmin(group["signal_substrate"][:]) >= 580.0
    assert set(np.unique(group["signal_ga_shutter"][:])) <= {0.0, 1.0, np.nan}


@pytest.mark.slow
def test_plain_script(server: ThreadedServer, tmp_path: Path) -> None:
    """The plain script stores every frame of its chunks."""
    _, frames = run_example(server, tmp_path, "plain_script.py", "--chunks", "2", *SMALL)
    assert np.array_equal(frames, Simulator(SPEC).frames(0, 80))


@pytest.mark.slow
def test_run_mode(server: ThreadedServer, tmp_path: Path) -> None:
    """Run mode stores the recording, its last short chunk included."""
    recorded = Simulator(SPEC).frames(0, 50)
    np.save(tmp_path / "recorded_frames.npy", recorded)
    _, frames = run_example(server, tmp_path, "run_mode.py", tmp_path / "recorded_frames.npy", "--fps", "20")
    assert np.array_equal(frames, recorded)


@pytest.mark.slow
def test_camera_callback(server: ThreadedServer, tmp_path: Path) -> None:
    """Frames pushed one by one from the driver's thread arrive in order."""
    output, frames = run_example(server, tmp_path, "camera_callback.py", "--seconds", "2.5", *SMALL)
    assert np.array_equal(frames, Simulator(SPEC).frames(0, 50))
    assert "2 of 2 chunks stored" in output


@pytest.mark.slow
def test_stream_recording(server: ThreadedServer, tmp_path: Path) -> None:
    """The real recording arrives pixel for pixel."""
    _, frames = run_example(server, tmp_path, "stream_recording.py")
    with np.load(SB) as archive:
        assert np.array_equal(frames, archive["frames"])


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_stop_after_layers(server: ThreadedServer, tmp_path: Path) -> None:
    """The control loop closes the shutter within half a layer of the requested number."""
    output, _ = run_example(server, tmp_path, "stop_after_layers.py", "--layers", "5", "--seconds", "30")
    (grown,) = re.findall(r"closed after (\d+\.\d+) layers", output)
    assert abs(float(grown) - 5.0) < 0.5


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_loop_holds_when_growth_ends_by_itself(server: ThreadedServer, tmp_path: Path) -> None:
    """Growth that ends before the requested layers, without a mark: the shutter is never closed."""
    arguments = ["--layers", "5", "--seconds", "10", "--stops-at", "4.3", "--height", "120", "--width", "160"]
    output, _ = run_example(server, tmp_path, "stop_after_layers.py", *arguments)
    assert "the shutter stays open" in output
    assert "never closed: the film has 3.44 layers" in output


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("stops_after", "seconds"), [(math.inf, 16.0), (2.6, 8.0)])
def test_the_loop_on_a_composite(monkeypatch: pytest.MonkeyPatch, stops_after: float, seconds: float) -> None:
    """A real frame and a real layer: the shutter closes at 4 layers, or stays open if growth ends before."""
    monkeypatch.setenv("ATOMSTREAM_ENDPOINT", "")
    monkeypatch.setenv("ATOMSTREAM_API_KEY", "")
    made = closed_loop.run(3, 4.0, stops_after, seconds)
    assert made.closed.is_set() is math.isinf(stops_after)
    assert made.layers == pytest.approx(min(4.0, stops_after), abs=0.15)


@pytest.mark.slow
def test_bluesky_detector(server: ThreadedServer, tmp_path: Path) -> None:
    """Under a RunEngine the detector films, and the stream documents cover every stored frame."""
    pytest.importorskip("ophyd_async", reason="bluesky and ophyd-async are not installed")
    arguments = ["--camera", "sim:64x48", "--frames", "50"]
    output, frames = run_example(server, tmp_path, "bluesky_detector.py", *arguments)
    (data_id,) = re.findall(r"data_id: (\S+)", output)
    assert f"stream_resource: atomstream://localhost/{data_id}\n" in output
    parts = [(int(a), int(b)) for a, b in re.findall(r"stream_datum: frames (\d+) to (\d+)", output)]
    assert [0, *(end for _, end in parts)] == [*(begin for begin, _ in parts), 50]
    assert frames.shape == (50, 48, 64)


@pytest.mark.slow
def test_tango_device(server: ThreadedServer, tmp_path: Path) -> None:
    """The device streams between its commands Start and Stop, and its attributes name the stream."""
    pytest.importorskip("tango", reason="pytango is not installed")
    output, frames = run_example(server, tmp_path, "tango_device.py", "--try", "sim:64x48")
    assert "state RUNNING" in output
    assert "1 of 1 chunks stored" in output
    assert np.array_equal(frames, Simulator(GrowthSpec(height=48, width=64)).frames(0, len(frames)))
    assert len(frames) >= 100


@pytest.mark.slow
def test_qcodes_instrument(server: ThreadedServer, tmp_path: Path) -> None:
    """The instrument's snapshot has the stream and its frames."""
    pytest.importorskip("qcodes", reason="qcodes is not installed")
    arguments = ["--camera", "sim:64x48", "--seconds", "0.5"]
    output, frames = run_example(server, tmp_path, "qcodes_instrument.py", *arguments)
    assert "exposure: 5.0 ms" in output
    assert len(frames) > 0
    assert np.array_equal(frames, Simulator(GrowthSpec(height=48, width=64)).frames(0, len(frames)))


@pytest.mark.slow
def test_epics_areadetector(server: ThreadedServer, tmp_path: Path) -> None:
    """Every image of the IOC is stored once."""
    pytest.importorskip("p4p", reason="p4p is not installed")
    arguments = ["RHEED:Pva1:Image", "--simulate", "--frames", "70"]
    output, frames = run_example(server, tmp_path, "epics_areadetector.py", *arguments)
    assert "70 frames at" in output
    images = np.random.default_rng(1).integers(0, 256, (8, 48, 64), np.uint8)
    first = next(k for k in range(8) if np.array_equal(images[k], frames[0]))
    if ", 0 missing" in output:
        assert np.array_equal(frames, images[(first + np.arange(70)) % 8])
    assert len(frames) >= 70
