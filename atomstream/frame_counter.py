"""Frames that a camera dropped, computed from its frame counter.

The client, the archive and the analysis use the same function, so they agree about the time of each frame and about
the number of missing ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

MAX_MISSING: Final = 1_000_000
"""Most frames that are missing between two frames. A larger step of the counter is a restart of the camera."""

MAX_MISSING_S: Final = 1e6
"""The same limit in s, about 12 days. It is the smaller one below 1 frame per second."""


LAST_COUNTER: Final = 2**63 - 1
"""The largest counter: counters are signed integers of 64 bits."""


def missing_before(ids: Sequence[int] | npt.NDArray[Any], fps: float, last_id: int = -1) -> npt.NDArray[Any]:
    """Return how many frames are missing directly before each frame, an int64 array (N,).

    ``ids`` (N,) are the counters of consecutive stored frames (negative: not known), ``fps`` the frame rate in 1/s,
    ``last_id`` the counter of the frame before them (-1: not known, or there is none). A step backwards, a repeated
    counter and a step beyond the limits do not show how many frames are missing, so they count as
    one frame: none is missing there.
    """
    counters = np.asarray(ids, dtype=np.int64)
    missing = np.zeros(len(counters), dtype=np.int64)
    (places,) = np.nonzero(counters >= 0)
    known = counters[places]
    if last_id >= 0:
        places, known = np.append(-1, places), np.append(np.int64(last_id), known)
    if len(places) > 1:
        # Frames without a counter between two others are stored, so they are not missing.
        steps = np.diff(known) - np.diff(places)
        limit = min(MAX_MISSING, MAX_MISSING_S * fps)
        missing[places[1:]] = np.where((steps > 0) & (steps <= limit), steps, 0)
    return missing


def counter_of_last(ids: Sequence[int] | npt.NDArray[Any], last_id: int = -1) -> int:
    """Return the counter of the last of these frames, to be passed to :func:`missing_before` for the next ones.

    Where it is not known, it is computed from the last known one before, as if no frame were missing since. Returns
    -1 if none is known.
    """
    counters = np.asarray(ids, dtype=np.int64)
    (places,) = np.nonzero(counters >= 0)
    if len(places):
        last_id, since = int(counters[places[-1]]), len(counters) - 1 - int(places[-1])
    else:
        since = len(counters)
    return -1 if last_id < 0 else min(last_id + since, LAST_COUNTER)


def frame_numbers(ids: Sequence[int] | npt.NDArray[Any], fps: float) -> npt.NDArray[Any]:
    """Return the places (N,) of frames in the camera's sequence, from 0 for the first one; missing frames count too.

    The arguments are those of :func:`missing_before`. Divided by ``fps`` the places are times in s. If the known
    counters do not ascend, the places are 0 .. N-1.
    """
    counters = np.asarray(ids, dtype=np.int64)
    places = np.arange(len(counters))
    known = counters[counters >= 0]
    if (known[1:] > known[:-1]).all():
        places += np.cumsum(missing_before(counters, fps))
    return places
