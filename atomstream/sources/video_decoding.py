"""Decodes the video of a file packet by packet, and finds the damaged frames.

FFmpeg conceals damage: it fills the rest of a frame, and goes on with frames that were predicted from it. Here a
packet is damaged if its container marks it, if its picture is cut off, if the decoder reports an error, or if the frame
is marked; nothing of it is delivered. Frames which may depend on a damaged one are left out as well, up to the next
key frame.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from .containers import is_complete_avi
from .damage import FrameDamage, decode_error
from .frame_source import optional_package
from .geometry import Geometry
from .whole_pictures import why_not_whole

STRICT: Final = {"err_detect": "crccheck+explode"}
"""Options of a decoder: check checksums, and fail on the first error within a frame."""

_PICTURES: Final = frozenset({"mjpeg", "png", "apng"})
"""Codecs whose packets are complete pictures with an end marker."""

_NO_LOG: Final = _PICTURES | {"rawvideo"}

_LOGGED: Final = ("mismatch", "overlaps", "error while decoding", "concealing", "damaged")
"""Parts of FFmpeg's messages about damage that a decoder conceals, such as a wrong checksum in FFV1."""

_log_lock = threading.Lock()

_NO_INDEX: Final = frozenset({"yuv4mpegpipe", "rawvideo"})
"""Formats whose frames simply follow each other to the end of the file."""

_MARK_BYTES: Final = 16
"""Bytes that may stand behind the last frame: a mark of the next one."""

_MAX_GROUP_BYTES: Final = 64 << 20
"""Most bytes of packets that are kept since a key frame."""

_MAX_LEADING: Final = 16
"""Most frames that can be shown before a key frame but are stored behind it."""


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A whole frame (of PyAV, or stored pixels), its number in the recording, and its stated time in s."""

    frame: Any
    number: int
    time: float | None


@dataclass(frozen=True, slots=True)
class Lost:
    """Frames that can't be read: the number of the first, how many (None: not known), and why."""

    number: int
    count: int | None
    damage: FrameDamage


class VideoDecoder:
    """Decodes the stream ``stream`` of ``container`` (PyAV) once, from its first packet.

    With ``skip_damaged`` decoding goes on with the next key frame, otherwise it ends at the first damage.
    """

    def __init__(self, container: Any, stream: Any, path: Path, *, skip_damaged: bool) -> None:
        self._container = container
        self._stream = stream
        self._path = path
        self._file = path.name
        self._context = stream.codec_context
        self._context.options = dict(STRICT)
        stream.thread_type = "SLICE"  # with frame threads, an error belongs to an earlier packet
        self._codec: str = self._context.codec.name
        self._skip = skip_damaged
        self._rate = float(stream.average_rate or stream.guessed_rate or 0)
        self.hidden = 0
        """Frames that the file contains, but is not to show, by its edit list (MP4, MOV)."""
        self._sent = 0
        """Packets that were read, damaged ones included."""
        self._next = 0
        """Number of the next frame."""
        self._start: float | None = None
        """Time of the first packet in s."""
        self._end = 0.0
        """Time in s at which the last packet ends."""
        self._end_byte = 0
        """Byte of the file at which the last packet ends."""
        self._cut = False
        """True if the file ends within the damaged frame."""
        self._damage: FrameDamage | None = None
        """Why frames from number ``_next`` on are lost; None if all is well."""
        self._group: list[Any] = []
        """Packets since the last key frame, to decode them again up to a damaged one."""
        self._group_bytes = 0
        self._last_time: float | None = None
        """Time of the last frame that was delivered."""
        self._regular = True
        """True as long as all frames follow each other at the frame rate."""
        self._key: int | None = None
        """Number of the key frame with which decoding goes on behind the damage, while its picture is awaited."""

    def frames(self) -> Iterator[Decoded | Lost]:
        """Yield all frames in the order in which they are shown, and what is lost between them."""
        self.hidden = 0
        error = yield from self._all_packets()
        if self._damage is None:
            yield from self._waiting()
        if self._damage is not None:
            if not self._skip:
                return
            count = self._to_end() if self._cut else max(1, self._present() - self._next)
            yield Lost(self._next, count, self._damage)
            self._next += count
        present = max(self._next, self._present())
        stated = self._stated()
        if error is not None:
            yield Lost(present, None if stated is None else max(1, stated - present), error)
        elif stated is not None and stated > present and not is_complete_avi(self._path):
            yield Lost(
                present, stated - present, FrameDamage("the file ends there", self._file, self._size())
            )
        elif (
            self._sent
            and self._container.format.name in _NO_INDEX
            and self._size() > self._end_byte + _MARK_BYTES
        ):
            yield Lost(present, 1, FrameDamage("the file ends within it", self._file, self._end_byte))

    def _all_packets(self) -> Generator[Decoded | Lost, None, FrameDamage | None]:
        """Yield what the packets give; return the error of the container that ended them early, if any."""
        packets = iter(self._container.demux(self._stream))
        while True:
            try:
                packet = next(packets, None)
            except _ffmpeg_error() as error:
                return decode_error(error, self._file)
            if packet is None:
                return None
            if not packet.size:  # the end, or a frame that the camera dropped
                continue
            self.hidden += bool(packet.is_discard)
            yield from self._packet(packet)
            if self._damage is not None and not self._skip:
                yield Lost(self._next, self._to_end() if self._cut else 1, self._damage)
                return None

    def _packet(self, packet: Any) -> Iterator[Decoded | Lost]:
        number = self._sent
        self._sent += 1
        time = _time(packet)
        self._end_byte = (_place(packet) or 0) + packet.size
        if time is not None:
            self._start = time if self._start is None else self._start
            self._end = max(self._end, time + _duration(packet, self._rate))
        if self._damage is not None and self._key is None:
            if not packet.is_keyframe:
                return
            self._key = self._number_at(number, time)
        damage = self._damage_of(packet)
        frames: list[Any] = []
        if damage is None:
            frames, damage = self._decode(packet)
        yield from self._output(frames, damage, time)
        if damage is None:
            self._keep_packet(packet)

    def _keep_packet(self, packet: Any) -> None:
        if packet.is_keyframe or self._group_bytes > _MAX_GROUP_BYTES:
            self._group, self._group_bytes = [], 0
            if not packet.is_keyframe:
                return
        if self._group or packet.is_keyframe:
            self._group.append(packet)
            self._group_bytes += packet.size

    def _waiting(self) -> Iterator[Decoded | Lost]:
        """Yield the frames which the decoder holds back to show them in their order, at the end of the file."""
        frames, _ = self._decode(None)
        stated = self._stated()
        may_be_cut = self._regular and (stated is None or stated > self._present())
        for frame in frames:
            if frame.is_corrupt:
                yield from self._begin_gap(self._marked(), self._shown_at(frame))
                return
            if may_be_cut and 0 < (missing := self._missing_before(frame)) <= _MAX_LEADING:
                damage = FrameDamage(
                    "the file ends before it, and it is shown before frames that are there", self._file
                )
                yield Lost(self._next, missing, damage)
                if not self._skip:
                    self._damage = damage
                    return
                self._next += missing
            yield from self._whole(frame)

    def _missing_before(self, frame: Any) -> int:
        """Return how many frames are missing between the last one and this one, by their times."""
        time = self._shown_at(frame)
        if time is None or self._last_time is None:
            return 0
        return max(0, round((time - self._last_time) * self._rate) - 1)

    def _shown_at(self, frame: Any) -> float | None:
        return None if frame.pts is None else _seconds(frame.pts, self._stream.time_base)

    def _output(
        self, frames: list[Any], damage: FrameDamage | None, time: float | None = None
    ) -> Iterator[Decoded | Lost]:
        """Yield the whole ones of the decoder's frames; ``damage`` is that of the packet at ``time``."""
        for frame in frames:
            if frame.is_corrupt:
                damage, time = damage or self._marked(), self._shown_at(frame)
                break
            yield from self._whole(frame)
        if damage is not None:
            yield from self._begin_gap(damage, time)

    def _whole(self, frame: Any) -> Iterator[Decoded | Lost]:
        if self._damage is not None:
            if self._key is None or not frame.key_frame:
                return  # it may be predicted from the damaged one
            yield Lost(self._next, self._key - self._next, self._damage)
            self._next, self._key, self._damage = self._key, None, None
        self._regular = self._regular and self._missing_before(frame) == 0
        time = self._shown_at(frame)
        self._last_time = self._last_time if time is None else time
        yield Decoded(frame, self._next, time)
        self._next += 1

    def _marked(self) -> FrameDamage:
        return FrameDamage("its decoder marks it as damaged", self._file)

    def _begin_gap(self, damage: FrameDamage, time: float | None) -> Iterator[Decoded | Lost]:
        if self._damage is None:
            for frame in self._decoded_again(time):
                yield from self._whole(frame)
            self._damage = damage
        self._key = None
        self._group, self._group_bytes = [], 0
        self._context.flush_buffers()

    def _decoded_again(self, time: float | None) -> list[Any]:
        """Return the frames shown before ``time`` which the decoder held back when it met the damage.

        It drops them with the error, so the packets before it are decoded again.
        """
        if len(self._group) < 2 or time is None or self._last_time is None:
            return []
        self._context.flush_buffers()
        frames: list[Any] = []
        for packet in (*self._group, None):
            more, damage = self._decode(packet)
            if damage is not None:
                break
            frames += more
        whole = list(itertools.takewhile(lambda frame: not frame.is_corrupt, frames))
        times = [self._shown_at(frame) for frame in whole]
        return [
            frame
            for frame, t in zip(whole, times, strict=True)
            if t is not None and self._last_time < t < time
        ]

    def _decode(self, packet: Any) -> tuple[list[Any], FrameDamage | None]:
        at = None if packet is None else _place(packet)
        with _messages(self._codec) as messages:
            try:
                frames = list(self._context.decode(packet))
                for frame in frames if packet is None else ():
                    frame.time_base = self._stream.time_base  # those held back to the end have none
            except (_ffmpeg_error(), ValueError) as error:
                return [], decode_error(error, self._file, at)
        for text in messages:
            if any(part in text.casefold() for part in _LOGGED):
                return [], FrameDamage(f"it is damaged ({text.strip()})", self._file, at)
        return frames, None

    def _damage_of(self, packet: Any) -> FrameDamage | None:
        """Return what is wrong with a packet, as far as that is known without decoding it."""
        if packet.is_corrupt:
            place = _place(packet)
            self._cut = place is not None and place + packet.size + _MARK_BYTES >= self._size()
            reason = "the file ends within it" if self._cut else "the file marks it as damaged"
            return FrameDamage(reason, self._file, place)
        if self._codec in _PICTURES and (reason := why_not_whole(bytes(packet))):
            return FrameDamage(reason, self._file, _place(packet))
        return None

    def _size(self) -> int:
        """Return the bytes of the file now: it may have grown since it was opened."""
        return self._path.stat().st_size

    def _to_end(self) -> int:
        """Return how many frames are missing, if the file ends within the next one."""
        return max(1, (self._stated() or 0) - self._next)

    def _number_at(self, packets: int, time: float | None) -> int:
        """Return the number of a key frame, of which ``packets`` packets are stored before."""
        if time is None or self._start is None or not self._rate:
            return packets
        shown = round((time - self._start) * self._rate)
        return shown if packets <= shown <= packets + _MAX_LEADING else packets

    def _present(self) -> int:
        """Return how many frames the packets read so far stand for, including frames that a camera dropped."""
        shown = round((self._end - self._start) * self._rate) if self._start is not None else 0
        return max(self._sent, shown)

    def _stated(self) -> int | None:
        """Return how many frames the file states."""
        if self._stream.frames:
            return int(self._stream.frames)
        container = self._container
        if (
            "matroska" in container.format.name
            and len(container.streams) == 1
            and container.duration
            and self._rate
        ):
            start = self._start or 0.0
            return round((float(container.duration) / 1e6 - start) * self._rate)
        return None


class RawPackets:
    """Frames whose packets are raw pixels of a known geometry; a decoder is not needed."""

    def __init__(self, container: Any, stream: Any, geometry: Geometry, file: str) -> None:
        self._container = container
        self._stream = stream
        self._geometry = geometry
        self._file = file
        self.hidden = 0
        """As of :class:`VideoDecoder`; such pixels have no edit list."""

    def frames(self) -> Iterator[Decoded | Lost]:
        """Yield the stored pixels of each frame as an array, and frames that are cut off as lost."""
        number = 0
        geometry = self._geometry
        for packet in self._container.demux(self._stream):
            data = bytes(packet)
            if not data:
                continue
            if packet.is_corrupt or len(data) < geometry.frame_bytes:
                reason = f"it has {len(data)} of {geometry.frame_bytes} bytes"
                yield Lost(number, 1, FrameDamage(reason, self._file, _place(packet)))
            else:
                items = geometry.frame_bytes // geometry.dtype.itemsize
                yield Decoded(
                    np.frombuffer(data, geometry.dtype, items).reshape(geometry.item), number, _time(packet)
                )
            number += 1
        if self._stream.frames > number:
            yield Lost(number, self._stream.frames - number, FrameDamage("the file ends there", self._file))


def _time(packet: Any) -> float | None:
    stamp = packet.pts if packet.pts is not None else packet.dts
    return None if stamp is None else _seconds(stamp, packet.time_base)


def _seconds(stamp: int, base: Any) -> float:
    """Return ``stamp`` times ``base`` (a Fraction), rounded once; a product of Fractions takes ten times as long."""
    return stamp * int(base.numerator) / int(base.denominator)


def _duration(packet: Any, rate: float) -> float:
    if packet.duration:
        return _seconds(packet.duration, packet.time_base)
    return 1.0 / rate if rate else 0.0


def _place(packet: Any) -> int | None:
    return int(packet.pos) if packet.pos is not None and packet.pos >= 0 else None


def _ffmpeg_error() -> type[Exception]:
    error: type[Exception] = optional_package("av", "video", "Reading video").error.FFmpegError
    return error


@contextmanager
def _messages(codec: str) -> Iterator[list[str]]:
    """Collect FFmpeg's error messages during the block, for codecs that report damage in no other way."""
    found: list[str] = []
    if codec in _NO_LOG:
        yield found
        return
    log = optional_package("av", "video", "Reading video").logging
    with _log_lock:
        before = log.get_level()
        log.set_level(log.ERROR)
        try:
            with log.Capture(local=False) as captured:
                yield found
            found += [message for _, _, message in captured]
        finally:
            log.set_level(before)
