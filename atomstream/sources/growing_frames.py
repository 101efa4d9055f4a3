"""Frames of a file that a program is still writing, for files in which each frame has its place: TIFF, HDF5, raw, Zarr.

The file is opened again and again. A frame is delivered when something was written behind it, or, the last ones, when
the file has not changed for a while: a writer may have reserved the place of a frame before it writes the pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from atomstream.errors import ConfigError
from atomstream.records import Frames

from .damage import (
    ChunkBuilder,
    FrameDamage,
    IndexedFrames,
    UnreadableFileError,
    add_gap,
    raise_at_end,
    read_error,
)
from .frame_source import EmptySourceError, Gap, SourceChunk, Times, checked_chunk_size
from .growth import POLL_S, Growth

PATIENCE_S: Final = 5.0
"""A frame that can't be read for this time in s, although there are later ones, is damaged. A file that can't be opened
for this time ends the following."""

SETTLE_S: Final = 1.0
"""The last frames are delivered if the file has not grown for this time in s."""

FIRST_S: Final = 30.0
"""Longest wait in s for the first frame, if no silence is stated."""

MAX_POLL_S: Final = 5.0
_LOOK_AHEAD: Final = 64
"""Pieces behind a missing one in which a later one is looked for."""


class GrowingFrames:
    """Frames of a file that is being written, in order, each once. ``reopen`` opens the file again.

    The times are those of the file. If it has none, or if its rate differs from ``fps``, they are the times at which
    the frames were seen; those that were there before count back from the opening. :meth:`chunks` can be called once.
    """

    n_frames: int | None = None

    def __init__(
        self,
        reopen: Callable[[], IndexedFrames],
        growth: Growth,
        *,
        fps: float | None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._reopen = reopen
        self._growth = growth
        self._patience_s = patience_s
        self._source = self._first()
        self.name: str = self._source.name
        self.frame_shape: tuple[int, int] = self._source.frame_shape
        self.dtype: np.dtype[Any] = self._source.dtype
        self.fps: float | None = self._source.fps
        self.time_step_s: float | None = getattr(self._source, "time_step_s", None)
        self.gaps: list[Gap] = []
        self._skip_damaged: bool | None = self._source.skip_damaged
        if not self._source.grows or self._source._order is not None:
            raise ConfigError(
                f"{self.name} can't be followed: its frames are not the first axis of one array"
            )
        same_rate = fps is None or self.fps is None or abs(self.fps / fps - 1.0) <= 0.01
        self._own_times = same_rate and self._source.times(0, 1) is not None
        self._period_s = 1.0 / (fps or self.fps or 1.0)
        self._opened_at = growth.clock()
        self._place = 0
        """Number of the next frame."""
        self._present = self._visible()
        """Frames that were there at the beginning."""
        self._seen = self._present
        """Frames that were seen so far."""
        self._last_s = self._before_s()
        """Time of the last one of them in s from the first frame."""
        self._seen_s: deque[float] = deque()
        """Times at which frames that were not there at the beginning were seen, of those not delivered yet."""
        self._stuck_at = -1
        self._stuck_since = 0.0

    def age_s(self) -> float:
        """Return how long ago the first frame was taken, in s, by the times of :meth:`chunks`."""
        return self._growth.clock() - self._opened_at + self._before_s()

    def stop(self) -> None:
        """End the following; :meth:`chunks` then yields the rest."""
        self._growth.stop()

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._growth.stopped

    def chunks(self, chunk_size: int) -> Iterator[SourceChunk]:
        """Yield all frames in order, at most ``chunk_size`` at a time, until the file grows no more.

        Frames that can't be read are treated as :meth:`IndexedFrames.chunks` treats them. Raises :class:`ConfigError`
        if the file becomes shorter, or can't be opened any more.
        """
        builder = ChunkBuilder(checked_chunk_size(chunk_size))
        try:
            try:
                yield from self._grow(builder)
                yield from self._rest(builder)
            except ConfigError:
                yield from builder.rest()
                raise
            yield from builder.rest()
        finally:
            self._source.close()
        raise_at_end(self.gaps, self._skip_damaged)

    # -- while it grows ----------------------------------------------------------------------------------

    def _first(self) -> IndexedFrames:
        while True:
            try:
                source = self._reopen()
                stored = source.stored_pieces()
                if stored is not None and not stored(0):
                    raise EmptySourceError(f"{source.name} is empty: its first frame is not written yet")
                source.read(0, 1)
                source.close()
                return source
            except (EmptySourceError, UnreadableFileError, FrameDamage) as error:
                if self._growth.ended or self._growth.silent_s >= FIRST_S:
                    if isinstance(error, FrameDamage):
                        raise ConfigError(f"{error.file} holds no whole frame: {error.reason}") from error
                    raise
            self._growth.wait()

    def _grow(self, builder: ChunkBuilder) -> Iterator[SourceChunk]:
        while True:
            before = self._place
            yield from self._take(builder, self._ready())
            if self._place > before:
                self._growth.grew()
            if self._growth.ended:
                return
            began = self._growth.clock()
            self._open_again()
            cost = self._growth.clock() - began
            self._growth.wait(min(MAX_POLL_S, max(POLL_S, 4.0 * cost)))  # large TIFF files are slow to open

    def _open_again(self) -> None:
        """Open the file again; if that fails, because it is just being changed, keep the earlier view of it."""
        since = self._growth.clock()
        while True:
            try:
                source = self._reopen()
                break
            except (UnreadableFileError, EmptySourceError, OSError) as error:
                if self._growth.clock() - since >= self._patience_s or self._growth.stopped:
                    raise self._lost(str(error)) from error
            self._growth.wait()
        known, now = self._source.n_frames or 0, source.n_frames or 0
        if now < self._place:
            raise self._lost(f"it has {now} frames, and had {known}: it was replaced, or cut off")
        if (source.frame_shape, source.dtype) != (self.frame_shape, self.dtype):
            raise self._lost(
                f"its frames are now {source.frame_shape} {source.dtype}, and were {self.frame_shape} {self.dtype}"
            )
        if self._own_times and source.times(0, 1) is None:
            raise self._lost("it has no times of its frames any more")
        if now > known:
            self._growth.grew()
        self._source.close()
        self._source = source
        self._note_seen()

    def _visible(self) -> int:
        """Return the number of frames of which something is in the file."""
        size, count = self._source.frames_per_piece, self._source.n_frames or 0
        stored = self._source.stored_pieces()
        if stored is None:
            return count
        piece = self._place // size
        while piece * size < count and stored(piece):
            piece += 1
        return min(count, piece * size)

    def _note_seen(self) -> None:
        """Note the times of the frames that are seen for the first time: evenly since the last one, or by the rate."""
        if self._own_times or (new := self._visible() - self._seen) <= 0:
            return
        now = max(self.age_s(), self._last_s)
        step = min(self._period_s, (now - self._last_s) / new)
        self._seen_s += [now - step * k for k in range(new - 1, -1, -1)]
        self._seen += new
        self._last_s = now

    def _lost(self, why: str) -> ConfigError:
        return ConfigError(
            f"{self.name} can't be followed further after frame {self._place - 1}: {why.rstrip('.')}"
        )

    def _ready(self) -> int:
        """Return the number of frames behind which something was written."""
        size, count = self._source.frames_per_piece, self._source.n_frames or 0
        stored = self._source.stored_pieces()
        if stored is None:
            return (count - 1) // size * size
        piece = self._place // size
        while piece * size < count:
            if not stored(piece) and not self._is_stuck(piece, self._any_after(piece, stored)):
                break
            piece += 1
        return min(count, max(self._place, (piece - 1) * size))

    @staticmethod
    def _any_after(piece: int, stored: Callable[[int], bool]) -> bool:
        return any(stored(piece + k) for k in range(1, _LOOK_AHEAD))

    def _is_stuck(self, piece: int, later: bool) -> bool:
        """Return True if a piece can't be read since some time, although there are later ones."""
        now = self._growth.clock()
        if piece != self._stuck_at:
            self._stuck_at, self._stuck_since = piece, now
        return later and now - self._stuck_since >= self._patience_s

    def _take(self, builder: ChunkBuilder, ready: int) -> Iterator[SourceChunk]:
        """Add the frames up to ``ready``, as far as they can be read now."""
        while self._place < ready:
            end = min(ready, self._place + builder.wanted)
            try:
                block = self._source.read(self._place, end)
            except (FrameDamage, OSError):
                end = self._place + 1
                try:
                    block = self._source.read(self._place, end)
                except (FrameDamage, OSError) as error:
                    if not self._is_stuck(self._place // self._source.frames_per_piece, later=True):
                        return
                    self._leave_out(error)
                    continue
            yield from self._add(builder, block)

    # -- the end -----------------------------------------------------------------------------------------

    def _rest(self, builder: ChunkBuilder) -> Iterator[SourceChunk]:
        """Add the last frames. What is not complete is reported as missing, unless the user ended the following."""
        if self._growth.stopped and self._growth.silent_s < SETTLE_S:
            self._growth.pause(SETTLE_S - self._growth.silent_s)
        self._open_again()
        count = self._source.n_frames or 0
        if self._growth.silent_s < SETTLE_S:
            count = min(count, max(self._place, self._ready()))
        lost: list[tuple[int, Exception]] = []
        while self._place + len(lost) < count:
            number = self._place + len(lost)
            try:
                block = self._source.read(number, number + 1)
            except (FrameDamage, OSError) as error:
                lost.append((number, error))
                continue
            for _, damage in lost:
                self._leave_out(damage)
            lost = []
            yield from self._add(builder, block)
        if self._growth.stopped:
            return
        for _, damage in lost:
            self._leave_out(damage)
        if self._source.lost_tail is not None:
            add_gap(self.gaps, self._source.lost_tail)

    def _leave_out(self, error: Exception) -> None:
        damage = error if isinstance(error, FrameDamage) else read_error(_os_error(error), self.name)
        add_gap(self.gaps, damage.gap(self._place))
        if self._place >= self._present:
            self._next_seen()
        self._place += 1

    def _add(self, builder: ChunkBuilder, block: Frames) -> Iterator[SourceChunk]:
        begin, end = self._place, self._place + len(block)
        self._place = end
        yield from builder.add(block, np.arange(begin, end), self._times(begin, end))

    # -- times -------------------------------------------------------------------------------------------

    def _before_s(self) -> float:
        """Return the time from the first frame to the last one that was there at the beginning."""
        if self._own_times:
            times = self._source.times(self._present - 1, self._present)
            return float(times[0]) if times is not None and len(times) else 0.0
        return (self._present - 1) * self._period_s

    def _times(self, begin: int, end: int) -> Times:
        """Return the times of the next frames in s from the first one."""
        if self._own_times:
            own = self._source.times(begin, end)
            assert own is not None
            return own
        times: Times = np.multiply(np.arange(begin, end), self._period_s, dtype=np.float64)
        for number in range(max(begin, self._present), end):
            times[number - begin] = self._next_seen()
        return times

    def _next_seen(self) -> float:
        return self._seen_s.popleft() if self._seen_s else self._last_s


def _os_error(error: Exception) -> OSError:
    return error if isinstance(error, OSError) else OSError(str(error))
