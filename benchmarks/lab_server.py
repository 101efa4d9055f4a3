"""A real ``atomstream serve`` in a separate process, which can be killed and started again on its folder and port."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

import psutil  # type: ignore[import-untyped]  # psutil has no type hints

MIB: Final = float(1 << 20)
SAMPLE_S: Final = 0.05
HANDLES: Final = 1024
"""Files that the server may open, as most shells and systemd allow by default."""


class LabServer:
    """One server on a free port of 127.0.0.1.

    If ``sampled``, a thread looks for its peak memory (all its processes) 20 times a second, which takes a few percent
    of a core.
    """

    def __init__(self, folder: Path, *arguments: str, handles: int = HANDLES, sampled: bool = True) -> None:
        self.data = folder / "data"
        self.log = folder / "server.log"
        self.api_key = f"atst_{secrets.token_urlsafe(32)}"
        self.url = ""
        self.peak_mb = 0.0
        self._arguments = arguments
        self._handles = handles
        self._sampled = sampled
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._sampler: threading.Thread | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The header with the API key."""
        return {"X-API-KEY": self.api_key}

    def start(self) -> float:
        """Start; returns the seconds until it listens."""
        began = time.monotonic()
        command = [
            sys.executable,
            "-m",
            "atomstream.cli",
            "serve",
            "--data",
            str(self.data),
            "--port",
            str(self._port),
        ]
        limit = (
            f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({self._handles},) * 2); "
        )
        wrapped = [
            sys.executable,
            "-c",
            f"{limit}os.execv(sys.argv[1], sys.argv[1:])",
            *command,
            *self._arguments,
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                wrapped,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "ATOMSTREAM_API_KEY": self.api_key},
                start_new_session=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        if "listens at" not in line:
            raise RuntimeError(f"the server did not start: {self.log.read_text(errors='replace')[-2000:]}")
        self.url = line.split()[-1]
        if self._sampled:
            self._sampler = threading.Thread(target=self._sample, args=(self._process,), daemon=True)
            self._sampler.start()
        return time.monotonic() - began

    def _sample(self, process: subprocess.Popen[bytes]) -> None:
        while process.poll() is None:
            self.peak_mb = max(self.peak_mb, self.memory_mb())
            time.sleep(SAMPLE_S)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the server and its workers; with SIGKILL without any notice."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number) if number is signal.SIGKILL else process.send_signal(number)
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()

    def kill(self) -> None:
        """SIGKILL of the server and its workers."""
        self.stop(signal.SIGKILL)

    def parts(self) -> list[psutil.Process]:
        """The server, then its workers."""
        if self._process is None:
            return []
        with contextlib.suppress(psutil.Error):
            own = psutil.Process(self._process.pid)
            return [own, *own.children(recursive=True)]
        return []

    def memory_mb(self) -> float:
        """Memory of all its processes in MiB: resident, shared memory counted in each."""
        total = 0
        for one in self.parts():
            with contextlib.suppress(psutil.Error):
                total += one.memory_info().rss
        return total / MIB

    def own_memory_mb(self) -> float:
        """Memory of the server without its workers in MiB."""
        return float(self.parts()[0].memory_info().rss / MIB)

    def handles(self) -> int:
        """Files and sockets that the server has open."""
        return int(self.parts()[0].num_fds())

    def threads(self) -> int:
        """Threads of the server."""
        return int(self.parts()[0].num_threads())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
