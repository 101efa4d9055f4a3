from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import zarr

from tests.live_server import ThreadedServer
from tests.scripts import REPO, run_python

README: Final = (REPO / "README.md").read_text(encoding="utf-8")
TEST_COMMAND: Final = 'python3 -m venv .venv && .venv/bin/pip install -q -e ".[dev]" && .venv/bin/pytest'
DEMO_COMMAND: Final = (
    'python3 -m venv .venv && .venv/bin/pip install -q ".[all]" && .venv/bin/atomstream demo'
)

STUBS: Final = '''
import asyncio
import numpy as np

film = np.load("film.npy")
num_chunks = 1

class Camera:
    """Stands for the reader's own."""
    def capture(self, count):
        return film[:count]
    async def next_chunk(self, count):
        return self.capture(count)
    def call_back(self, on_frame):
        for number, frame in enumerate(film):
            on_frame(frame, number)

camera = Camera()
'''


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def block(*words: str) -> str:
    """The one Python block that has all of ``words``."""
    (found,) = [text for text in blocks("python") if all(word in text for word in words)]
    return found


@pytest.fixture
def server(serve_in_thread: Callable[..., ThreadedServer], tmp_path: Path) -> ThreadedServer:
    return serve_in_thread(data_dir=tmp_path / "atomstream-data")


def run_block(text: str, server: ThreadedServer, tmp_path: Path) -> None:
    """Run one block as a script of its own, beside a camera."""
    np.save(tmp_path / "film.npy", film())
    np.save(tmp_path / "recorded_frames.npy", film())
    (tmp_path / "block.py").write_text(STUBS + text, encoding="utf-8")
    done = run_python(
        tmp_path / "block.py",
        cwd=tmp_path,
        ATOMSTREAM_ENDPOINT=server.url,
        ATOMSTREAM_API_KEY=server.api_key,
        ATOMSTREAM_SPOOL_DIR=str(tmp_path / "spool"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def film() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (240, 12, 16), np.uint8)


STREAMING = [
    ("camera.capture", "time.sleep"),
    ("camera.call_back",),
    ("frame_generator",),
    ("camera.next_chunk",),
    ("streamer.results",),
]
OTHERS = [("to_uint8",), ("import zarr",), ("import xarray",)]


def test_every_python_block_is_run() -> None:
    """README has no Python that the tests of this file do not run."""
    assert len(blocks("python")) == len(STREAMING) + len(OTHERS)


@pytest.mark.slow
@pytest.mark.parametrize("words", STREAMING)
def test_its_ways_to_stream(words: tuple[str, ...], server: ThreadedServer, tmp_path: Path) -> None:
    """Each way to stream that README shows stores the camera's frames."""
    run_block(block(*words), server, tmp_path)
    (folder,) = (server.data_dir / "streams").iterdir()
    assert np.array_equal(zarr.open_group(folder / "frames.zarr", mode="r")["frames"][:], film())


def test_its_scaling(server: ThreadedServer, tmp_path: Path) -> None:
    """README's example of 12 bits is true."""
    run_block(block("to_uint8"), server, tmp_path)


@pytest.mark.slow
def test_its_ways_to_read(server: ThreadedServer, tmp_path: Path) -> None:
    """The archive opens in zarr-python and in xarray as README says."""
    run_block(block("camera.call_back"), server, tmp_path)
    (folder,) = (server.data_dir / "streams").iterdir()
    checks = {
        "import zarr": "assert np.array_equal(frames, film[-100:]); assert np.isfinite(seconds).all()",
        "import xarray": "assert np.allclose(mean_intensity.values, film.mean(axis=(1, 2)))",
    }
    for words, check in checks.items():
        run_block(block(words).replace("DATA_ID", folder.name) + check, server, tmp_path)


def test_its_commands_are_the_ones_that_ci_runs() -> None:
    """README's test command stands in .ci/run word for word, and both commands are one line each to copy."""
    assert f"{TEST_COMMAND}\n" in blocks("sh")
    assert f"{DEMO_COMMAND}\n" in blocks("sh")
    assert TEST_COMMAND in (REPO / ".ci" / "run").read_text(encoding="utf-8")


def test_its_links_lead_somewhere() -> None:
    """Every file that README links to is there."""
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert [link for link in links if "://" not in link and not (REPO / link).exists()] == []
