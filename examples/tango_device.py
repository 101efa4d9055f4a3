"""A Tango device that streams a camera: Start and Stop are commands, the stream and the growth rate are attributes.

Needs ``pip install pytango``. As a device server, with the environment of the streamer
(``ATOMSTREAM_ENDPOINT``, ``ATOMSTREAM_API_KEY``)::

    python examples/tango_device.py lab            # registered in the Tango database as RheedStreamer/lab
    python examples/tango_device.py --try sim      # without a database: stream two seconds and stop
"""

from __future__ import annotations

import math
import sys
import time

from tango import DevState
from tango.server import Device, attribute, command, device_property

from atomstream import RHEEDStreamer
from atomstream.cameras import CameraFeed, CameraFrame, Grabber, open_camera


class RheedStreamer(Device):
    """Streams the camera ``camera`` to the server of the environment."""

    camera = device_property(dtype=str, default_value="sim")

    def init_device(self) -> None:
        """Connect to the server; the camera is opened by Start."""
        super().init_device()
        self._streamer = RHEEDStreamer()
        self._feed: CameraFeed | None = None
        self._data_id = ""
        self.set_state(DevState.STANDBY)

    def delete_device(self) -> None:
        """Stop, and deliver what was filmed."""
        self.Stop()
        self._streamer.close()

    @command
    def Start(self) -> None:  # noqa: N802 (Tango's commands begin with a capital letter)
        """Open the camera and begin a new stream."""
        self.Stop()
        grabber = Grabber(open_camera(self.camera), notify=self.warn_stream)
        info = grabber.open()
        fps = info.fps or 30.0
        data_id = self._streamer.initialize(fps, 0.0, math.ceil(2.0 * fps), stream_name=self.get_name())

        def push(frame: CameraFrame) -> None:
            self._streamer.push_frame(data_id, frame.pixels, frame.time_ms_utc, frame.frame_id)

        self._data_id, self._feed = data_id, CameraFeed(grabber)
        self._feed.connect(push)
        self._feed.start()
        self._streamer.latest(data_id)  # begins to follow the results
        self.set_state(DevState.RUNNING)

    @command(dtype_out=str)
    def Stop(self) -> str:  # noqa: N802 (as Start)
        """End the stream, and report how much of it is stored."""
        feed, self._feed = self._feed, None
        self.set_state(DevState.STANDBY)
        if feed is None:
            return "nothing was running"
        feed.stop()
        feed.grabber.close()
        report = self._streamer.finalize(self._data_id)
        return f"{report['chunks_uploaded']} of {report['chunks_spooled']} chunks stored"

    @attribute(dtype=str)
    def data_id(self) -> str:
        """The stream that runs, or the last one."""
        return self._data_id

    @attribute(dtype=int)
    def frames(self) -> int:
        """Frames pushed to the stream."""
        return 0 if self._feed is None else self._feed.delivered

    @attribute(dtype=float, unit="ML/s")
    def growth_rate(self) -> float:
        """The latest growth rate in layers per second; NaN while it is not known."""
        batch = self._streamer.latest(self._data_id) if self._data_id else None
        value = None if batch is None else batch.value("growth_rate").value
        return math.nan if value is None else value


def try_it(camera: str) -> None:
    """Serve the device in this process, without a database, and use it as a client would."""
    from tango.test_context import DeviceTestContext

    with DeviceTestContext(
        RheedStreamer, properties={"camera": camera}, process=False, host="127.0.0.1"
    ) as device:
        device.Start()
        while device.frames < 100:
            time.sleep(0.05)
        print(f"data_id: {device.data_id}")
        print(f"state {device.state()}, growth rate {device.growth_rate} ML/s")
        print(device.Stop())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--try"]:
        try_it(sys.argv[2])
    else:
        RheedStreamer.run_server()
