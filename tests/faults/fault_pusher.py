"""A client in a separate process: pushes a film and writes each step, before and after it, to a side file.

``fault_pusher.py JSON``; see :class:`Orders`. Lines are written to the side file, which survives a kill, and to
stdout, by which the parent synchronises. After the pushes it ends in the way of ``end``: see ``ENDS``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from atomstream import RHEEDStreamer
from atomstream.errors import AtomstreamError
from tests.faults.fault_helpers import FPS, Film
from tests.faults.short_retries import shorten


@dataclass
class Orders:
    """What to do.

    ``data_id``: None makes a stream, "" resumes the only one in the spool. ``pause_at``: before that chunk a
    line on stdin is waited for. ``repeat``: each chunk is pushed twice. ``from_start``: a resumed stream too
    is pushed from its first chunk.
    """

    url: str
    key: str
    spool: str
    side: str
    film: dict[str, int] = field(default_factory=dict)
    data_id: str | None = None
    first: int = 0
    count: int = 10
    pause_at: int | None = None
    fork_at: int | None = None
    kill_at: int | None = None
    repeat: bool = False
    from_start: bool = False
    end: str = "close"
    settings: dict[str, Any] = field(default_factory=dict)


class LineWriter:
    """Writes lines unbuffered, before anything else happens."""

    def __init__(self, side: str) -> None:
        self._fd = os.open(side, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def write_line(self, *words: object) -> None:
        """Write one line with one system call."""
        line = (" ".join(map(str, words)) + "\n").encode()
        os.write(self._fd, line)
        os.write(1, line)


def push_all(streamer: RHEEDStreamer, data_id: str, orders: Orders, writer: LineWriter) -> None:
    film = Film(**orders.film)
    for index in range(orders.first, orders.first + orders.count):
        if index == orders.pause_at:
            writer.write_line("paused", index)
            sys.stdin.readline()
        if index == orders.fork_at:
            fork(streamer, data_id, film, writer)
        if index == orders.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        frames = film.chunk(index)
        writer.write_line("pushing", index)
        for _ in range(1 + orders.repeat):
            streamer.push(data_id, index, frames)
        writer.write_line("accepted", index)


def fork(streamer: RHEEDStreamer, data_id: str, film: Film, writer: LineWriter) -> None:
    """Fork a child that tries to use its parent's streamer, and exits."""
    child = os.fork()
    if child:
        writer.write_line("child_left_with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        return
    try:
        streamer.push(data_id, 0, film.chunk(0))
    except AtomstreamError as error:
        writer.write_line("child_got", type(error).__name__)
    sys.exit(0)


def end_close(streamer: RHEEDStreamer, data_id: str, writer: LineWriter) -> None:
    streamer.close()


def end_finalize(streamer: RHEEDStreamer, data_id: str, writer: LineWriter) -> None:
    writer.write_line("report", json.dumps(streamer.finalize(data_id, 60.0)))
    streamer.close()


def end_exit(streamer: RHEEDStreamer, data_id: str, writer: LineWriter) -> None:
    """Exit without close()."""


def end_hold(streamer: RHEEDStreamer, data_id: str, writer: LineWriter) -> None:
    """Wait until this process is killed."""
    writer.write_line("held", 0)
    while True:
        time.sleep(0.1)


def end_flush(streamer: RHEEDStreamer, data_id: str, writer: LineWriter) -> None:
    streamer.flush(data_id)
    writer.write_line("flushed", 0)
    streamer.close()


ENDS: dict[str, Callable[[RHEEDStreamer, str, LineWriter], None]] = {
    "close": end_close,
    "finalize": end_finalize,
    "exit": end_exit,
    "hold": end_hold,
    "flush": end_flush,
}


def main() -> None:
    # A background job of a shell is started with SIGINT ignored, but this test needs it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    shorten()
    orders = Orders(**json.loads(sys.argv[1]))
    writer = LineWriter(orders.side)
    writer.write_line("pid", os.getpid())
    warnings.simplefilter("ignore", UserWarning)
    settings = {"spool_min_free_bytes": 0, "clock_sync": False, **orders.settings}
    streamer = RHEEDStreamer(orders.key, orders.url, 1, orders.spool, **settings)
    if orders.data_id is None:
        data_id = streamer.initialize(FPS, 0.0, Film(**orders.film).n)
    else:
        data_id = orders.data_id or streamer.spool_status()["streams"][0]["data_id"]
        resumed = streamer.resume(data_id)
        orders.first = 0 if orders.from_start else resumed
    writer.write_line("stream", data_id)
    push_all(streamer, data_id, orders, writer)
    ENDS[orders.end](streamer, data_id, writer)


if __name__ == "__main__":
    main()
