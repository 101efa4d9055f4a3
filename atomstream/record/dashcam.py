"""The dashcam: the last minutes of a camera's frames are always kept, so that a growth can be recorded afterwards.

The newest seconds are in memory, the rest is on disk, compressed. Time, disk space and memory are limited; the oldest
frames go first. A recording reads its frames from here too (:meth:`Dashcam.read`); frames that it has not read yet are
kept longer than the time limit, but never above the limits of memory and disk.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from atomstream.cameras import CameraFrame
from atomstream.record.segment import Segment
from atomstream.system.log_privacy import get_logger

log = get_logger(__name__)

RETRY_S: Final = 5.0
"""Seconds from an error of the disk to the next attempt to write."""

IN_MEMORY: Final = 2
"""Number of newest segments that stay in memory, so that a recording at the camera's pace reads nothing from the
disk."""


@dataclass(frozen=True, slots=True)
class DashcamLimits:
    """Limits: ``seconds`` of frames (0 or more), ``disk_bytes`` compressed on disk, ``memory_bytes`` in memory."""

    seconds: float = 600.0
    disk_bytes: int = 10 << 30
    memory_bytes: int = 256 << 20


@dataclass(frozen=True, slots=True)
class DashcamStatus:
    """What the dashcam holds. ``problem`` is a sentence if the disk can't be used, else empty."""

    seconds: float
    frames: int
    disk_bytes: int
    memory_bytes: int
    problem: str


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive frames that were read. ``next`` is the number to read next; ``skipped`` frames were already
    deleted."""

    frames: Sequence[CameraFrame]
    next: int
    skipped: int


class Dashcam:
    """The last frames of one camera. ``folder`` exists, is empty and belongs to this object alone.

    Frames are numbered from 0 in the order of :meth:`add`. All methods may be called by any thread.
    """

    def __init__(self, folder: Path, limits: DashcamLimits) -> None:
        self._folder = folder
        self._limits = limits
        self._changed = threading.Condition()
        self._segments: deque[Segment] = deque()
        self._end = 0
        self._memory_bytes = self._disk_bytes = 0
        self._needed = -1  # the first frame that is still to be read; -1: none
        self._problem = ""
        self._gave_up_disk = False
        self._closed = False
        self._files = 0
        self._writer = threading.Thread(target=self._write, name="atomstream-dashcam", daemon=True)
        self._writer.start()

    @property
    def limits(self) -> DashcamLimits:
        """The limits."""
        return self._limits

    def bytes_per_s(self) -> float | None:
        """Compressed bytes of one second of frames, from what is on disk; None if that is less than a segment."""
        with self._changed:
            stored = [one for one in self._segments if one.stored_bytes]
            if not stored:
                return None
            seconds = (stored[-1].times_ms[1] - stored[0].times_ms[0]) / 1000.0
            return sum(one.stored_bytes for one in stored) / seconds if seconds > 0 else None

    @property
    def end(self) -> int:
        """The number that the next frame will have."""
        return self._end

    def add(self, frame: CameraFrame) -> None:
        """Add the newest frame. It takes microseconds: the disk is another thread's work."""
        with self._changed:
            if not self._segments or not self._segments[-1].accepts(frame):
                self._segments.append(Segment(self._end))
                self._changed.notify_all()
            self._segments[-1].add(frame)
            self._memory_bytes += frame.pixels.nbytes
            self._end += 1
            self._delete_old()

    def number_at(self, time_ms: float) -> int:
        """The number of the oldest frame that is kept and not before ``time_ms`` (UTC); :attr:`end` if none is."""
        with self._changed:
            for segment in self._segments:
                if segment.times_ms[1] >= time_ms:
                    return segment.number_at(time_ms)
            return self._end

    def need(self, number: int) -> None:
        """Keep frames from ``number`` on beyond the time limit, because they are to be read; -1: none."""
        with self._changed:
            self._needed = number

    def in_memory(self, number: int) -> bool:
        """Whether :meth:`read` needs no disk for frames from ``number`` on."""
        with self._changed:
            segment = next((one for one in reversed(self._segments) if one.first <= number), None)
            return segment is None or segment.raw is not None

    def read(self, number: int) -> Part:
        """Read frames from ``number`` on, up to the end of a segment; no frame if there is none yet.

        Raises:
            OSError, ValueError: the file of these frames can't be read. They are deleted.
        """
        with self._changed:
            segment = next((one for one in self._segments if one.end > number), None)
            if segment is None:
                return Part((), max(number, self._end), max(0, self._end - number))
            begin = max(number, segment.first)
            end = segment.end
            raw = None if segment.raw is None else tuple(segment.raw[begin - segment.first :])
        if raw is not None:
            return Part(raw, end, begin - number)
        try:
            frames = segment.frames()[begin - segment.first :]
        except (OSError, ValueError):
            with self._changed:
                if segment in self._segments:
                    self._delete(segment)
            raise
        return Part(frames, end, begin - number)

    def stop_using_disk(self) -> bool:
        """Write no more to the disk, and delete what is there; False if nothing could be deleted.

        Frames that are still to be read stay until they are read.
        """
        with self._changed:
            self._gave_up_disk = True
            self._limits = replace(self._limits, disk_bytes=0)
            held = [one for one in self._segments if one.raw is None and self._is_read(one)]
            for segment in held:
                self._delete(segment)
            return bool(held)

    def status(self) -> DashcamStatus:
        """What is kept now."""
        with self._changed:
            segments = self._segments
            seconds = (segments[-1].times_ms[1] - segments[0].times_ms[0]) / 1000.0 if segments else 0.0
            return DashcamStatus(
                seconds=max(0.0, seconds),
                frames=sum(one.end - one.first for one in segments),
                disk_bytes=self._disk_bytes,
                memory_bytes=self._memory_bytes,
                problem=self._problem,
            )

    def close(self) -> None:
        """Delete all frames, and wait for the writer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._writer.join()
        with self._changed:
            while self._segments:
                self._segments.popleft().remove()

    # -- limits (the lock is held) --

    def _delete_old(self) -> None:
        """Delete what is above a limit, the oldest first; never the segment that is being filled."""
        newest_ms = self._segments[-1].times_ms[1]
        while len(self._segments) > 1:
            oldest = self._segments[0]
            is_old = newest_ms - oldest.times_ms[1] > 1000.0 * self._limits.seconds
            if self._gave_up_disk:
                may_go = (is_old or oldest.raw is None) and self._is_read(oldest)
            else:
                may_go = (is_old and self._is_read(oldest)) or self._disk_bytes > self._limits.disk_bytes
            if not may_go:
                break
            self._delete(oldest)
        while self._memory_bytes > self._limits.memory_bytes and len(self._segments) > 1:
            # The disk is too slow, or full: what is on it is older, but stays.
            self._delete(next(one for one in self._segments if one.raw is not None))

    def _is_read(self, segment: Segment) -> bool:
        return self._needed < 0 or segment.end <= self._needed

    def _delete(self, segment: Segment) -> None:
        self._segments.remove(segment)
        self._disk_bytes -= segment.stored_bytes
        if segment.raw is not None:
            self._memory_bytes -= segment.raw_bytes
        segment.remove()

    # -- the writer's thread --

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._next_to_write() is not None)
                segment = self._next_to_write()
                if self._closed or segment is None:
                    return
                self._files += 1
                path = self._folder / f"frames-{self._files:08d}.zst"
            try:
                nbytes = segment.write(path)
            except OSError as error:
                self._note_failure(error)
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, RETRY_S)
                continue
            with self._changed:
                self._problem = ""
                kept = segment in self._segments
                segment.move_to_disk(path, nbytes)
                if kept:
                    self._memory_bytes -= segment.raw_bytes
                    self._disk_bytes += nbytes
                else:  # deleted while it was written
                    segment.remove()

    def _next_to_write(self) -> Segment | None:
        waiting = [one for one in self._segments if one.raw is not None]
        return waiting[0] if len(waiting) > IN_MEMORY and self._limits.disk_bytes else None

    def _note_failure(self, error: OSError) -> None:
        if not self._problem:
            log.warning("The dashcam can't write to %s: %s.", self._folder, error.strerror or error)
        self._problem = (
            f"The disk of the dashcam can't be written ({error.strerror or error}): only the last seconds are kept. "
            "A running recording goes on."
        )
