"""A real server in a process of its own: ``atomstream serve`` on a free port, and what it costs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.request import Request, urlopen

import psutil  # type: ignore[import-untyped]

from benchmarks.processes import ROOT, environment

KEY: Final = "atst_benchmark_key_0123456789"


@dataclass(frozen=True, slots=True)
class Served:
    """A running server; ``login`` is what a client needs of it."""

    url: str
    folder: Path
    process: psutil.Process

    @property
    def login(self) -> dict[str, Any]:
        """URL and key."""
        return {"url": self.url, "key": KEY}

    def cpu_s(self) -> float:
        """Processor seconds so far, its children's included."""
        return float(sum(times.user + times.system for times in (part.cpu_times() for part in self._parts())))

    def rss(self) -> int:
        """Resident bytes now, its children's included."""
        return int(sum(part.memory_info().rss for part in self._parts()))

    def get(self, path: str) -> Any:
        """The JSON of a GET."""
        with urlopen(Request(self.url + path, headers={"X-API-KEY": KEY}), timeout=60) as reply:
            return json.load(reply)

    def _parts(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@contextmanager
def running_server(folder: Path) -> Iterator[Served]:
    """A server on ``folder``; ended with the block."""
    command = [sys.executable, "-m", "atomstream.cli", "serve", "--port", "0", "--data", str(folder)]
    log = folder.with_suffix(".log")
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT,
            env={**environment(), "ATOMSTREAM_API_KEY": KEY, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        try:
            yield Served(_url(process, log), folder, psutil.Process(process.pid))
        finally:
            process.terminate()
            process.wait(60)
            assert process.stdout is not None
            process.stdout.close()


def _url(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"https?://[^\s/]+:\d+", line):
            return found[0]
    raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}{os.linesep}")
