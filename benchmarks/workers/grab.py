"""Streams from one camera emulator for some seconds, and prints the time of each push and the lost frames as JSON."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from typing import Any

import _pytest.outcomes
import numpy as np

from atomstream.cameras import (
    CameraFeed,
    CameraFrame,
    CameraSettings,
    Grabber,
    Region,
    Transforms,
    open_camera,
)
from atomstream.streaming import RHEEDStreamer
from tests.cameras.emulators import EMULATORS, ioc

CHUNK_BYTES = 73_728_000
"""Largest chunk: 240 frames of 640x480, so that several chunks fit into the default ``buffer_bytes``."""


def main() -> None:
    job = json.loads(sys.argv[1])
    with ExitStack() as stack:
        try:
            name, prepare, settings = opened(stack, job["emulator"], dict(job["settings"]))
        except _pytest.outcomes.Skipped as why:
            print(json.dumps({"skipped": str(why)}))
            return
        print(json.dumps(stream(job, name, prepare, settings)))


def opened(stack: ExitStack, emulator: str, wanted: dict[str, Any]) -> tuple[str, Any, CameraSettings]:
    """Start the emulator; returns the camera's name, what to call once it is open, and its settings."""
    if emulator == "epics":
        served = stack.enter_context(ioc(tuple(wanted["shape"]), wanted["fps"]))
        del served
        return "epics:RHEED:Image", lambda: None, CameraSettings()
    there = stack.enter_context(EMULATORS[emulator]())
    roi = wanted.pop("roi", None)
    settings = CameraSettings(**wanted, roi=None if roi is None else Region(*roi))
    names = {"simulated": "sim", "screen": "screen:0,0,320,240"}
    return names.get(emulator, there.name), there.prepare, settings


def stream(job: dict[str, Any], name: str, prepare: Any, settings: CameraSettings) -> dict[str, Any]:
    """Push every frame of ``seconds``; the rest of the job is the streamer's."""
    calls: list[float] = []
    with (
        RHEEDStreamer("key", job["url"], None, job["spool"], spool_min_free_bytes=0) as streamer,
        Grabber(open_camera(name), settings, notify=lambda text: None) as grabber,
    ):
        prepare()
        feed = CameraFeed(grabber, Transforms(), max_seconds=job["seconds"])
        fps, shape = grabber.info.fps or 60.0, grabber.info.shape
        nbytes = max(1, shape[0] * shape[1]) * np.dtype(grabber.info.dtype).itemsize
        data_id = streamer.initialize(fps, 0.0, max(1, min(round(2.0 * fps), CHUNK_BYTES // nbytes)))

        def push(frame: CameraFrame) -> None:
            begun = time.perf_counter()
            streamer.push_frame(data_id, frame.pixels, frame.time_ms_utc, frame.frame_id)
            calls.append(time.perf_counter() - begun)

        feed.connect(push)  # before the start: no frame is held, so each push is one of real time
        feed.start()
        first = feed.first_frame().pixels
        pushed = sum(feed.progress())
        report = streamer.finalize(data_id)
    counts = grabber.counts
    return {
        "frame": f"{first.shape[1]}x{first.shape[0]} {first.dtype}",
        "fps": pushed / job["seconds"],
        "lost": counts.missing + counts.incomplete + counts.late + len(report["lost"]),
        "call_s": calls,
    }


if __name__ == "__main__":
    main()
