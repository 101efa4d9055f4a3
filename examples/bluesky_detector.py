"""A bluesky detector that streams: each run of a plan films with the camera, and the documents refer to the stream.

``StreamingDetector`` is a StandardDetector of ophyd-async. The frames go to the server; bluesky gets a
``stream_resource`` with the data_id and a ``stream_datum`` for each part of the film.

Needs ``pip install bluesky ophyd-async``. Run it against a server (``atomstream serve``)::

    export ATOMSTREAM_ENDPOINT=http://127.0.0.1:8765 ATOMSTREAM_API_KEY=atst_...
    python examples/bluesky_detector.py --camera sim --frames 240
"""

from __future__ import annotations

import argparse
import asyncio
import math
import time
from collections.abc import Iterator
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
from bluesky.run_engine import RunEngine
from ophyd_async.core import (
    DetectorAcquireLogic,
    DetectorDataLogic,
    DetectorTriggerLogic,
    StandardDetector,
    StreamableDataProvider,
    StreamResourceDataProvider,
    StreamResourceInfo,
    TriggerInfo,
    init_devices,
    soft_signal_r_and_setter,
)

from atomstream import RHEEDStreamer
from atomstream.cameras import CameraSettings, Grabber, open_camera


class Film:
    """One camera and its present stream, shared by the three logics of the detector."""

    def __init__(self, streamer: RHEEDStreamer, camera: str) -> None:
        self.streamer = streamer
        self.camera = camera
        self.grabber: Grabber | None = None
        self.data_id = ""
        self.wanted = 0
        self.done = 0
        self.written, self.set_written = soft_signal_r_and_setter(int)
        self.task: asyncio.Task[None] | None = None

    def open(self, settings: CameraSettings) -> None:
        """Open the camera."""
        self.grabber = Grabber(open_camera(self.camera), settings)
        self.grabber.open()

    def push(self, loop: asyncio.AbstractEventLoop) -> None:
        """Push the requested number of frames, from the first one exposed after this call."""
        assert self.grabber is not None
        began_ms, end = 1000.0 * time.time(), self.done + self.wanted
        for frame in self.grabber.frames():
            assert frame.time_ms_utc is not None
            if frame.time_ms_utc < began_ms:
                continue
            self.streamer.push_frame(self.data_id, frame.pixels, frame.time_ms_utc, frame.frame_id)
            self.done += 1
            loop.call_soon_threadsafe(self.set_written, self.done)
            if self.done == end:
                return

    def close(self) -> None:
        """Close the camera and finalize the stream."""
        if self.grabber is not None:
            self.grabber.close()
            self.grabber = None
        if self.data_id:
            report = self.streamer.finalize(self.data_id)
            print(
                f"data_id: {self.data_id}\n{report['chunks_uploaded']} of {report['chunks_spooled']} chunks stored"
            )
            self.data_id = ""


class Trigger(DetectorTriggerLogic):
    """The trigger logic: sets exposure and rate of the next frames."""

    def __init__(self, film: Film) -> None:
        self.film = film

    async def prepare_internal(self, num: int, livetime: float, deadtime: float) -> None:
        """Open the camera; a livetime of 0 leaves its own exposure and rate."""
        self.film.wanted = num
        if self.film.grabber is None:
            fps = 1.0 / (livetime + deadtime) if livetime + deadtime else None
            exposure_ms = 1000.0 * livetime if livetime else None
            await asyncio.to_thread(self.film.open, CameraSettings(exposure_ms=exposure_ms, fps=fps))


class Data(DetectorDataLogic):
    """The data logic: describes the stream on the server to bluesky."""

    def __init__(self, film: Film) -> None:
        self.film = film

    async def prepare_unbounded(self, datakey_name: str) -> StreamableDataProvider:
        """Create the stream, and describe it for the documents."""
        film = self.film
        assert film.grabber is not None
        info = film.grabber.info
        fps = info.fps or 30.0
        chunk = math.ceil(2.0 * fps)
        film.data_id = await asyncio.to_thread(
            film.streamer.initialize, fps, 0.0, chunk, f"bluesky {datakey_name}"
        )
        film.done = 0
        film.set_written(0)
        resource = StreamResourceInfo(
            data_key=datakey_name,
            shape=info.shape,
            chunk_shape=(chunk, *info.shape),
            dtype_numpy=np.dtype(info.dtype).str,
            parameters={"data_id": film.data_id, "dataset": "frames"},
        )
        return StreamResourceDataProvider(
            uri=f"atomstream://localhost/{film.data_id}",
            resources=[resource],
            mimetype="application/x-atomstream",
            collections_written_signal=film.written,
        )

    async def stop(self) -> None:
        """End the stream; bluesky calls this before and after a run."""
        await asyncio.to_thread(self.film.close)


class Acquire(DetectorAcquireLogic):
    """The acquire logic: starts, waits for and stops the camera."""

    def __init__(self, film: Film) -> None:
        self.film = film

    async def start_acquiring(self) -> None:
        """Film in a thread."""
        loop = asyncio.get_running_loop()
        self.film.task = asyncio.create_task(asyncio.to_thread(self.film.push, loop))

    async def wait_for_idle(self) -> None:
        """Wait for the last frame."""
        if self.film.task is not None:
            await self.film.task

    async def ensure_stopped(self) -> None:
        """Take no more frames."""
        if self.film.grabber is not None:
            self.film.grabber.stop()
        task, self.film.task = self.film.task, None
        if task is not None:
            await task


class StreamingDetector(StandardDetector):
    """A camera whose frames go to an atomstream server."""

    def __init__(self, streamer: RHEEDStreamer, camera: str, name: str = "") -> None:
        film = Film(streamer, camera)
        self.add_detector_logics(Trigger(film), Acquire(film), Data(film))
        super().__init__(name=name)


def film_plan(detector: StreamingDetector, frames: int) -> Iterator[Any]:
    """A plan: film ``frames`` frames at the camera's own rate."""
    yield from bps.stage(detector, wait=True)
    yield from bps.open_run({"plan_name": "film"})
    yield from bps.prepare(detector, TriggerInfo(number_of_events=frames), wait=True)
    yield from bps.declare_stream(detector, name="film", collect=True)
    yield from bps.kickoff(detector, wait=True)
    yield from bps.collect_while_completing([detector], [detector], flush_period=0.5, stream_name="film")
    yield from bps.close_run()
    yield from bps.unstage(detector, wait=True)


def main(camera: str, frames: int) -> None:
    """Run the plan and print the content of the documents."""
    with RHEEDStreamer() as streamer:
        engine = RunEngine()
        with init_devices():
            detector = StreamingDetector(streamer, camera, name="rheed")

        def show(name: str, document: dict[str, Any]) -> None:
            if name == "stream_resource":
                print(f"stream_resource: {document['uri']}")
            if name == "stream_datum":
                print(f"stream_datum: frames {document['indices']['start']} to {document['indices']['stop']}")

        engine(film_plan(detector, frames), show)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--camera", default="sim")
    parser.add_argument("--frames", type=int, default=240)
    args = parser.parse_args()
    main(args.camera, args.frames)
