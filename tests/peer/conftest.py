"""The hosted service's own client, run as a black box in its own venv.

``ATOMSTREAM_PEER_PYTHON`` is the Python of a venv that has ``atomscale``; without it, a venv is created once in
pytest's cache folder. The package is GPL-3.0: it is run as a program, and nothing of it is read or copied.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

REQUIREMENT = "atomscale==0.21.10"
GIVEN = os.environ.get("ATOMSTREAM_PEER_PYTHON")  # read here, because the environment of each test is cleaned
PeerRun = Callable[..., str]


@pytest.fixture(scope="session")
def peer_python(request: pytest.FixtureRequest) -> Path:
    """A Python that has the client; skips the test, with the reason, if none can be installed."""
    if GIVEN:
        return Path(GIVEN)
    assert request.config.cache is not None
    venv = request.config.cache.mkdir("peer-venv")
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    with FileLock(f"{venv}.lock"):  # tests run in several processes; only one of them creates it
        if not has_client(python):
            make_venv(venv, python)
    return python


def has_client(python: Path) -> bool:
    """True if ``python`` exists and has the client."""
    if not python.exists():
        return False
    found = "import importlib.metadata as m; m.version('atomscale')"
    return subprocess.run([python, "-c", found], capture_output=True, check=False).returncode == 0


def make_venv(venv: Path, python: Path) -> None:
    """Install the client into ``venv``."""
    for command in (
        [sys.executable, "-m", "venv", str(venv)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", REQUIREMENT],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip() or "no reason given").splitlines()[-1]
            pytest.skip(f"{REQUIREMENT} could not be installed here: {last}")


@pytest.fixture
def run_peer(peer_python: Path, tmp_path: Path) -> PeerRun:
    """Run a program of this folder with the client's Python; returns what it printed."""

    def run(*arguments: str, script: str = "peer_program.py") -> str:
        environment = {
            **os.environ,
            "ATOMSCALE_SPOOL_DIR": str(tmp_path / "spool"),
            "ATOMSCALE_SKIP_CLOCK_SYNC": "1",
        }
        program = Path(__file__).with_name(script)
        done = subprocess.run(
            [peer_python, program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
            env=environment,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    return run
