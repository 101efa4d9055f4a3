"""The cameras ``genicam:SERIAL``: any maker's, through harvesters and the maker's GenTL producer (a .cti file).

The folders of the producers are in the environment variable ``GENICAM_GENTL64_PATH``, which makers' installers set.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Final

from atomstream.cameras.camera import NO_PIXELS, CameraFrame, CameraInfo, CameraSettings, FoundCamera, grey
from atomstream.cameras.genicam_nodes import GAIN, RATE_NOW, Nodes
from atomstream.cameras.names import chosen, driver
from atomstream.errors import CameraError, CameraLostError, ConfigError

PRODUCERS: Final = "GENICAM_GENTL64_PATH"

BUFFERS: Final = 64


class GenICam:
    """One GenICam camera; ``which`` is a serial number, a GenTL device id, or an index from 0."""

    def __init__(self, which: str = "") -> None:
        self.name = f"genicam:{which or 0}"
        self._which = which
        self._gentl = driver("genicam", "genicam.gentl")
        driver("genicam", "harvesters.core")
        self._harvester: Any = None
        self._acquirer: Any = None
        self._incomplete = 0

    @classmethod
    def found(cls) -> list[FoundCamera]:
        """All cameras that the producers find."""
        with _harvester() as harvester:
            devices = harvester.device_info_list
            return [FoundCamera(f"genicam:{_key(one)}", f"{one.vendor} {one.model}") for one in devices]

    def open(self, settings: CameraSettings) -> CameraInfo:
        """See :class:`atomstream.cameras.Camera`."""
        core = driver("genicam", "harvesters.core")
        try:
            self._harvester = harvester = _harvester()
            devices = harvester.device_info_list
            place = chosen("genicam", self._which, [_key(one) for one in devices])
            self._acquirer = acquirer = harvester.create(place)
            node_map = acquirer.remote_device.node_map
            nodes = Nodes(self.name, node_map.get_node, "value", (*self._errors(), AttributeError))
            nodes.apply(settings)
            dtype, most = nodes.pixels()
            roi, rate = nodes.region(), nodes.read(*RATE_NOW)
            acquirer.num_buffers = max(BUFFERS, acquirer.min_num_buffers)
            acquirer.add_callback(core.ImageAcquirer.Events.INCOMPLETE_BUFFER, _Counter(self))
            acquirer.start()
        except self._errors() as error:
            self.close()
            raise CameraError(f"{self.name}: {' '.join(str(error).split())}") from error
        except BaseException:
            self.close()
            raise
        is_gige = str(devices[place].tl_type) == "GEV"
        return CameraInfo(
            model=f"{devices[place].vendor} {devices[place].model} {_key(devices[place])}",
            shape=(roi.height, roi.width),
            dtype=dtype,
            fps=rate,
            id_bits=16 if is_gige else 64,
            id_first=int(is_gige),
            device_clock=True,
            exposure_ms=nodes.exposure_ms(),
            gain=nodes.read(*GAIN),
            roi=roi,
            max_value=most,
        )

    def grab(self, timeout_s: float) -> CameraFrame | None:
        """See :class:`atomstream.cameras.Camera`. The frame is copied before its buffer is queued again."""
        try:
            buffer = self._acquirer.try_fetch(timeout=timeout_s)
            if buffer is None and self._incomplete:
                self._incomplete -= 1
                return CameraFrame(NO_PIXELS, problem="the producer marked the buffer as incomplete")
            if buffer is None:
                return None
            with buffer:
                part = buffer.payload.components[0]
                pixels = part.data.reshape(part.height, part.width, -1)
                return CameraFrame(grey(self.name, pixels), *self._number_and_time(buffer))
        except self._errors() as error:
            raise CameraLostError(" ".join(str(error).split()) or type(error).__name__) from error

    def _number_and_time(self, buffer: Any) -> tuple[int | None, float | None]:
        """The frame counter and the time of the device in ms; producers need not have them."""
        found: list[int | None] = []
        for name in ("frame_id", "timestamp_ns"):
            try:
                found.append(getattr(buffer.module, name))
            except self._errors():
                found.append(None)
        number, time_ns = found
        return number, time_ns / 1e6 if time_ns else None

    def close(self) -> None:
        """See :class:`atomstream.cameras.Camera`."""
        acquirer, harvester = self._acquirer, self._harvester
        self._acquirer = self._harvester = None
        try:
            if acquirer is not None:
                acquirer.destroy()
            if harvester is not None:
                harvester.reset()
        except self._errors() as error:
            raise CameraError(f"{self.name}: {' '.join(str(error).split())}") from error

    def _errors(self) -> tuple[type[Exception], ...]:
        return (self._gentl.GenericException, driver("genicam", "genicam.genapi").GenericException)


class _Counter:
    """Counts the incomplete buffers, which harvesters reports by a callback and does not deliver."""

    def __init__(self, camera: GenICam) -> None:
        self._camera = camera

    def emit(self, context: Any) -> None:
        self._camera._incomplete += 1


def _key(device: Any) -> str:
    return str(device.serial_number or device.id_)


def _harvester() -> Any:
    folders = [Path(part) for part in os.environ.get(PRODUCERS, "").split(os.pathsep) if part]
    files = sorted(file for folder in folders for file in folder.glob("*.cti"))
    if not files:
        raise ConfigError(
            f"genicam: no GenTL producer (.cti) was found: install the camera maker's driver, and set {PRODUCERS} to "
            "the folder of its .cti file"
        )
    logging.getLogger("harvesters").setLevel(logging.CRITICAL)  # errors are raised, and not logged as well
    harvester = driver("genicam", "harvesters.core").Harvester()
    for file in files:
        harvester.add_file(str(file))
    harvester.update()
    return harvester
