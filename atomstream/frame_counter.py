"""Frames that a camera dropped, computed from the numbers that its driver gives to the frames.

The client, the archive and the analysis use the same rules, so they agree about the time of each frame and about the
number of missing ones. Drivers count in different ways:

- **No number**: a negative one, a number of all ones (65535, 2^32 - 1, 2^64 - 1), and one that does not change. Such a
  frame counts as the next one.
- **Wrap**: after 65535 and 2^32 - 1 a counter goes on at 0 or, as in GigE Vision, at 1. Nothing is missing there.
- **Steps**: if only every 4th frame is sent, the numbers rise by 4. A step that is the usual one is one frame.
- **Restart**: a step backwards, or by more than the limits below, does not show how many frames are missing. It counts
  as one frame.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

MAX_MISSING: Final = 1_000_000
"""Most frames that are missing between two frames. A larger step of the counter is a restart of the camera."""

MAX_MISSING_S: Final = 1e6
"""Longest time of missing frames in s, about 12 days. The smaller of the two limits applies: below 1 frame per second
it is this one."""

LAST_COUNTER: Final = 2**63 - 1
"""The largest counter: counters are signed integers of 64 bits."""

NEAR: Final = 1024
"""Largest step over a wrap, and largest step to a number of all ones that is a counter and not "no number"."""

STEPS_SEEN: Final = 8
"""Number of last steps from which the usual step is computed."""

STEPS_NEEDED: Final = 3
"""Number of steps after which a usual step other than 1 is known. Missing frames are counted only from then on."""

_RANGES: Final = (2**16, 2**32)
"""The numbers of values of counters that wrap."""

_STEADY: Final = [1] * STEPS_SEEN
"""The last steps of a counter that rises by one from frame to frame."""

_ALL_ONES: Final = frozenset(size - 1 for size in _RANGES)


def known_id(value: int) -> int:
    """Return an unsigned counter of 64 bits as a signed one; -1, which means not known, from 2^63 on."""
    return -1 if value > LAST_COUNTER else value


@dataclass(slots=True)
class FrameCounter:
    """Counts missing frames, frame by frame, by the rules of this module.

    ``last_id`` is the last known counter, -1 if there is none, and ``since`` the number of frames after it. ``steps``
    are the last steps between neighbours, ``held`` are those that wait until there are enough of them. ``restarted`` is
    True if the last frame's counter does not continue the ones before.
    """

    last_id: int = -1
    since: int = 0
    steps: list[int] = field(default_factory=list)
    held: list[tuple[int, int]] = field(default_factory=list)
    restarted: bool = False

    def add(self, frame_id: int, fps: float) -> int:
        """Return how many frames are missing before this frame, and before the last ones if they had to wait.

        ``frame_id`` is the counter (negative: not known), ``fps`` the frame rate in 1/s. The first frames wait until
        the usual step is known; :meth:`flush` ends the wait.
        """
        if frame_id == self.last_id + 1 > 0 == self.since and self.steps == _STEADY and not self.held:
            self.last_id, self.restarted = (
                frame_id,
                False,
            )  # the rules below give the same in ten times the time
            return 0
        found = self.advance(frame_id, fps)
        if found is None:
            return 0
        step, passed = found
        if passed == 1:
            self.steps = [*self.steps[1 - STEPS_SEEN :], step]
        self.held.append(found)
        known = len(self.steps) >= STEPS_NEEDED or min(self.steps, default=0) == 1
        return self.flush() if known else 0

    def advance(self, frame_id: int, fps: float) -> tuple[int, int] | None:
        """Go to the next frame; return the step from the last known counter, and over how many frames.

        None if the number of missing frames is not known: the counter is not known, is the first one, or started
        again, which ``restarted`` then states.
        """
        self.restarted = False
        self.since += 1
        if frame_id < 0 or frame_id == self.last_id:
            return None
        last, passed = self.last_id, self.since
        if frame_id in _ALL_ONES and not 0 <= last < frame_id <= last + NEAR * passed:
            return None
        self.last_id, self.since = frame_id, 0
        if last < 0:
            return None
        step = frame_id - last if frame_id > last else _wrapped(last, frame_id, NEAR * passed)
        self.restarted = step < 0 or step > min(MAX_MISSING, MAX_MISSING_S * fps) + passed
        return None if self.restarted else (step, passed)

    def flush(self) -> int:
        """Return how many frames are missing before the frames that wait; none waits afterwards."""
        usual = usual_step(self.steps)
        missing = sum(_missing(step, passed, usual) for step, passed in self.held)
        self.held = []
        return missing

    def missing_before(self, frame_id: int, fps: float) -> int | None:
        """Return how many frames are missing before the next one with counter ``frame_id``; None if not known."""
        copy = replace(self)
        found = copy.advance(frame_id, fps)
        return None if found is None else _missing(*found, usual_step(self.steps))

    def skip(self) -> None:
        """Do not compare the next counter with the last one, because the gap between them is known otherwise."""
        self.last_id, self.since = -1, 0


def _wrapped(last: int, frame_id: int, limit: int) -> int:
    """Return the step over a wrap, -1 if there is none: the counter started again."""
    for size in _RANGES:
        if last < size:
            step = frame_id + size - last - (frame_id > 0)  # a counter that goes on above 0 has no 0
            return step if step <= limit else -1
    return -1


def _missing(step: int, passed: int, usual: int) -> int:
    """Return how many frames are missing in a ``step`` over ``passed`` stored frames."""
    return max(0, round(step / usual) - passed)


def usual_step(steps: Sequence[int]) -> int:
    """Return the step of the counter from one frame to the next one, from some steps between neighbours.

    It is the smallest step, if it is more than half of at least two steps; otherwise 1.
    """
    counts = Counter(steps)
    smallest = min(counts, default=1)
    return smallest if counts[smallest] >= 2 and 2 * counts[smallest] > len(steps) else 1


def missing_before(ids: Sequence[int] | npt.NDArray[Any], fps: float) -> npt.NDArray[Any]:
    """Return how many frames are missing directly before each frame, an int64 array (N,).

    ``ids`` (N,) are the counters of consecutive stored frames (negative: not known), ``fps`` the frame rate in 1/s.
    """
    counters = np.asarray(ids, dtype=np.int64)
    missing = np.zeros(len(counters), dtype=np.int64)
    if len(counters) < 2 or ((counters[0] >= 0) & (np.diff(counters) == 1).all()):
        return missing
    counter = FrameCounter()
    found = [counter.advance(frame_id, fps) for frame_id in counters.tolist()]
    usual = usual_step([one[0] for one in found if one is not None and one[1] == 1])
    for place, one in enumerate(found):
        if one is not None:
            missing[place] = _missing(*one, usual)
    return missing


def frame_numbers(ids: Sequence[int] | npt.NDArray[Any], fps: float) -> npt.NDArray[Any]:
    """Return the places (N,) of frames in the camera's sequence, from 0 for the first one; missing frames count too.

    The arguments are those of :func:`missing_before`. Divided by ``fps`` the places are times in s.
    """
    return np.asarray(np.arange(len(ids)) + np.cumsum(missing_before(ids, fps)))
