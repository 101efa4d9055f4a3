"""The real command in a process of its own, as a person would start it."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.paths import REPO

LIMIT_S = 50.0
COMMAND = [sys.executable, "-m", "atomstream.cli"]


def environment(**more: str) -> dict[str, str]:
    """The test's environment, with the repository on the path and no terminal's width."""
    path = os.pathsep.join(filter(None, [more.pop("PYTHONPATH", ""), str(REPO)]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "", "COLUMNS": "100", **more}


def atomstream(
    *arguments: str | Path, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run ``atomstream ARGUMENTS`` to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=environment(**env),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        stdin=subprocess.DEVNULL,
        check=False,
    )


class Running:
    """A command that runs, and the lines that it said so far."""

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
        self.said: list[str] = []
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
        """The first line from here on that holds ``part``."""
        while (line := self._lines.get(timeout=LIMIT_S)) is not None:
            self.said.append(line)
            if part in line:
                return line
        raise AssertionError(f"ended without {part!r}: {''.join(self.said)}")

    def interrupt(self) -> None:
        """What Ctrl-C in its terminal does."""
        self.process.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Its exit code, once it has ended by itself; :attr:`said` is complete then."""
        code = self.process.wait(LIMIT_S)
        while (line := self._lines.get(timeout=LIMIT_S)) is not None:
            self.said.append(line)
        return code

    @property
    def text(self) -> str:
        """All that was said."""
        return "".join(self.said)


@contextmanager
def running(*arguments: str | Path, **env: str) -> Iterator[Running]:
    """``atomstream ARGUMENTS`` while the block lasts; killed at its end if it still runs."""
    command = Running(arguments, env)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.process.kill()
        command.process.wait()
        command._reader.join()
