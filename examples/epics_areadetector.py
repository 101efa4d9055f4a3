"""An EPICS areaDetector streams: the IOC's image PV is the camera, and the IOC keeps exposure and rate.

The images come from the PVA plugin (NDPva) as NTNDArray. Set exposure and rate in the IOC; the rate is measured here.
Needs ``pip install 'atomstream[epics]'``. Run it against a server (``atomstream serve``)::

    export ATOMSTREAM_ENDPOINT=http://127.0.0.1:8765 ATOMSTREAM_API_KEY=atst_...
    python examples/epics_areadetector.py 13SIM1:Pva1:Image --frames 240
    python examples/epics_areadetector.py RHEED:Pva1:Image --simulate    # with an IOC in this process
"""

from __future__ import annotations

import argparse
import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from atomstream import RHEEDStreamer
from atomstream.cameras import CameraFeed, CameraFrame, Grabber, open_camera


def stream(pv: str, frames: int) -> None:
    """Stream ``frames`` images of ``pv``."""
    with Grabber(open_camera(f"epics:{pv}"), notify=print) as grabber, RHEEDStreamer() as streamer:
        feed = CameraFeed(grabber, max_frames=frames)
        feed.start()
        fps = round(feed.measured_rate(), 3)  # an image PV does not state the rate
        data_id = streamer.initialize(fps, 0.0, math.ceil(2.0 * fps), stream_name=pv)
        streamer.set_attributes(data_id, {"camera": f"epics:{pv}"})

        def push(frame: CameraFrame) -> None:
            streamer.push_frame(data_id, frame.pixels, frame.time_ms_utc, frame.frame_id)

        feed.connect(push)
        pushed = sum(feed.progress())
        report = streamer.finalize(data_id)
    print(f"data_id: {data_id}")
    print(f"{pushed} frames at {fps:g} per second, {grabber.counts.missing} missing")
    print(f"{report['chunks_uploaded']} of {report['chunks_spooled']} chunks stored")


@contextmanager
def simulated_ioc(pv: str, fps: float = 60.0) -> Iterator[None]:
    """Serve ``pv`` in this process, with images as the PVA plugin sends them."""
    from p4p.nt import NTNDArray
    from p4p.server import Server
    from p4p.server.thread import SharedPV

    images = np.random.default_rng(1).integers(0, 256, (8, 48, 64), np.uint8)

    def image(number: int) -> object:
        value, now = NTNDArray().wrap(images[number % len(images)]), time.time()
        value.uniqueId = number
        value.dataTimeStamp.secondsPastEpoch, value.dataTimeStamp.nanoseconds = int(now), int(now % 1 * 1e9)
        return value

    served, stop = SharedPV(initial=image(0)), threading.Event()

    def post() -> None:
        number, begin = 0, time.monotonic()
        while not stop.wait(max(0.0, begin + number / fps - time.monotonic())):
            number += 1
            served.post(image(number))

    with Server(providers=[{pv: served}], isolate=True) as server:
        os.environ.update(
            {name: value for name, value in server.conf().items() if name.startswith("EPICS_PVA_")}
        )
        thread = threading.Thread(target=post)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pv")
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--simulate", action="store_true")
    args = parser.parse_args()
    with ExitStack() as stack:
        if args.simulate:
            stack.enter_context(simulated_ioc(args.pv))
        stream(args.pv, args.frames)
