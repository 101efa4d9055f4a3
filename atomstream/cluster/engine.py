"""A service in a separate process on this machine: started in a folder, awaited until it answers, stopped by its id.

The process has its own session, so that Ctrl-C in a terminal reaches only the command that started it. That
command then stops its services in the right order.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

from atomstream.errors import ConfigError

HOST: Final = "127.0.0.1"

_PORTS: Final = range(15_000, 32_000)
"""Below the ports that operating systems give to outgoing connections: a service that restarts finds its port free."""

_LOOK_S: Final = 0.02

_given: set[int] = set()
"""Ports that :func:`free_ports` has returned in this process: a service may not listen on its port yet."""


def free_ports(count: int) -> list[int]:
    """``count`` TCP ports of the loopback interface that nothing listens on now; none is returned twice."""
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        found.append(port)
        _given.add(port)
        if len(found) == count:
            return found
    raise ConfigError(
        f"There are no {count} free TCP ports between {_PORTS.start} and {_PORTS.stop} on {HOST}."
    )


class Engine(ABC):
    """One service. :meth:`start` may be called again after :meth:`stop` or :meth:`kill`: same folder, same ports.

    Attributes:
        folder: where the service stores its data, its configuration and ``log.txt``; made if missing.
    """

    name: str
    """What messages call it, such as ``NATS``."""

    start_limit_s: float = 60.0
    """After this time without an answer, :meth:`start` fails."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """The address for clients of the service."""

    @property
    def pid(self) -> int:
        """Id of the running process."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """True from :meth:`start` until the process ends for whatever reason."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process; returns when it answers.

        Raises:
            ConfigError: the program is missing, it ended at once, or it did not answer in :attr:`start_limit_s`.
        """
        if self.running:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._prepare()
        deadline = time.monotonic() + self.start_limit_s
        self._launch()
        while not self._answers():
            ended = not self.running
            if ended and not self._may_start_again():
                raise ConfigError(f"{self.name} ended at once. The end of {self._log}:\n{self._last_lines()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ConfigError(
                    f"{self.name} did not answer within {self.start_limit_s:g} s. The end of {self._log}:\n"
                    f"{self._last_lines()}"
                )
            if ended:
                self._launch()
            time.sleep(_LOOK_S)

    def stop(self, limit_s: float = 5.0) -> None:
        """End the process in an orderly way; after ``limit_s`` seconds kill it."""
        if self._process is None:
            return
        self.resume()
        self._send(self._stop_signal)
        try:
            self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the process by SIGKILL, as a loss of power would."""
        if self._process is not None:
            self._send(signal.SIGKILL)
            self._process.wait()

    def pause(self) -> None:
        """Freeze the process (SIGSTOP): its connections stay open, and nothing answers on them."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue a frozen process (SIGCONT)."""
        self._send(signal.SIGCONT)

    _stop_signal = signal.SIGTERM

    @abstractmethod
    def _command(self) -> list[str]:
        """The command line."""

    @abstractmethod
    def _prepare(self) -> None:
        """Write the configuration, before each start."""

    @abstractmethod
    def _answers(self) -> bool:
        """True if the service answers a request now. Returns within a second."""

    def _may_start_again(self) -> bool:
        """True if the process may be started again after it has ended too early."""
        return False

    _user: str | None = None
    """The operating system's user who runs it; None is the present one."""

    @property
    def _log(self) -> Path:
        return self.folder / "log.txt"

    def _launch(self) -> None:
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self._user,
                extra_groups=None if self._user is None else [],
                env=self._environment(),
            )

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    def _last_lines(self) -> str:
        return "\n".join(self._log.read_text("utf-8", errors="replace").splitlines()[-8:])

    def _send(self, number: int) -> None:
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def listens(port: int) -> bool:
    """True if a connection to this port of the loopback interface is accepted now."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=0.5):
        return True
    return False
