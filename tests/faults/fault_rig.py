"""Processes for the fault campaign: a server, clients, and the recovery after each fault."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import urlsplit

from atomstream import RHEEDStreamer
from atomstream.errors import StreamFinalizedError, UnknownStreamError
from atomstream.records import StreamReport
from tests.faults.fault_helpers import FPS, Film, StepLog, StoredStream
from tests.paths import REPO

HERE = Path(__file__).parent
KEY = "atst_campaign_0123456789_abcdefghij"
PATIENCE_S = 60.0


def environment(**more: str) -> dict[str, str]:
    """A clean environment in which the package and this folder can be imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ATOMS")}
    return {
        **kept,
        "PYTHONPATH": str(REPO),
        "PYTHONDONTWRITEBYTECODE": "1",
        **more,
    }


class ServerProcess:
    """``atomstream serve`` in a separate process, always with the same folder and port."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.url = ""
        self._port = 0
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        words = ["serve", "--data", str(self.data), "--port", str(self._port), "--api-key", KEY]
        log = (self.data.parent / "server.log").open("a")
        with log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "atomstream.cli", *words],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(),
            )
        line = _line(self._process.stdout)
        self.url = line.split()[-1]
        self._port = urlsplit(self.url).port or 0

    def kill(self) -> None:
        """Send SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def pause(self) -> None:
        """Stop it with SIGSTOP: the system still accepts connections, but it does not respond."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Continue it with SIGCONT."""
        self._signal(signal.SIGCONT)

    def stored_stream(self, data_id: str) -> StoredStream:
        """The stream as stored by the server."""
        return StoredStream(self.data / "streams" / data_id)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)


class Pusher:
    """One client process; its side file has the steps that it did."""

    def __init__(self, side: Path, command: Sequence[str], **more: str) -> None:
        self._side = side
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**more),
        )
        self.errors = ""

    def read(self, word: str) -> str:
        """Read stdout up to a line that begins with ``word`` and return it; empty if the process ended before."""
        while (line := _line(self.process.stdout)) and not line.startswith(word):
            pass
        return line

    def send_line(self) -> None:
        """Send the line that a paused pusher waits for."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> StepLog:
        """Send SIGKILL; returns the steps that it wrote until then."""
        self.process.kill()
        return self.ended()

    def kill_traced(self) -> StepLog:
        """Send SIGKILL to the process itself, by the id that it wrote, if it runs under a tracer."""
        os.kill(self.own_pid(), signal.SIGKILL)
        return self.ended()

    def own_pid(self) -> int:
        """Its own process id, not that of the command prefix."""
        return int(StepLog.read(self._side).words("pid")[0])

    def ended(self) -> StepLog:
        """Wait for the end of the process; returns the steps that it printed."""
        self.errors = self.process.communicate(timeout=PATIENCE_S)[1]
        return StepLog.read(self._side)


class Rig:
    """A server, a folder for spools, and the started processes, which are stopped at its end."""

    records = "chunk-*.rec"
    syncs = True
    """Whether the client can be asked to acknowledge what would survive a power cut."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "server").mkdir(parents=True)
        self.server = ServerProcess(folder / "server")
        self._pushers: list[Pusher] = []
        self._count = 0

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.go_on()
        self.server.kill()
        for pusher in self._pushers:
            pusher.process.kill()
            pusher.process.communicate()

    @staticmethod
    def index_of(record: Path) -> int:
        """The chunk's index, from the record's name."""
        return int(record.stem.removeprefix("chunk-"))

    def on_disk(self, spool: Path) -> set[int]:
        """The indices of the chunks with a complete record."""
        return {self.index_of(path) for path in spool.rglob(self.records)}

    def is_quarantined(self, record: Path, reported: bool) -> bool:
        """True if the damaged record still exists and the report names its chunk."""
        return reported and (record.parent / "quarantine" / record.name).exists()

    def new_spool(self) -> Path:
        """A new folder."""
        self._count += 1
        return self.folder / f"spool-{self._count}"

    def push(
        self, film: Film, spool: Path, *, before: Sequence[str] = (), env: dict[str, str] | None = None,
        **orders: Any,
    ) -> Pusher:  # fmt: skip
        """Start a pusher (see :class:`fault_pusher.Orders`), with the command prefix ``before`` if given."""
        self._count += 1
        side = self.folder / f"side-{self._count}"
        command = [*before, *self.command(film, spool, side, **orders)]
        self._pushers.append(Pusher(side, command, **(env or {})))
        return self._pushers[-1]

    def command(self, film: Film, spool: Path, side: Path, **orders: Any) -> list[str]:
        """The command of a pusher."""
        steps = {"url": self.server.url, "key": KEY, "spool": str(spool), "side": str(side)}
        text = json.dumps({**steps, "film": asdict(film), **orders})
        return [sys.executable, str(HERE / "fault_pusher.py"), text]

    def recovery_command(self, film: Film, spool: Path, side: Path) -> list[str]:
        """The command of a pusher that resumes the spool's only stream and ends it."""
        return self.command(film, spool, side, data_id="", count=0, end="finalize")

    def leave(self, film: Film, spool: Path, count: int) -> StepLog:
        """A spool with ``count`` records of a client that was killed while the server did not respond."""
        steps = StepLog()
        with RHEEDStreamer(
            KEY, self.server.url, None, spool, spool_min_free_bytes=0, clock_sync=False
        ) as streamer:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                data_id = streamer.initialize(FPS, 0.0, film.n)
            steps.lines.append(["stream", data_id])
            self.server.pause()
            for index in range(count):
                streamer.push(data_id, index, film.chunk(index))
                steps.lines += [["pushing", str(index)], ["accepted", str(index)]]
        self.server.go_on()
        return steps

    def recover(self, spool: Path, data_id: str) -> StreamReport | None:
        """Deliver the chunks of the spool with a new streamer and end the stream; returns its report.

        None where an earlier process had begun to end it: then this one only sees it through; or had ended it,
        and died before its folder was gone: then nothing of it may be left.
        """
        with RHEEDStreamer(
            KEY, self.server.url, None, spool, spool_min_free_bytes=0, clock_sync=False
        ) as streamer:
            try:
                streamer.resume(data_id)
            except StreamFinalizedError:
                _wait_until_gone(streamer, data_id)
                return None
            except UnknownStreamError:
                if any(stream["data_id"] == data_id for stream in streamer.spool_status()["streams"]):
                    raise
                return None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # the caller checks for missing chunks
                return streamer.finalize(data_id, PATIENCE_S)


def _wait_until_gone(streamer: RHEEDStreamer, data_id: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while any(stream["data_id"] == data_id for stream in streamer.spool_status()["streams"]):
        if time.monotonic() > deadline:
            raise TimeoutError(f"stream {data_id} was not seen through: {streamer.spool_status()}")
        time.sleep(0.01)


def _line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline()
