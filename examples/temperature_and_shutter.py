"""Frames of a camera, and beside them the substrate's temperature and a shutter, on one time axis.

The shutter sets marks by a rule: each opening begins a new segment with its own growth rate. Both streams name the same
physical sample; that is all that links them.

Run it against a server (``atomstream serve``)::

    export ATOMSTREAM_ENDPOINT=http://127.0.0.1:8765 ATOMSTREAM_API_KEY=atst_...
    python examples/temperature_and_shutter.py --seconds 20
"""

from __future__ import annotations

import argparse
import math
import threading
import time
from typing import Any

from atomstream import RHEEDStreamer, TimeseriesStreamer
from atomstream.sources import GrowthSpec, Simulator, paced

SAMPLE = "Wafer-A1"
RULES = ['Ga shutter>0.5 -> mark "Ga open"', 'Ga shutter<0.5 -> mark "Ga closed"']


def temperature(elapsed_s: float) -> float:
    """A placeholder for your controller: degrees Celsius after some seconds."""
    return 580.0 + 20.0 * (1.0 - math.exp(-elapsed_s / 30.0))


def log_signals(signals: TimeseriesStreamer, data_id: str, ended: threading.Event) -> None:
    """Read the instruments ten times a second until ``ended`` is set; one chunk for all channels."""
    begin = time.time()
    while True:
        now = time.time()
        channels: dict[str, Any] = {
            "Substrate": {"timestamps": [now], "values": [temperature(now - begin)], "units": "°C"},
            "Ga shutter": {"timestamps": [now], "values": [now - begin > 0.3]},
        }
        signals.push_multi(data_id, None, channels)
        if ended.wait(0.1):
            return


def main(seconds: float, spec: GrowthSpec) -> None:
    """Stream frames and signals at the same time, then wait until both are delivered."""
    chunk_size = math.ceil(2.0 * spec.fps)
    ended = threading.Event()
    with RHEEDStreamer() as camera, TimeseriesStreamer() as signals:
        data_id = camera.initialize(spec.fps, 0.0, chunk_size, "With signals", physical_sample=SAMPLE)
        signals_id = signals.initialize("Chamber", physical_sample=SAMPLE, marks=RULES)
        reader = threading.Thread(target=log_signals, args=(signals, signals_id, ended))
        reader.start()
        try:
            frames = Simulator(spec).chunks(chunk_size, round(seconds * spec.fps))
            camera.run(data_id, paced(frames, spec.fps))  # replace this by your camera
        finally:
            ended.set()
            reader.join()
        camera.finalize(data_id)
        signals.finalize(signals_id)
    print(f"data_id: {data_id}")
    print(f"signals: {signals_id}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--width", type=int, default=320)
    given = parser.parse_args()
    main(given.seconds, GrowthSpec(height=given.height, width=given.width, fps=given.fps))
