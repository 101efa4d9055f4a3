"""The values of a channel at the times of frames: each value holds until the next one.

This is right for a shutter. A controller's reading is not interpolated, because the next value is not known yet. So a
live value does not change later, unless its point arrives late.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from atomstream.results import SIGNAL
from atomstream.server.signals.chunks import F64, Points

AFTER_S: Final = 60.0
AFTER_INTERVALS: Final = 10.0
"""Time in s, and number of usual intervals, for which the last value of a channel holds; the longer one counts. The
value of a channel with a single value holds without limit."""


def held(points: Points, times: npt.NDArray[Any]) -> F64:
    """Return the value at each of ``times`` (M,), s since 1970: that of the last point before, NaN if there is none."""
    if not len(points):
        return np.full(len(times), np.nan)
    place = np.searchsorted(points.times, times, side="right") - 1
    known = (place >= 0) & np.isfinite(times)
    values = np.where(known, points.values[np.maximum(place, 0)], np.nan)
    if len(points) > 1:
        usual = float(np.median(np.diff(points.times)))
        values[times > points.times[-1] + max(AFTER_S, AFTER_INTERVALS * usual)] = np.nan
    return np.asarray(values, dtype=np.float64)


def column_names(channels: Iterable[str]) -> dict[str, str]:
    """Return the name of each channel's array in the archive: ``signal_`` and its letters and digits, each once."""
    found: dict[str, str] = {}
    for channel in channels:
        plain = unicodedata.normalize("NFKD", channel).encode("ascii", "ignore").decode().lower()
        base = SIGNAL + (re.sub(r"[^a-z0-9]+", "_", plain).strip("_") or "channel")[:48]
        name, number = base, 1
        while name in found.values():
            number += 1
            name = f"{base}_{number}"
        found[channel] = name
    return found
