"""``atomstream cluster up`` and ``atomstream analyse`` as users run them (issue 18)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from atomstream.cluster.engine import free_ports
from atomstream.cluster.engines import missing_programs
from tests.cli.commands import atomstream_here
from tests.paths import REPO
from tests.scripts import run_python


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_command_runs_a_cluster_and_ends_it(tmp_path: Path) -> None:
    """The command prints its URL when all parts answer, serves requests there, and Ctrl-C ends all processes."""
    if missing := missing_programs():
        pytest.skip(missing[0])
    port, errors = free_ports(1)[0], tmp_path / "errors.txt"
    with open(errors, "wb") as stderr:
        command = subprocess.Popen(
            [sys.executable, "-m", "atomstream", "cluster", "up", "--port", str(port)],
            env={**os.environ, "PYTHONPATH": str(REPO)},
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
        assert command.stdout is not None
        line = command.stdout.readline().decode()
        assert line == f"atomstream listens at http://127.0.0.1:{port}\n", errors.read_text()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as reply:
            assert json.load(reply)
        pids = [
            int(text.split("process ")[1].split()[0])
            for text in errors.read_text().splitlines()
            if " process " in text
        ]
        assert len(pids) == 7
        command.send_signal(signal.SIGINT)
        assert command.wait(60) == 0, errors.read_text()
        command.stdout.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_an_analysis_process_without_services_ends_with_a_sentence(tmp_path: Path) -> None:
    """Without a store or a bus nothing is started; the sentence names the options."""
    done = run_python("-m", "atomstream", "analyse", "--data", tmp_path / "cache")
    assert done.returncode != 0
    assert "--store URL and --bus URL" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("restored_logging")
def test_a_bus_without_an_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bus that can't be reached ends the command with its address, and without a trace."""
    pytest.importorskip("nats", reason="nats-py is not installed")
    monkeypatch.setattr("atomstream.server.ports.bus.CONNECT_S", 0.5)
    port = free_ports(1)[0]
    done = atomstream_here(
        *("analyse", "--data", tmp_path / "cache", "--store", tmp_path / "store"),
        *("--bus", f"nats://127.0.0.1:{port}"),
    )
    assert done.returncode != 0
    assert f"127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr
