"""The README and the pages under ``docs/``: every Python block is run, and the commands are those of CI."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import zarr

from atomstream.sources import GrowthSpec, Simulator
from tests.live_server import ThreadedServer
from tests.paths import REPO
from tests.scripts import run_python

README: Final = REPO / "README.md"
MAX_LINES: Final = 160
TEST_COMMAND: Final = 'python3 -m venv .venv && .venv/bin/pip install -q -e ".[dev]" && .venv/bin/pytest'
DEMO_COMMAND: Final = (
    'python3 -m venv .venv && .venv/bin/pip install -q ".[all]" && .venv/bin/atomstream demo'
)

STUBS: Final = '''
import numpy as np
from atomstream.testing import SimulatedCamera

film = np.load("film.npy")
num_chunks = 1

class Camera(SimulatedCamera):
    """The reader's own camera."""
    async def next_chunk(self, count):
        return self.capture(count)
    def call_back(self, on_frame):
        for frame in self:
            on_frame(frame.pixels, frame.frame_id)

camera = Camera(film)
'''


def blocks(language: str, page: Path = README) -> list[str]:
    """The code blocks of that language on a page."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


PYTHON: Final = [
    text for page in (README, *sorted((REPO / "docs").rglob("*.md"))) for text in blocks("python", page)
]


def block(*words: str) -> str:
    """The one Python block that contains all of ``words``."""
    (found,) = [text for text in PYTHON if all(word in text for word in words)]
    return found


@pytest.fixture
def server(serve_in_thread: Callable[..., ThreadedServer], tmp_path: Path) -> ThreadedServer:
    return serve_in_thread(data_dir=tmp_path / "atomstream-data")


RUN_EACH: Final = (
    "import runpy, sys\nfor path in sys.argv[1:]:\n    runpy.run_path(path, run_name='__main__')\n"
)


def run_block(text: str, tmp_path: Path, server: ThreadedServer | None = None) -> None:
    """Run one block as a script in a separate process, with a camera to read from."""
    run_blocks([text], tmp_path, server)


def run_blocks(texts: list[str], tmp_path: Path, server: ThreadedServer | None = None) -> None:
    """Run blocks as scripts, each with its own variables, one after the other in one separate process.

    The process imports the packages that they use once, which takes longer than to run them.
    """
    np.save(tmp_path / "film.npy", film())
    np.save(tmp_path / "recorded_frames.npy", film())
    scripts = [tmp_path / f"block{number}.py" for number in range(len(texts))]
    for script, text in zip(scripts, texts, strict=True):
        script.write_text(STUBS + text, encoding="utf-8")
    where = {"ATOMSTREAM_ENDPOINT": server.url, "ATOMSTREAM_API_KEY": server.api_key} if server else {}
    command = scripts if len(scripts) == 1 else ["-c", RUN_EACH, *scripts]
    done = run_python(*command, cwd=tmp_path, ATOMSTREAM_SPOOL_DIR=str(tmp_path / "spool"), **where)
    assert done.returncode == 0, done.stderr
    messages = [line for line in done.stderr.splitlines() if " missing before frame" not in line]
    assert messages == []  # the simulated camera of one block drops frames, which is logged


def film() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (240, 12, 16), np.uint8)


STREAMING = [
    ("camera.capture", "time.sleep"),
    ("camera.call_back",),
    ("frame_generator",),
    ("camera.next_chunk", "report ="),
    ("camera.next_chunk", "watch("),
    ("camera.capture", "Growth 12"),
    ("streamer.results", "streamer.mark"),
    ("streamer.calibrate",),
]
TESTING = [("MemoryService", "SimulatedCamera"), ("MemoryService", "fail_next"), ("running_server",)]
OTHERS = [
    ("to_uint8",),
    ('["frames"][-100:]',),
    ("frame_kept",),
    ("import open_stream",),
    ("import compare",),
    ("import live",),
    ("growth.plot", "to_pandas"),
    ("[::100]",),
    ("first.png",),
    ("Client() as client",),
    ("freeze_support",),
    ("open_source", "axes="),
    ("open_camera",),
    ("bytes(640)",),
    ("cut = open",),
    ("TimeseriesStreamer",),
]


def test_every_python_block_is_run() -> None:
    """No page has a Python block that the tests of this file do not run."""
    named = [block(*words) for words in (*STREAMING, *TESTING, *OTHERS)]
    assert sorted(named) == sorted(PYTHON)


@pytest.mark.slow
@pytest.mark.parametrize("half", [STREAMING[:4], STREAMING[4:]], ids=["first half", "second half"])
def test_ways_to_stream(half: list[tuple[str, ...]], server: ThreadedServer, tmp_path: Path) -> None:
    """Each way to stream that the pages show stores the camera's frames, as one stream."""
    run_blocks([block(*words) for words in half], tmp_path, server)
    folders = list((server.data_dir / "streams").iterdir())
    assert len(folders) == len(half)
    for folder in folders:
        assert np.array_equal(zarr.open_group(folder / "frames.zarr", mode="r")["frames"][:], film())


@pytest.mark.slow
def test_ways_to_test(tmp_path: Path) -> None:
    """The examples of ``docs/testing.md`` pass, assertions included."""
    run_blocks([block(*words) for words in TESTING], tmp_path)


def test_a_frozen_application(tmp_path: Path) -> None:
    """The example with ``freeze_support`` starts as a usual program."""
    run_block(block("freeze_support"), tmp_path)


def test_scaling(tmp_path: Path) -> None:
    """The stated result of the example with 12 bits is right."""
    run_block(block("to_uint8"), tmp_path)


def test_reading_files(tmp_path: Path) -> None:
    """The examples of ``docs/files.md`` run one after the other, and their stated results are right."""
    blocks_of_page = [block("open_source", "axes="), block("bytes(640)"), block("cut = open")]
    run_block("\n".join(blocks_of_page), tmp_path)


@pytest.mark.slow
def test_signals(server: ThreadedServer, tmp_path: Path) -> None:
    """The example of ``docs/signals.md`` runs as it is."""
    run_block(block("TimeseriesStreamer"), tmp_path, server)


@pytest.mark.slow
def test_a_camera_in_python(server: ThreadedServer, tmp_path: Path) -> None:
    """The example of ``docs/cameras.md`` stores every frame of the simulated camera."""
    run_block(block("open_camera").replace("max_seconds=4.0", "max_seconds=0.5"), tmp_path, server)
    (folder,) = (server.data_dir / "streams").iterdir()
    frames = zarr.open_group(folder / "frames.zarr", mode="r")["frames"][:]
    assert np.array_equal(frames, Simulator(GrowthSpec(height=240, width=320, fps=60.0)).frames(0, 30))


@pytest.mark.slow
def test_ways_to_read(server: ThreadedServer, tmp_path: Path) -> None:
    """The archive opens in zarr-python and in xarray as ``docs/server.md`` shows."""
    run_block(block("camera.call_back"), tmp_path, server)
    (folder,) = (server.data_dir / "streams").iterdir()
    checks = {
        '["frames"][-100:]': "assert np.array_equal(frames, film[-100:]); assert np.isfinite(seconds).all()",
        "frame_kept": "assert 'frame_kept' not in growth",
        "import open_stream": "assert np.allclose(mean_intensity.values, film.mean(axis=(1, 2)))",
    }
    scripts = [block(words).replace("DATA_ID", folder.name) + check for words, check in checks.items()]
    scripts.append("import matplotlib; matplotlib.use('agg')")
    scripts += [
        block(*words)
        for words in (("growth.plot", "to_pandas"), ("[::100]",), ("first.png",), ("import live",))
    ]
    reading = block("Client() as client").replace('"GaN"', '"RHEED"')
    # The frames of this test are noise, which has no growth rate.
    reading = reading.replace('results()["growth_rate_ml_s"]', 'results()["saturated_fraction"]')
    compared = block("import compare").replace("DATA_ID", folder.name).replace("OTHER_ID", folder.name)
    compared = compared.replace('align="shutter"', "align=None").replace(
        "specular_intensity", "saturated_fraction"
    )
    checked = f"{reading}assert np.array_equal(last, film[-100:]); assert len(rate) == 240"
    run_blocks([*scripts, compared, checked], tmp_path, server)
    assert (tmp_path / "first.png").stat().st_size > 1000


def test_the_commands_are_the_ones_that_ci_runs() -> None:
    """The README's test command is in .ci/run word for word, and both commands are one line each to copy."""
    assert f"{TEST_COMMAND}\n" in blocks("sh")
    assert f"{DEMO_COMMAND}\n" in blocks("sh")
    assert TEST_COMMAND in (REPO / ".ci" / "run").read_text(encoding="utf-8")
    assert f"{TEST_COMMAND}\n" in blocks("sh", REPO / "docs" / "development.md")


def test_readme_is_short() -> None:
    """The README can be read to its end: at most 160 lines."""
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_readme_links_lead_to_files() -> None:
    """Every file that the README links to exists."""
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (REPO / link).exists()] == []
