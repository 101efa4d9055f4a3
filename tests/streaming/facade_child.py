"""A user's script that test_processes runs in its own process:

``facade_child.py MODE URL KEY SPOOL``. It writes lines of JSON, and waits for a line on stdin where the test must do
something first.
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


def send_line(what: str, **more: Any) -> None:
    print(json.dumps({"what": what, "at_s": time.monotonic(), **more}), flush=True)  # noqa: T201


def send_when_blocked(condition: Callable[[], bool]) -> None:
    """Write the line "blocked", from another thread, once the main thread is blocked."""

    def watch() -> None:
        while not condition():
            time.sleep(0.01)
        send_line("blocked")

    threading.Thread(target=watch, daemon=True).start()


def make(**settings: Any) -> RHEEDStreamer:
    _, _, url, key, spool = sys.argv
    return RHEEDStreamer(key, url, spool_dir=spool, spool_min_free_bytes=0, clock_sync=False, **settings)


def blocked(call: str) -> None:
    """Block in ``call`` until Ctrl-C, then continue and deliver."""
    with make(buffer_bytes=1) as streamer:
        data_id = streamer.initialize(2.0, 0.0, 4)
        streamer.push(data_id, 0, noise(0))
        watched = streamer.stats()["streams"][data_id]
        try:  # the test sends the signal after it has read this line
            send_line("started", data_id=data_id, pending=watched["chunks_pending"])
            if call == "finalize":
                send_when_blocked(lambda: streamer.stats()["streams"][data_id]["finalized"])
                streamer.finalize(data_id)
            else:
                send_when_blocked(lambda: streamer.stats()["pushes_waiting"] > 0)
                CALLS[call](streamer, data_id)
        except KeyboardInterrupt:
            send_line("interrupted")
        sys.stdin.readline()
        send_line("report", report=streamer.finalize(data_id))


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
    """Exit without close and without finalize."""
    for _ in range(count):
        streamer = make()
        data_id = streamer.initialize(2.0, 0.0, 4)
        for k in range(5):
            streamer.push(data_id, k, noise(k))
        streamer.push_frame(data_id, noise(5)[0])
        send_line("started", data_id=data_id)
    send_line("end")


def fork() -> None:
    """Fork a child that tries to use its parent's streamer and exits normally."""
    with make() as streamer:
        data_id = streamer.initialize(2.0, 0.0, 4)
        streamer.push(data_id, 0, noise(0))
        send_line("started", data_id=data_id)
        pid = os.fork()
        if pid == 0:
            try_each_method(streamer, data_id)
            return  # runs __exit__ and the interpreter's exit hooks
        send_line("forked", status=os.waitpid(pid, 0)[1])
        streamer.push(data_id, 1, noise(1))
        send_line("report", report=streamer.finalize(data_id))


def capture() -> None:
    """Report garbage collections while frames are pushed and the script creates and drops its own objects."""
    walks: list[int] = []
    with make() as streamer:
        data_id = streamer.initialize(2.0, 0.0, 4)
        gc.callbacks.append(
            lambda phase, info: walks.append(info["generation"]) if phase == "start" else None
        )
        gc.set_threshold(50)  # as many collections as in some minutes with the default of 700
        for _ in range(50):
            push_frames(streamer, data_id)
            for _ in range(4):
                objects: list[set[int]] = [set() for _ in range(60)]
                del objects
        send_line("walked", generations=walks)
        streamer.finalize(data_id)


async def stream_async() -> None:
    """Report which modules were imported while a stream ran, from its creation to its end."""
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
        send_line("imported", modules=sorted(set(sys.modules) - before))


def try_each_method(streamer: RHEEDStreamer, data_id: str) -> None:
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
            send_line("refused", kind=type(error).__name__, sentence=str(error))


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
