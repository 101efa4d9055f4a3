"""Frames of a recording that can't be read: what is missing, and how reading continues after it.

A reader raises :class:`FrameDamage` for one frame. :class:`IndexedFrames` and the video reader turn it into a
:class:`Gap` and deliver all whole frames before it. What happens then depends on ``skip_damaged``: reading ends with
:class:`DamagedSourceError` (False), continues after the gap (True), or continues and ends with that error (None). A
frame that is decoded in part is never delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from atomstream.counted import counted
from atomstream.errors import ConfigError
from atomstream.records import Frames

from .frame_source import Gap, Indices, SourceChunk, Times, checked_chunk_size
from .times import SparseTimes

Block: TypeAlias = npt.NDArray[Any]


class DamagedSourceError(ConfigError):
    """A recording is damaged; all frames before :attr:`gap` were delivered.

    ``behind`` is the number of frames behind the gap that were not read, None if it is not known. ``read_on``: the
    whole frames behind all ``gaps`` were delivered as well.
    """

    def __init__(self, *gaps: Gap, behind: int | None = 0, read_on: bool = False) -> None:
        self.gaps = gaps
        self.behind = behind
        self.read_on = read_on
        rest = ""
        if read_on:
            more = f", and {counted(len(gaps) - 1, 'more gap')}" if len(gaps) > 1 else ""
            rest = f"{more}; all other frames were read"
        elif behind:
            rest = f"; {counted(behind, 'frame')} behind it not read: --skip-damaged (skip_damaged=True) goes on there"
        elif behind is None:
            rest = "; what is behind it was not read: --skip-damaged (skip_damaged=True) goes on there"
        super().__init__(f"Can't read {gaps[0]}{rest}")

    @property
    def gap(self) -> Gap:
        """The first gap."""
        return self.gaps[0]


class UnreadableFileError(ConfigError):
    """A file is damaged so that nothing of it can be read: its path, and why."""

    def __init__(self, path: str, kind: str, reason: str) -> None:
        super().__init__(f"{path} can't be read as {kind}: {reason}")
        self.kind = kind
        self.reason = reason


class FrameDamage(Exception):  # noqa: N818  (it is turned into a Gap, and never leaves this package)
    """One frame can't be read: the reason, the file, and the byte at which the damage begins if that is known."""

    def __init__(self, reason: str, file: str, byte: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.file = file
        self.byte = byte

    def gap(self, frame: int, frames: int | None = 1) -> Gap:
        """Return the gap that begins with this frame."""
        return Gap(frame, frames, self.file, self.byte, self.reason)


def read_error(error: OSError, file: str, byte: int | None = None) -> FrameDamage:
    """Describe an error of the disk or of the network as damage of one frame."""
    return FrameDamage(f"the file can't be read ({error.strerror or error})", file, byte)


def decode_error(error: BaseException, file: str, byte: int | None = None) -> FrameDamage:
    """Describe an error of a decoder as damage of one frame."""
    text = plain(error)
    return FrameDamage(f"it can't be decoded ({text})", file, byte)


def plain(error: BaseException) -> str:
    """Return the message of a library's error in one line, without numbers that only its programmers need."""
    text = getattr(error, "strerror", None) if isinstance(error, OSError | ValueError) else None
    return " ".join(str(text or error).split()) or type(error).__name__


class ChunkBuilder:
    """Gathers frames to chunks of ``step`` frames."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._parts: list[SourceChunk] = []
        self._held = 0

    @property
    def wanted(self) -> int:
        """Frames until the next chunk is complete."""
        return self._step - self._held

    def add(self, frames: Frames, indices: Indices | None, times_s: Times | None) -> Iterator[SourceChunk]:
        """Add at most :attr:`wanted` frames; yield the chunk if it is complete."""
        if not len(frames):
            return
        self._parts.append(SourceChunk(frames, times_s, indices))
        self._held += len(frames)
        if self._held == self._step:
            yield from self.rest()

    def rest(self) -> Iterator[SourceChunk]:
        """Yield the frames that are held, if any."""
        parts, self._parts, self._held = self._parts, [], 0
        if len(parts) == 1:
            yield parts[0]
        elif parts:
            times = [part.times_s for part in parts if part.times_s is not None]
            indices = [part.indices for part in parts if part.indices is not None]
            yield SourceChunk(
                np.concatenate([part.frames for part in parts]),
                np.concatenate(times) if len(times) == len(parts) else None,
                np.concatenate(indices) if len(indices) == len(parts) else None,
            )


class IndexedFrames:
    """Base of sources in which each frame can be read by its number.

    A subclass calls ``__init__``, and defines :meth:`_read`, and :meth:`_close` if it holds something open.
    """

    frame_shape: tuple[int, int]
    dtype: np.dtype[Any]
    fps: float | None

    def __init__(self, name: str, length: int, *, skip_damaged: bool | None = None) -> None:
        self.name = name
        self.gaps: list[Gap] = []
        """Frames that were left out by the last reading, for ``skip_damaged``."""
        self.n_frames: int | None = length
        self.skip_damaged = skip_damaged
        self._order: Indices | None = None
        """Numbers of the frames that exist; None: all from 0 to ``n_frames``."""
        self._times: Times | SparseTimes | None = None
        """Times of all frames in s from the first one."""
        self.lost_tail: Gap | None = None
        """Frames that the file states, but which lie behind its end."""
        self.files: frozenset[Path] = frozenset()
        """Files with the frames, if there may be several of them."""
        self.frames_per_piece = 1
        """Frames that the file stores together, as in a chunk of HDF5 or Zarr."""
        self.is_shared = False
        """True if the writer of the file lets others read it meanwhile (SWMR of HDF5)."""
        self.grows = True
        """True if frames that are appended to the file get the next numbers."""

    def stored_pieces(self) -> Callable[[int], bool] | None:
        """Return a function that tells whether the file has piece k; None if that follows from its length."""
        return None

    def times(self, begin: int, end: int) -> Times | None:
        """Return the times of these frames in s from the first one; None if the file has none."""
        return None if self._times is None else self._times[begin:end]

    def read(self, begin: int, end: int) -> Frames:
        """Return the frames ``begin`` to ``end`` (excluded). Raises FrameDamage or OSError if one can't be read."""
        return self._read(slice(begin, end))

    def close(self) -> None:
        """Close what reading opened; the next reading opens it again."""
        self._close()

    def _read(self, part: slice) -> Frames:
        """Return the frames ``part.start`` to ``part.stop`` (excluded), new and C-contiguous.

        Raises FrameDamage or OSError if one of them can't be read, ConfigError if one can't be streamed.
        """
        raise NotImplementedError

    def _close(self) -> None:
        """Close what reading opened."""

    def chunks(self, chunk_size: int) -> Iterator[SourceChunk]:
        """Yield all frames in order, at most ``chunk_size`` at a time.

        Frames that can't be read are left out and listed in :attr:`gaps`, and :class:`DamagedSourceError` is raised
        at the end. With ``skip_damaged=False`` it is raised at the first of them, with True not at all.
        """
        builder = ChunkBuilder(checked_chunk_size(chunk_size))
        self.gaps = []
        try:
            yield from self._all_chunks(builder)
        finally:
            self._close()

    def _all_chunks(self, builder: ChunkBuilder) -> Iterator[SourceChunk]:
        place, length = 0, self._length()
        while place < length:
            begin, end = self._run(place, min(length, place + builder.wanted))
            try:
                block = self._read(slice(begin, end))
            except (FrameDamage, OSError, ConfigError):
                yield from self._one_by_one(builder, place, end - begin)
            else:
                yield from self._add(builder, block, begin)
            place += end - begin
        yield from builder.rest()
        if self.lost_tail is not None:
            self._leave_out(self.lost_tail, 0)
        raise_at_end(self.gaps, self.skip_damaged)

    def _length(self) -> int:
        return len(self._order) if self._order is not None else self.n_frames or 0

    def _run(self, place: int, last: int) -> tuple[int, int]:
        """Return the numbers (begin, end) of frames that follow each other without a hole."""
        if self._order is None:
            return place, last
        order = self._order[place:last]
        holes = np.flatnonzero(np.diff(order) != 1)
        count = int(holes[0]) + 1 if holes.size else len(order)
        return int(order[0]), int(order[0]) + count

    def _one_by_one(self, builder: ChunkBuilder, place: int, count: int) -> Iterator[SourceChunk]:
        """Add the whole ones of ``count`` frames, of which at least one can't be read."""
        first = place if self._order is None else int(self._order[place])
        for k in range(count):
            number = first + k
            try:
                frame = self._read(slice(number, number + 1))
            except (FrameDamage, OSError) as error:
                damage = error if isinstance(error, FrameDamage) else read_error(error, self.name)
                if self.skip_damaged is False:
                    yield from builder.rest()
                lost = self.lost_tail.frames if self.lost_tail is not None else 0
                behind = None if lost is None else self._length() - (place + k + 1)
                self._leave_out(damage.gap(number), behind)
            except ConfigError:  # readable, but no frame of this stream
                yield from builder.rest()
                raise
            else:
                yield from self._add(builder, frame, number)

    def _add(self, builder: ChunkBuilder, block: Frames, begin: int) -> Iterator[SourceChunk]:
        indices = np.arange(begin, begin + len(block))
        times = None if self._times is None else self._times[begin : begin + len(block)]
        yield from builder.add(block, indices, times)

    def _leave_out(self, gap: Gap, behind: int | None) -> None:
        """Note a gap, or raise DamagedSourceError."""
        if self.skip_damaged is False:
            raise DamagedSourceError(gap, behind=behind)
        add_gap(self.gaps, gap)


def raise_at_end(gaps: list[Gap], skip_damaged: bool | None) -> None:
    """Raise DamagedSourceError after the last frame, if frames are missing and ``skip_damaged`` is not set."""
    if gaps and skip_damaged is None:
        raise DamagedSourceError(*gaps, read_on=True)


def add_gap(gaps: list[Gap], gap: Gap) -> None:
    """Append ``gap``, or extend the last one if it is of the same kind and ends directly before."""
    if gaps:
        last = gaps[-1]
        alike = (last.file, last.reason) == (gap.file, gap.reason)
        if alike and last.frames is not None and last.frame + last.frames == gap.frame:
            count = None if gap.frames is None else last.frames + gap.frames
            gaps[-1] = Gap(last.frame, count, last.file, last.byte, last.reason)
            return
    gaps.append(gap)
