"""The hosted service's own client, run as a black box in its own venv.

``ATOMSTREAM_PEER_PYTHON`` is the Python of a venv that has ``atomscale``; without it, a venv is made once on a
machine, the one that the benchmarks use too. The package is GPL-3.0: it is run as a program, and nothing of it is
read or copied.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.venvs import PEER, NotInstalledError, installed

GIVEN = os.environ.get("ATOMSTREAM_PEER_PYTHON")  # read here, because the environment of each test is cleaned
PeerRun = Callable[..., str]


@pytest.fixture(scope="session")
def peer_python() -> Path:
    """A Python that has the client; skips the test, with the reason, if none can be installed."""
    if GIVEN:
        return Path(GIVEN)
    try:
        return installed(PEER)
    except NotInstalledError as error:
        pytest.skip(str(error))


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
