"""Runs ``atomstream serve`` in a child process on a free port, and measures its CPU and memory."""

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

import psutil  # type: ignore[import-untyped]  # psutil has no type hints

from benchmarks.processes import ROOT, environment

KEY: Final = "atst_benchmark_key_0123456789"


@dataclass(frozen=True, slots=True)
class Served:
    """A running server; ``login`` has URL and key for a client."""

    url: str
    folder: Path
    process: psutil.Process

    @property
    def login(self) -> dict[str, Any]:
        """URL and API key."""
        return {"url": self.url, "key": KEY}

    def cpu_s(self) -> float:
        """Return the CPU time so far in s, with child processes."""
        return float(sum(times.user + times.system for times in (part.cpu_times() for part in self._parts())))

    def rss(self) -> int:
        """Return the resident memory in bytes, with child processes."""
        return int(sum(part.memory_info().rss for part in self._parts()))

    def get(self, path: str) -> Any:
        """Return the JSON reply to a GET."""
        with urlopen(Request(self.url + path, headers={"X-API-KEY": KEY}), timeout=60) as reply:
            return json.load(reply)

    def _parts(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@contextmanager
def running_server(folder: Path) -> Iterator[Served]:
    """Run a server with the data folder ``folder`` for the duration of a ``with`` block."""
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
