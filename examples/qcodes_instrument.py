"""A QCoDeS instrument that streams a camera: its snapshot has the stream, and the growth rate is a parameter.

Needs ``pip install qcodes``. Run it against a server (``atomstream serve``)::

    export ATOMSTREAM_ENDPOINT=http://127.0.0.1:8765 ATOMSTREAM_API_KEY=atst_...
    python examples/qcodes_instrument.py --camera sim --seconds 4
"""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

from qcodes.instrument import Instrument

from atomstream import RHEEDStreamer
from atomstream.cameras import CameraFeed, CameraFrame, CameraSettings, Grabber, open_camera


class RheedInstrument(Instrument):
    """One camera that streams between ``start()`` and ``stop()``."""

    def __init__(self, name: str, camera: str, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self._camera = camera
        self._streamer = RHEEDStreamer()
        self._feed: CameraFeed | None = None
        self._data_id = ""
        self.add_parameter(
            "exposure", unit="ms", initial_value=None, set_cmd=None, docstring="None: the camera's own."
        )
        self.add_parameter("data_id", get_cmd=lambda: self._data_id, docstring="The stream on the server.")
        self.add_parameter("frames", get_cmd=self._frames, docstring="Frames pushed to the stream.")
        self.add_parameter(
            "growth_rate",
            unit="ML/s",
            get_cmd=self._growth_rate,
            docstring="The latest growth rate; NaN if unknown.",
        )

    def get_idn(self) -> dict[str, str | None]:
        """Vendor, model, serial number and version for the snapshot."""
        return {"vendor": "atomstream", "model": self._camera, "serial": None, "firmware": None}

    def start(self) -> None:
        """Open the camera and begin a new stream."""
        self.stop()
        grabber = Grabber(
            open_camera(self._camera), CameraSettings(exposure_ms=self.exposure()), notify=self.log.warning
        )
        info = grabber.open()
        fps = info.fps or 30.0
        data_id = self._streamer.initialize(fps, 0.0, math.ceil(2.0 * fps), stream_name=self.name)

        def push(frame: CameraFrame) -> None:
            self._streamer.push_frame(data_id, frame.pixels, frame.time_ms_utc, frame.frame_id)

        self._data_id, self._feed = data_id, CameraFeed(grabber)
        self._feed.connect(push)
        self._feed.start()
        self._streamer.latest(data_id)  # begins to follow the results

    def stop(self) -> None:
        """End the stream and deliver all frames."""
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.stop()
            feed.grabber.close()
            self._streamer.finalize(self._data_id)

    def close(self) -> None:
        """Stop, and disconnect from the server."""
        self.stop()
        self._streamer.close()
        super().close()

    def _frames(self) -> int:
        return 0 if self._feed is None else self._feed.delivered

    def _growth_rate(self) -> float:
        batch = self._streamer.latest(self._data_id) if self._data_id else None
        value = None if batch is None else batch.value("growth_rate").value
        return math.nan if value is None else value


def main(camera: str, seconds: float) -> None:
    """Film for some seconds, and print the snapshot."""
    rheed = RheedInstrument("rheed", camera)
    try:
        rheed.exposure(5.0)
        rheed.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.25)
        snapshot = rheed.snapshot(update=True)["parameters"]
        rheed.stop()
    finally:
        rheed.close()
    print(f"data_id: {snapshot['data_id']['value']}")
    for name in ("exposure", "frames", "growth_rate"):
        print(f"{name}: {snapshot[name]['value']} {snapshot[name].get('unit', '')}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--camera", default="sim")
    parser.add_argument("--seconds", type=float, default=4.0)
    args = parser.parse_args()
    main(args.camera, args.seconds)
