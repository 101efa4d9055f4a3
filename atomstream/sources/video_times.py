"""When the frames of a video were taken: its frame rate, and times that never run backwards.

Some containers store no time of display. AVI has the order of decoding only, which differs from that of display for
codecs with B frames; the times are right, but given to the wrong frames. Raw streams have no times at all, and FFmpeg
invents 25 frames per second for them.
"""

from __future__ import annotations

import heapq
import math
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from atomstream.errors import ConfigError
from atomstream.system.log_privacy import get_logger

logger = get_logger(__name__)

T = TypeVar("T")

_WITHOUT_TIMES: Final = frozenset(
    {"h264", "hevc", "mjpeg", "m4v", "mpegvideo", "rawvideo", "image2", "vvc", "av1"}
)
"""Formats of FFmpeg that contain pictures only."""

_HEADER_BYTES: Final = 1 << 16

_REORDERED: Final = 16
"""Largest distance of a frame's place in the order of decoding from its place in that of display (H.264)."""


def stated_rate(path: Path, container: Any, stream: Any) -> float | None:
    """Return the frame rate that the file states in 1/s; None if FFmpeg would invent one, and the times with it."""
    if not set(str(container.format.name).split(",")).isdisjoint(_WITHOUT_TIMES):
        return None
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return _avi_rate(head)
    if head.startswith(b"YUV4MPEG2") and b" F0:0" in head.split(b"\n", 1)[0]:
        return None
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate else None


def _avi_rate(head: bytes) -> float | None:
    """Return the rate of the first video stream, else that of the main header; both may be 0, for unknown."""
    at = head.find(b"strh")
    while at >= 0 and at + 36 <= len(head):
        if head[at + 8 : at + 12] == b"vids":
            scale, rate = (int(n) for n in struct.unpack_from("<II", head, at + 28))
            if scale and rate:
                return rate / scale
            break
        at = head.find(b"strh", at + 4)
    main = head.find(b"avih")
    if main >= 0 and main + 12 <= len(head):
        microseconds = int.from_bytes(head[main + 8 : main + 12], "little")
        return 1e6 / microseconds if microseconds else None
    return None


def in_order(
    name: str, items: Iterable[tuple[T, float | None]], rate: float | None
) -> Iterator[tuple[T, float | None]]:
    """Yield frames in the order of display with increasing times, in s from the first frame.

    ``items`` are frames in this order, with the times of the container, which may belong to other frames nearby.
    A frame without a time gets that of the one before plus ``1 / rate``. Where the times start again, as in joined
    files, they continue. The times are None if the first frame has none.
    """
    clock = _Clock(name, rate)
    waiting: deque[T] = deque()
    times: list[float] = []

    def next_one() -> tuple[T, float]:
        return waiting.popleft(), clock.seconds(heapq.heappop(times))

    last: float | None = None
    try:
        for item, time in items:
            if time is None and last is None:
                yield item, None
                continue
            last = time if time is not None else (last or 0.0) + clock.step
            if times and (
                last <= max(clock.latest, max(times) - 2 * _REORDERED * clock.step) or last in times
            ):
                while waiting:  # the times start again
                    yield next_one()
            waiting.append(item)
            heapq.heappush(times, last)
            if len(waiting) > _REORDERED:
                yield next_one()
    except ConfigError:
        while waiting:  # frames before damage are whole
            yield next_one()
        raise
    while waiting:
        yield next_one()


class _Clock:
    """Makes times from the first frame on, which never run backwards."""

    def __init__(self, name: str, rate: float | None) -> None:
        self._name = name
        self.step = 1.0 / rate if rate else 0.0
        self.latest = -math.inf
        """The last time of the container that was used."""
        self._origin: float | None = None
        self._last = 0.0
        self._reported = False

    def seconds(self, time: float) -> float:
        self.latest = time
        if self._origin is None:
            self._origin = time
        elapsed = time - self._origin
        if elapsed < self._last:
            if not self._reported:
                logger.warning(
                    "%s: the times start again after %.3f s, as in joined files; they are continued from there",
                    self._name, self._last,
                )  # fmt: skip
            self._reported = True
            self._origin = time - self._last - self.step
            elapsed = self._last + self.step
        self._last = elapsed
        return elapsed
