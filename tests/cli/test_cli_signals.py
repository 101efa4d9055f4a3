"""``atomstream signals``: a CSV log to a real server, complete and while it grows."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.cli.commands import atomstream_here
from tests.live_server import ThreadedServer

command = importlib.import_module("atomstream.cli.signals")  # the name in the package is the command itself
LOG = "time;T (°C);shutter\n1735689600;500,5;closed\n1735689601;501;open\n"


def points(server: ThreadedServer, text: str) -> dict[str, Any]:
    """The stored points of the stream whose id is in the command's output."""
    data_id = text.split()[1]
    folder = server.folder(data_id).parents[1] / "signals"
    from atomstream.server.signals.stream import SignalStream
    from atomstream.system.files import LOCAL

    stream = SignalStream(folder / f"{data_id}.log", LOCAL)
    try:
        return {
            name: (stream.units()[name], one.times.tolist(), one.values.tolist())
            for name, one in stream.points().items()
        }
    finally:
        stream.close()


def test_a_log(server: ThreadedServer, env: dict[str, str], tmp_path: Path) -> None:
    """All rows and channels with their units are stored, and the report states it."""
    path = tmp_path / "chamber.csv"
    path.write_text(LOG)
    done = atomstream_here(
        "signals", "--csv", path, "--sample", "GaN", "--mark", "shutter>0.5 -> open", **env
    )
    assert done.returncode == 0, done.stderr
    assert "Channels  T (°C), shutter" in done.stdout
    assert "Complete: every row is stored." in done.stdout
    assert points(server, done.stdout) == {
        "T": ("°C", [1735689600.0, 1735689601.0], [500.5, 501.0]),
        "shutter": (None, [1735689600.0, 1735689601.0], [0.0, 1.0]),
    }


def test_a_log_that_grows(
    server: ThreadedServer, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines that are added while the command runs are sent, the last one even without a line break."""
    path = tmp_path / "chamber.csv"
    path.write_text(LOG)
    added = iter(["1735689602;502;open\n1735689603", ";503;closed\n17356896", "04;504;closed"])

    class Waiter:
        """Appends a part of the log each time that the command waits for new lines."""

        def wait(self, _: float) -> bool:
            with path.open("a") as file:
                file.write(next(added, ""))
            return False

    monkeypatch.setattr(command, "threading", SimpleNamespace(Event=Waiter))
    times = iter([0.0] * 8)
    monkeypatch.setattr(command, "time", SimpleNamespace(monotonic=lambda: next(times, 100.0)))
    done = atomstream_here("signals", "--csv", path, "--follow", "--idle-end", "50", **env)
    assert done.returncode == 0, done.stderr
    assert points(server, done.stdout)["T"][2] == [500.5, 501.0, 502.0, 503.0, 504.0]


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("nothing here\n", [], "is not a table of signals"),
        ("t,A\n5,1\n", [], "State it with --start"),
        (LOG, ["--unit", "T"], "must be NAME=UNIT"),
        (LOG, ["--mark", "open"], "is not a rule for marks"),
        (LOG, ["--delimiter", "ab"], "must be one character"),
        (LOG, ["--start", "noon"], "is not a time"),
    ],
)
def test_mistakes_create_nothing(
    server: ThreadedServer, env: dict[str, str], tmp_path: Path, text: str, options: list[str], words: str
) -> None:
    """The message names the mistake and the option; no stream is created."""
    path = tmp_path / "log.csv"
    path.write_text(text)
    done = atomstream_here("signals", "--csv", path, *options, **env)
    assert done.returncode == 2
    assert words in done.stderr
    assert not (server.folder("x").parents[1] / "signals").exists()
