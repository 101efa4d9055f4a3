"""A user's script, run as a process of its own by test_processes: ``facade_child.py MODE URL KEY SPOOL``.

Talks in lines of JSON; waits for a line on stdin where the test has something to do first.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from atomstream import AsyncRHEEDStreamer, RHEEDStreamer
from atomstream.errors import AtomstreamError


def noise(seed: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (4, 16, 20), dtype=np.uint8)


def say(what: str, **more: Any) -> None:
    print(json.dumps({"what": what, "at_s": time.monotonic(), **more}), flush=True)  # noqa: T201


def say_when(condition: Callable[[], bool]) -> None:
    """Say "blocked" from another thread once the main one is."""

    def watch() -> None:
        while not condition():
            time.sleep(0.01)
        say("blocked")

    threading.Thread(target=watch, daemon=True).start()


def make(**settings: Any) -> RHEEDStreamer:
    _, _, url, key, spool = sys.argv
    return RHEEDStreamer(key, url, spool_dir=spool, spool_min_free_bytes=0, clock_sync=False, **settings)


def blocked(call: str) -> None:
    """Block in ``call`` until Ctrl-C, then go on and deliver."""
    with make(buffer_bytes=1) as streamer:
        data_id = streamer.initialize(2.0, 0.0, 4)
        streamer.push(data_id, 0, noise(0))
        watched = streamer.stats()["streams"][data_id]
        try:  # the signal may come as soon as the test has read this
            say("started", data_id=data_id, pending=watched["chunks_pending"])
            if call == "finalize":
                say_when(lambda: streamer.stats()["streams"][data_id]["finalized"])
                streamer.finalize(data_id)
            else:
                say_when(lambda: streamer.stats()["pushes_waiting"] > 0)
                CALLS[call](streamer, data_id)
        except KeyboardInterrupt:
            say("interrupted")
        sys.stdin.readline()
        say("report", report=streamer.finalize(data_id))


def push_frames(streamer: RHEEDStreamer, data_id: str) -> None:
    for frame in noise(1):
        streamer.push_frame(data_id, frame)


def generated() -> Iterator[npt.NDArray[np.uint8]]:
    yield noise(1)
    yield noise(2)


CALLS: dict[str, Callable[[RHEEDStreamer, str], None]] = {
    "push": lambda streamer, data_id: streamer.push(data_id, 1, noise(1)),
    "push_frame": push_frames,
    "run": lambda streamer, data_id: streamer.run(data_id, generated()),
    "flush": lambda streamer, data_id: streamer.flush(data_id),
}


def leave_open(count: int) -> None:
    """End without close and without finalize."""
    for _ in range(count):
        streamer = make()
        data_id = streamer.initialize(2.0, 0.0, 4)
        for k in range(5):
            streamer.push(data_id, k, noise(k))
        streamer.push_frame(data_id, noise(5)[0])
        say("started", data_id=data_id)
    say("end")


def fork() -> None:
    """A child that tries to use its parent's streamer, and exits in an ordinary way."""
    with make() as streamer:
        data_id = streamer.initialize(2.0, 0.0, 4)
        streamer.push(data_id, 0, noise(0))
        say("started", data_id=data_id)
        pid = os.fork()
        if pid == 0:
            try_everything(streamer, data_id)
            return  # through __exit__ and the hooks of the interpreter's exit
        say("forked", status=os.waitpid(pid, 0)[1])
        streamer.push(data_id, 1, noise(1))
        say("report", report=streamer.finalize(data_id))


def capture() -> None:
    """Tell of the collections of garbage while frames are pushed and the script makes and drops objects of its own."""
    walks: list[int] = []
    with make() as streamer:
        data_id = streamer.initialize(2.0, 0.0, 4)
        gc.callbacks.append(
            lambda phase, info: walks.append(info["generation"]) if phase == "start" else None
        )
        gc.set_threshold(50)  # as many collections as in minutes at the usual 700
        for _ in range(50):
            push_frames(streamer, data_id)
            for _ in range(4):
                objects: list[set[int]] = [set() for _ in range(60)]
                del objects
        say("walked", generations=walks)
        streamer.finalize(data_id)


async def stream_async() -> None:
    """Tell what was imported while a stream ran, from its creation to its end."""
    _, _, url, key, spool = sys.argv
    chunk, frames = noise(0), noise(1)
    async with AsyncRHEEDStreamer(key, url, spool_dir=spool, spool_min_free_bytes=0) as streamer:
        before = set(sys.modules)
        data_id = await streamer.initialize(2.0, 0.0, 4)
        await streamer.push(data_id, 0, chunk)
        for frame in frames:
            await streamer.push_frame(data_id, frame)
        await streamer.flush(data_id)
        await streamer.finalize(data_id)
        say("imported", modules=sorted(set(sys.modules) - before))


def try_everything(streamer: RHEEDStreamer, data_id: str) -> None:
    for verb in (
        lambda: streamer.push(data_id, 5, noise(5)),
        lambda: streamer.push_frame(data_id, noise(5)[0]),
        lambda: streamer.run(data_id, [noise(5)]),
        lambda: streamer.flush(data_id),
        lambda: streamer.finalize(data_id),
        lambda: streamer.initialize(2.0, 0.0, 4),
        streamer.stats,
    ):
        try:
            verb()
        except AtomstreamError as error:
            say("refused", kind=type(error).__name__, sentence=str(error))


if __name__ == "__main__":
    mode = sys.argv[1]
    if mode == "fork":
        fork()
    elif mode == "capture":
        capture()
    elif mode == "async":
        asyncio.run(stream_async())
    elif mode.startswith("exit"):
        leave_open(int(mode.removeprefix("exit")))
    else:
        blocked(mode)
