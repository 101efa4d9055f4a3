"""The cameras ``epics:PV``: images of an EPICS areaDetector IOC, sent by its PVA plugin as NTNDArray, through p4p.

``PV`` is the name of the image, such as ``13SIM1:Pva1:Image``. Exposure and rate are set in the IOC, not here.
"""

from __future__ import annotations

from typing import Any, Final

from atomstream.cameras.camera import (
    CameraFrame,
    CameraInfo,
    CameraSettings,
    FoundCamera,
    grey,
    refuse_settings,
)
from atomstream.cameras.frame_queue import FrameQueue
from atomstream.cameras.names import driver
from atomstream.errors import CameraError, CameraLostError, ConfigError

CONNECT_S: Final = 3.0
"""Longest wait for the first answer of the IOC in s."""

REQUEST: Final = "field()record[queueSize=64]"
"""Request for a PVAccess queue of 64 updates. PVAccess merges updates that do not fit, and the next uniqueId shows the
gap."""

UNIX_EPOCH_OF_ZERO: Final = 631152000
"""The EPICS epoch, 1990-01-01, in seconds since 1970. An IOC without a valid time sends this value."""


class EpicsCamera:
    """The images of one PV; the counter is ``uniqueId``, the time ``dataTimeStamp`` or else ``timeStamp``."""

    def __init__(self, which: str) -> None:
        if not which:
            raise ConfigError("epics: give the PV of the image, such as epics:13SIM1:Pva1:Image")
        self.name = f"epics:{which}"
        self._pv = which
        self._thread = driver("epics", "p4p.client.thread")
        self._frames = FrameQueue()
        self._connected = False
        self._context: Any = None
        self._subscription: Any = None
        self._callbacks: Any = None

    @classmethod
    def found(cls) -> list[FoundCamera]:
        """None: EPICS has no list of its PVs."""
        return []

    def open(self, settings: CameraSettings) -> CameraInfo:
        """See :class:`atomstream.cameras.Camera`."""
        refuse_settings(self.name, settings)
        self._frames, self._connected = FrameQueue(), False
        # A separate thread: the threads that p4p shares among its contexts never end.
        self._callbacks = (
            driver("epics", "p4p.util").ThreadedWorkQueue("epics", daemon=True, maxsize=0).start()
        )
        self._context = self._thread.Context("pva")
        try:
            first = self._frame(self._context.get(self._pv, timeout=CONNECT_S))
        except TimeoutError as error:
            self.close()
            raise CameraError(
                f"{self.name} does not answer within {CONNECT_S:g} s: check the name, the IOC, and "
                "EPICS_PVA_ADDR_LIST."
            ) from error
        except BaseException:
            self.close()
            raise
        self._subscription = self._context.monitor(
            self._pv, self._note, request=REQUEST, notify_disconnect=True, queue=self._callbacks
        )
        height, width = first.pixels.shape
        return CameraInfo(
            model=f"EPICS areaDetector {self._pv}",
            shape=(height, width),
            dtype=str(first.pixels.dtype),
            id_bits=32,
        )

    def grab(self, timeout_s: float) -> CameraFrame | None:
        """See :class:`atomstream.cameras.Camera`."""
        return self._frames.get(timeout_s)

    def close(self) -> None:
        """See :class:`atomstream.cameras.Camera`."""
        subscription, context, callbacks = self._subscription, self._context, self._callbacks
        self._subscription = self._context = self._callbacks = None
        if subscription is not None:
            subscription.close()
        if context is not None:
            context.close()
        if callbacks is not None:
            callbacks.stop()

    def _note(self, value: Any) -> None:
        """Take one update, in p4p's thread. The first one after a connection is an old image, and is left out."""
        was_connected, self._connected = self._connected, not isinstance(value, Exception)
        if isinstance(value, Exception):
            if was_connected:  # p4p begins with such an update
                self._frames.put(CameraLostError("The connection to the IOC was lost."))
            return
        if not was_connected:
            return
        try:
            self._frames.put(self._frame(value))
        except Exception as error:  # raised again in the thread that grabs
            self._frames.put(error)

    def _frame(self, value: Any) -> CameraFrame:
        raw = getattr(value, "raw", None)
        if raw is None or "uniqueId" not in raw:
            raise CameraError(f"{self.name} is not an image (NTNDArray).")
        if raw.codec.name:
            raise CameraError(
                f"{self.name} is compressed ({raw.codec.name}): take the PV before the NDPluginCodec."
            )
        stamp = (
            raw.dataTimeStamp if raw.dataTimeStamp.secondsPastEpoch > UNIX_EPOCH_OF_ZERO else raw.timeStamp
        )
        seconds = int(stamp.secondsPastEpoch)
        time_ms = 1e3 * seconds + stamp.nanoseconds / 1e6 if seconds > UNIX_EPOCH_OF_ZERO else None
        return CameraFrame(grey(self.name, value), int(raw.uniqueId) & 0xFFFFFFFF, time_ms)
