"""A camera whose driver calls back with each frame, in a thread of its own.

``push_frame`` costs the callback one copy of the frame; chunks fill and go by themselves, the last short one
at ``finalize``. The driver's frame number shows where the camera itself dropped a frame.

Run it against a server (``atomstream serve``)::

    export ATOMSTREAM_ENDPOINT=http://127.0.0.1:8765 ATOMSTREAM_API_KEY=atst_...
    python examples/camera_callback.py --seconds 5
"""

from __future__ import annotations

import argparse
import math
import threading
import time
from collections.abc import Callable

import numpy as np

from atomstream import RHEEDStreamer
from atomstream.sources import GrowthSpec, Simulator, paced

Callback = Callable[[np.ndarray, int], None]


class CallbackCamera:
    """Stands for a vendor's SDK: ``start`` returns at once, frames come to ``callback`` until they end."""

    def __init__(self, spec: GrowthSpec, n_frames: int, callback: Callback) -> None:
        self._spec = spec
        self._n_frames = n_frames
        self._callback = callback
        self._thread = threading.Thread(target=self._acquire, name="camera driver")

    def start(self) -> None:
        """Begin to deliver frames."""
        self._thread.start()

    def wait(self) -> None:
        """Return once the last frame was delivered."""
        self._thread.join()

    def _acquire(self) -> None:
        frames = (chunk[0] for chunk in Simulator(self._spec).chunks(1, self._n_frames))
        for number, frame in enumerate(paced(frames, self._spec.fps)):
            self._callback(frame, number)


def main(seconds: float, spec: GrowthSpec) -> None:
    """Film for some seconds, and tell how long the callback was held up."""
    held_ms: list[float] = []
    with RHEEDStreamer() as streamer:
        data_id = streamer.initialize(spec.fps, 0.0, math.ceil(2.0 * spec.fps), stream_name="Callback camera")

        def on_frame(frame: np.ndarray, number: int) -> None:
            began = time.perf_counter()
            streamer.push_frame(data_id, frame, frame_id=number)
            held_ms.append(1000.0 * (time.perf_counter() - began))

        camera = CallbackCamera(spec, round(seconds * spec.fps), on_frame)
        camera.start()
        camera.wait()
        report = streamer.finalize(data_id)
    print(f"data_id: {data_id}")
    print(f"{report['chunks_uploaded']} of {report['chunks_spooled']} chunks stored")
    print(
        f"the callback was held for {np.median(held_ms):.2f} ms at the median, {max(held_ms):.2f} ms at most"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--fps", type=float, default=60.0)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--width", type=int, default=320)
    given = parser.parse_args()
    main(given.seconds, GrowthSpec(given.height, given.width, given.fps))
