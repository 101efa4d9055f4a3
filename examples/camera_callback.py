"""A camera whose driver calls your function with each frame, in a thread of the driver.

``push_frame`` costs the callback one copy of the frame. Chunks are filled and sent automatically; the last, short one
is sent at ``finalize``. The driver's frame counter shows where the camera itself dropped a frame.

Run it against a server (``atomstream serve``)::

    export ATOMSTREAM_ENDPOINT=http://127.0.0.1:8765 ATOMSTREAM_API_KEY=atst_...
    python examples/camera_callback.py --seconds 5
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np

from atomstream import RHEEDStreamer
from atomstream.sources import GrowthSpec
from atomstream.testing import CameraFrame, SimulatedCamera


def main(seconds: float, spec: GrowthSpec) -> None:
    """Film for some seconds and print how long the callback took."""
    callback_ms: list[float] = []
    with RHEEDStreamer() as streamer:
        data_id = streamer.initialize(spec.fps, 0.0, math.ceil(2.0 * spec.fps), stream_name="Callback camera")

        def on_frame(frame: CameraFrame) -> None:
            began = time.perf_counter()
            streamer.push_frame(data_id, frame.pixels, frame_id=frame.frame_id)
            callback_ms.append(1000.0 * (time.perf_counter() - began))

        # Replace this by your camera's driver.
        camera = SimulatedCamera(spec, n_frames=round(seconds * spec.fps), real_time=True)
        camera.start(on_frame)
        camera.wait()
        report = streamer.finalize(data_id)
    print(f"data_id: {data_id}")
    print(f"{report['chunks_uploaded']} of {report['chunks_spooled']} chunks stored")
    print(f"the callback took {np.median(callback_ms):.2f} ms (median), {max(callback_ms):.2f} ms at most")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--fps", type=float, default=60.0)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--width", type=int, default=320)
    args = parser.parse_args()
    main(args.seconds, GrowthSpec(args.height, args.width, args.fps))
