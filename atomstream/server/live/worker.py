"""The worker process: ``python -m atomstream.server.live.worker``. It analyses; it stores nothing.

A process of its own, for the fits hold the interpreter for milliseconds at a time, and the server's loop would
wait for it at each piece of an upload; and because what analyses may die without taking the archive along. It
gets frames through memory shared with the ingest, already decoded, or decodes the shard's file itself.
It ends when its input does, so it never outlives its server.
"""

from __future__ import annotations

import math
import mmap
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from atomstream.errors import ShardError
from atomstream.records import Frames
from atomstream.server.archive_shards import ShardFile
from atomstream.server.live import framing
from atomstream.server.live.plain import Plain
from atomstream.server.live.session import Session

Reply = Callable[[Plain], None]


class Worker:
    """Does jobs for any number of streams, one after the other; ``reply`` sends a message back."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._sessions: dict[str, Session] = {}

    def do(self, job: Plain) -> None:
        """One job: its batches, then one message with ``done`` or ``error``."""
        try:
            done = getattr(self, f"_{job['job']}")(job)
        except (ShardError, OSError) as error:
            done = {"error": "shard", "text": str(error)}
        except Exception as error:
            self._sessions.pop(job["key"], None)  # what it knows may be half of something
            done = {
                "error": "analysis",
                "text": f"{type(error).__name__}: {error}",
                "trace": traceback.format_exc(),
            }
        self._reply({"done": True, **(done or {})})

    def _open(self, job: Plain) -> Plain:
        self._sessions[job["key"]] = Session(job["about"])
        return {}

    def _close(self, job: Plain) -> None:
        self._sessions.pop(job["key"], None)

    def _tell(self, job: Plain) -> None:
        self._sessions[job["key"]].tell(job["words"])

    def _chunk(self, job: Plain) -> Plain:
        session = self._sessions[job["key"]]
        with frames_of(job) as frames:
            for batch in session.feed(job["start"], frames, times_of(job)):
                self._reply({"batch": batch})
        return {"snapshot": session.state()} if job["state"] else {}

    def _late(self, job: Plain) -> None:
        session = self._sessions[job["key"]]
        with frames_of(job) as frames:
            for batch in session.late(job["start"], frames, times_of(job)):
                self._reply({"batch": batch})

    def _gap(self, job: Plain) -> None:
        self._sessions[job["key"]].gap(job["until"])

    def _finish(self, job: Plain) -> None:
        self._reply({"batch": self._sessions[job["key"]].finish()})


def times_of(job: Plain) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The frames' times in s."""
    return np.frombuffer(job["times"], dtype="<f8")


@contextmanager
def frames_of(job: Plain) -> Iterator[Frames]:
    """The frames (N, H, W) of a job: shared ones where there are, else decoded from the stored shard.

    Raises:
        ShardError, OSError: the shard can't be read.
    """
    shared = _shared(job)
    if shared is None:
        yield decoded(job)
        return
    dtype: np.dtype[Any] = np.dtype(job["dtype"])
    frames: Frames = np.frombuffer(shared, dtype, count=math.prod(job["dims"])).reshape(job["dims"])
    try:
        yield frames
    finally:
        del frames
        with suppress(BufferError):  # somebody still looks at it: then it is closed when that ends
            shared.close()


def _shared(job: Plain) -> mmap.mmap | None:
    if job.get("map") is None:
        return None
    try:
        with open(job["map"], "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:  # somebody has cleaned up there; the archive has the frames as well
        return None


def decoded(job: Plain) -> Frames:
    """All frames of the job's stored shard."""
    dtype: np.dtype[Any] = np.dtype(job["dtype"])
    frames: Frames = np.zeros(job["dims"], dtype)
    n, height, width = job["dims"]
    with ShardFile(Path(job["path"]), (n, height, width), job["dtype"], job["slots"]) as shard:
        for k, frame in shard.frames():
            frames[k] = frame
    return frames


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Input and output of the protocol; whatever else prints goes to stderr from now on."""
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return sys.stdin.buffer, out


def main() -> None:
    """Serve until the input ends."""
    source, sink = _own_pipes()

    def reply(message: Plain) -> None:
        view = memoryview(framing.pack(message))
        while view:
            view = view[sink.write(view) or 0 :]

    worker = Worker(reply)
    with suppress(BrokenPipeError, KeyboardInterrupt):
        while (job := framing.read(source)) is not None:
            worker.do(job)


if __name__ == "__main__":
    main()
