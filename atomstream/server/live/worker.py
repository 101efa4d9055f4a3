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

import msgspec
import numpy as np

from atomstream.analysis import Analyzer, Box, Calibration
from atomstream.errors import ShardError
from atomstream.records import Frames
from atomstream.results import F64, Batch, Plain, from_batch
from atomstream.server.archive.shard_file import ShardFile
from atomstream.server.live import messages as framing
from atomstream.server.live.messages import from_region, to_region

# The analysis of one stream inside a worker: frames and words in, plain results out.

SUB_BATCH_S = 0.5
"""Results come at least so often, in seconds of frames, however long the chunks are: fits are renewed as often."""

LATE_COLUMNS = frozenset(
    {
        "time_seconds",
        *("specular_intensity", "specular_background", "specular_x", "specular_y", "saturated_fraction"),
        *(f"{order}_order_intensity{side}" for order in ("first", "half") for side in ("", "_l", "_r")),
        "azimuth_angle",
    }
)
"""What can be measured on frames that come too late for the fits."""


class AnalyzerSession:
    """One stream's analyser. ``about`` has fps, rpm, chunk_size, calibration, and ``state`` where there is one."""

    def __init__(self, about: Plain) -> None:
        self._about = about
        self._words: list[Plain] = []
        self._step = max(1, round(SUB_BATCH_S * about["fps"]))
        state = about.get("state")
        self._engine = Analyzer.from_state(msgspec.msgpack.decode(state)) if state else self._fresh()

    def _fresh(self) -> Analyzer:
        about = self._about
        return Analyzer(
            about["fps"], about["rpm"], about["chunk_size"], Calibration(**about.get("calibration") or {})
        )

    def tell(self, words: list[Plain]) -> None:
        """Take what the user said: events wait for their time, the rest holds from now on."""
        for word in words:
            match word["what"]:
                case "regions":
                    self._engine.set_regions([to_region(plain) for plain in word["regions"]])
                case "calibration":
                    self._about["calibration"] = word["calibration"]
                    self._engine.set_calibration(Calibration(**word["calibration"]))
                case "event":
                    self._words.append(word)
        self._words.sort(key=lambda word: float(word["time_s"]))

    def feed(self, start: int, frames: Frames, times: F64) -> Iterator[Plain]:
        """Analyse frames (N, H, W) from index ``start`` on, at ``times`` (N,) in s; yields batches as they are done."""
        for first in range(0, len(frames), self._step):
            part = slice(first, first + self._step)
            self._say_until(float(times[part][-1]))
            batch = self._engine.feed(start + first, frames[part], times[part])
            yield self._told(batch)

    def gap(self, until: int) -> None:
        """Pass frames up to index ``until``; the event of it comes with the next batch."""
        self._engine.gap(until - self._engine.frames_fed)

    def late(self, start: int, frames: Frames, times: F64) -> Iterator[Plain]:
        """Measure frames whose turn is over: what needs no neighbours in time, with the regions as they are now."""
        helper = self._fresh()
        helper.set_regions(
            [box for box in self._engine.regions if isinstance(box, Box) and box.name != "streaks"]
        )
        for batch in (helper.feed(start, frames, times), helper.finish()):
            plain = from_batch(batch)
            columns = plain["columns"].items()
            kept = {name: raw for name, raw in columns if name in LATE_COLUMNS or name.startswith("region_")}
            yield {"start": plain["start"], "count": plain["count"], "columns": kept}

    def finish(self) -> Plain:
        """Say the last words, close what is open, fit once more."""
        self._say_until(float("inf"))
        return self._told(self._engine.finish())

    def _told(self, batch: Batch) -> Plain:
        return {**from_batch(batch), "fed": self._engine.frames_fed, "detected_regions": self._found()}

    def _say_until(self, time_s: float) -> None:
        while self._words and self._words[0]["time_s"] <= time_s:
            word = self._words.pop(0)
            if word["kind"] == "rotation":
                self._engine.set_rotation(word["value"])
            else:
                self._engine.mark(word["label"], word["kind"], word["time_s"])

    def _found(self) -> list[Plain]:
        """The analysis' own regions, where they are now."""
        return [
            from_region(region) for region in self._engine.regions if region.name in ("specular", "streaks")
        ]

    def state(self) -> Plain:
        """Everything the analyser knows (``state``), and the ``words`` that still wait for their time."""
        return {"state": msgspec.msgpack.encode(self._engine.state()), "words": list(self._words)}


Reply = Callable[[Plain], None]


class Worker:
    """Does jobs for any number of streams, one after the other; ``reply`` sends a message back."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._sessions: dict[str, AnalyzerSession] = {}

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
        self._sessions[job["key"]] = AnalyzerSession(job["about"])
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
