"""The command as a user runs it: killed and started again, ended by Ctrl-C, started twice."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from atomstream.spool import Spool
from tests.cli.commands import COMMAND, environment
from tests.live_server import ThreadedServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

FRAMES = np.random.default_rng(5).integers(0, 255, (2000, 16, 24), dtype=np.uint8)


class Command:
    """A running ``atomstream record``; :attr:`text` is what it has written so far."""

    def __init__(self, *arguments: str | Path, **env: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "record", "--no-open", *map(str, arguments)],
            env=environment(**env),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self.text = ""
        self._reader = threading.Thread(target=self._read, name="reader")
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.text += line

    def wait_for(self, words: str) -> None:
        """Wait until it has written these words."""
        wait(lambda: words in self.text or self.process.poll() is not None)
        assert words in self.text

    def end(self, number: int = signal.SIGINT) -> int:
        """Send a signal, and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(60)
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


@contextmanager
def command(*arguments: str | Path, **env: str) -> Iterator[Command]:
    """A command that is killed at the end of the block, if it still runs."""
    made = Command(*arguments, **env)
    try:
        yield made
    finally:
        made.end(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)


def wait(condition: Callable[[], object]) -> None:
    """Wait for another process."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def stored_chunks(spool: Path) -> int:
    """Chunks that are on the disk."""
    return sum(stream["chunks_on_disk"] for stream in Spool(spool).status()["streams"])


def test_a_killed_recorder(tmp_path: Path, serve_in_thread: Callable[..., ThreadedServer]) -> None:
    """After kill -9, the next start ends the recording; what was on the disk arrives, each frame as it was."""
    np.save(tmp_path / "growth.npy", FRAMES)
    spool = tmp_path / "spool"
    growth = ("--source", f"file:{tmp_path / 'growth.npy'}", "--fps", "60", "--spool-dir", spool)
    with command(*growth, "--start", "--name", "night growth") as killed:
        wait(lambda: stored_chunks(spool) or killed.process.poll() is not None)
        killed.end(signal.SIGKILL)
    server = serve_in_thread()
    login = {"ATOMSTREAM_ENDPOINT": server.url, "ATOMSTREAM_API_KEY": server.api_key}
    with command("--spool-dir", spool, **login) as next_start:
        next_start.wait_for("'night growth' was interrupted")
        wait(lambda: not Spool(spool).streams())
        assert next_start.end() == 0
        assert "will be sent to" in next_start.text
    (folder,) = server.context.settings.streams_dir.iterdir()
    stored: Any = zarr.open_group(folder / "frames.zarr", mode="r")
    frames = stored["frames"][:]
    assert len(frames) >= 120
    assert np.array_equal(frames, FRAMES[: len(frames)])


def test_ctrl_c_and_a_second_recorder(tmp_path: Path) -> None:
    """Ctrl-C saves the recording and prints it. A second recorder can't open the camera meanwhile; the error names the
    first.
    """
    spool = tmp_path / "spool"
    source = ("--source", "simulator:48x32", "--spool-dir", spool)
    with command(*source, "--start", "--name", "a growth\x1b[2J") as first:
        first.wait_for("Ctrl-C ends a recording and saves it")
        with command(*source) as second:
            second.process.wait(60)
            assert second.end() == 2
        address = first.text.partition("logs in once: ")[2].partition("/login")[0]
        assert (
            f"sim:48x32 is used by another atomstream recorder (process {first.process.pid}, {address})"
            in (" ".join(second.text.split()))
        )
        wait(lambda: Spool(spool).streams())
        assert first.end() == 0
    assert "Recorded a growth?[2J: 0:" in first.text
    assert " 0 lost, saved up to " in first.text
    assert "on this computer; after `atomstream login` the next start" in first.text
    assert "127.0.0.1:1 " not in first.text
    assert "Traceback" not in first.text
    (stream,) = Spool(spool).status()["streams"]
    assert stream["finalizing"]
    assert list((spool / "record" / "dashcam").iterdir()) == []
