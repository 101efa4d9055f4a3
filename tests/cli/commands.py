"""Runs the commands: in child processes, as a user would, or in this process, which is faster."""

from __future__ import annotations

import io
import logging
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from atomstream import cli
from tests.paths import REPO
from tests.scripts import run_to_end

LIMIT_S = 100.0
COMMAND = [sys.executable, "-m", "atomstream.cli"]


def environment(**more: str) -> dict[str, str]:
    """Return the environment with the repository on the path and without a terminal width."""
    path = os.pathsep.join(filter(None, [more.pop("PYTHONPATH", ""), str(REPO)]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "", "COLUMNS": "100", **more}


def atomstream(
    *arguments: str | Path, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run ``atomstream ARGUMENTS`` to its end."""
    return run_to_end([*COMMAND, *map(str, arguments)], environment(**env), cwd)


def atomstream_here(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run ``atomstream ARGUMENTS`` in this process, for tests of what it writes. An error without a message raises."""
    words = ["atomstream", *map(str, arguments)]
    logger = logging.getLogger("atomstream")
    handlers = list(logger.handlers)
    with (
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
        redirect_stdout(io.StringIO()) as out,
        redirect_stderr(io.StringIO()) as err,
    ):
        patch.setattr(sys, "argv", words)
        for name, value in env.items():
            patch.setenv(name, value)
        try:
            cli.main()
        except SystemExit as exit_:
            code = exit_.code
        finally:
            logger.handlers[:] = handlers
    assert isinstance(code, int)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


class Running:
    """A running command and the lines that it printed so far."""

    def __init__(self, arguments: tuple[str | Path, ...], env: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            env=environment(**env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )
        self.output_lines: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, part: str) -> str:
        """Wait for the next line that contains ``part`` and return it."""
        while (line := self._lines.get(timeout=LIMIT_S)) is not None:
            self.output_lines.append(line)
            if part in line:
                return line
        raise AssertionError(f"ended without {part!r}: {''.join(self.output_lines)}")

    def wait_for_frames(self) -> None:
        """Wait for a line of progress with frames that were sent."""
        while re.search(r"\b0(/\d+)? frames  ", self.wait_for("frames  ")):
            pass

    def interrupt(self) -> None:
        """Send what Ctrl-C in its terminal would send."""
        self.process.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Wait until it exits and return its exit code; :attr:`output_lines` is then complete."""
        code = self.process.wait(LIMIT_S)
        while (line := self._lines.get(timeout=LIMIT_S)) is not None:
            self.output_lines.append(line)
        return code

    @property
    def text(self) -> str:
        """All output so far."""
        return "".join(self.output_lines)


@contextmanager
def running(*arguments: str | Path, **env: str) -> Iterator[Running]:
    """Run ``atomstream ARGUMENTS`` for the duration of the block; it is killed at the end if it still runs."""
    command = Running(arguments, env)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.process.kill()
        command.process.wait()
        command._reader.join()
