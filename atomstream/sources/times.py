"""When frames were taken: the times of a file as seconds from its first frame, whatever their unit.

A unit comes from the file (``units`` of CF, such as "milliseconds since 2025-03-01", ``unit`` of OME, or numpy's
datetime64) or from the caller; without one, times are seconds, as in an archive of atomstream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from atomstream.errors import ConfigError

from .frame_source import Indices, Times

_SECONDS: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_WORDS: Final = {
    "ns": ("nsec", "nsecs", "nanosec", "nanosecond", "nanoseconds"),
    "us": ("µs", "μs", "usec", "usecs", "µsec", "microsec", "microsecond", "microseconds"),
    "ms": ("msec", "msecs", "millisec", "millisecond", "milliseconds"),
    "s": ("sec", "secs", "second", "seconds"),
    "min": ("mins", "minute", "minutes"),
    "h": ("hr", "hrs", "hour", "hours"),
    "d": ("day", "days"),
}
_UNIT_OF: Final = {word: unit for unit, words in _WORDS.items() for word in (unit, *words)}

TIME_NAMES: Final = ("time", "times", "t", "timestamp", "timestamps", "frame_time", "frame_times")
"""Names of an array of times beside the frames. An index of frames, such as ``frame``, is not a time."""

_NO_SECONDS: Final = 1e11
"""Seconds of 3000 years: times from this number on, without a unit, have a smaller one, as those since 1970 do."""

_PLAIN_NAMES: Final = ("time", "times")
"""Of these, the names whose values count as seconds if they have no unit."""


def unit_seconds(unit: Any) -> float | None:
    """Return the length of a unit in s, also of "milliseconds since 2025-03-01"; None if it is not known."""
    if not isinstance(unit, str):
        return None
    word = unit.strip().split(" since ")[0].strip()
    # "M" (mega, month) and "S" (siemens) differ from "m" and "s"; longer words do not depend on the case.
    found = _UNIT_OF.get(word) or (_UNIT_OF.get(word.casefold()) if len(word) > 2 else None)
    return None if found is None else _SECONDS[found]


def seconds(name: str, values: npt.ArrayLike, unit: Any = None, *, stated_unit: str | None = None) -> Times:
    """Return times in s. Where a value is missing (NaT, NaN), there was no frame, and the result is NaN.

    ``unit`` is that of the file, ``stated_unit`` that of the caller, which overrides it. ``name`` is for messages.
    Raises :class:`ConfigError` for an unknown unit and for values that are not times.
    """
    array = np.asarray(values)
    if stated_unit is not None and unit_seconds(stated_unit) is None:
        raise ConfigError(
            f"The unit of times (--time-unit) is {stated_unit!r}; known are {', '.join(_SECONDS)}"
        )
    if array.dtype.kind in "mM":
        step = np.timedelta64(1, "ns")
        missing = np.isnat(array)
        filled = np.where(missing, array[~missing][0] if not missing.all() else array.dtype.type(0), array)
        whole = ((filled - filled[0]) / step).astype(np.float64) if array.size else np.zeros(0)
        return np.where(missing, np.nan, whole * 1e-9)
    if array.dtype.kind not in "iuf":
        raise ConfigError(f"{name} holds {array.dtype} values, which are not times; {_WAY_OUT}")
    unit = stated_unit if stated_unit is not None else unit
    length = 1.0 if unit is None else unit_seconds(unit)
    if length is None:
        raise ConfigError(f"{name} has times in the unit {unit!r}, which is not known; {_WAY_OUT}")
    times = array.astype(np.float64)
    if unit is None and np.abs(times[np.isfinite(times)]).max(initial=0.0) >= _NO_SECONDS:
        largest = np.abs(times[np.isfinite(times)]).max()
        raise ConfigError(
            f"{name} has times without a unit, up to {largest:.4g}: these are not seconds, but probably ms, us or ns; "
            f"{_WAY_OUT}"
        )
    if array.dtype.kind == "i" and array.dtype.itemsize == 8:
        missing = array == np.iinfo(np.int64).min  # NaT of numpy and pandas
        offset = array[~missing][0] if not missing.all() else np.int64(0)
        # Nanoseconds since 1970 have more digits than a double.
        times = np.where(missing, np.nan, (array - offset).astype(np.float64))
    result: Times = times * length
    return result


_WAY_OUT: Final = (
    "state the unit (--time-unit ms), or ignore the times (--ignore-times) and give the frame rate (--fps)"
)


def relative(name: str, times: Times) -> Times:
    """Return times (n,) in s from the first one that is known. Raises ConfigError if they run backwards."""
    known = np.flatnonzero(np.isfinite(times))
    if not known.size:
        raise ConfigError(f"{name} is empty: no frame has a time")
    steps = np.diff(times[known])
    back = np.flatnonzero(steps < 0)
    if back.size:
        at = known[back[0] + 1]
        raise ConfigError(
            f"{name}: the time runs backwards at frame {at}, by {-steps[back[0]]:g} s ({back.size} such steps in "
            f"{known.size} frames): are the frames in order? To ignore the times, give --ignore-times and --fps"
        )
    result: Times = times - times[known[0]]
    return result


def written(values: npt.NDArray[Any], fill: Any) -> npt.NDArray[Any]:
    """Return the values (n,) without those at the end that are ``fill``, or NaN: they were not written yet."""
    known = np.flatnonzero((values != fill) & (values == values))
    return values[: int(known[-1]) + 1 if known.size else 0]


@dataclass(frozen=True, slots=True, eq=False)
class SparseTimes:
    """Times (m,) in s of the frames with the ascending numbers ``places`` (m,); all other frames do not exist.

    An archive with a hole may state billions of frames and hold a few: a time for each would not fit into memory.
    """

    places: Indices
    times: Times

    def __getitem__(self, part: slice) -> Times:
        """Return the times of consecutive frames that exist."""
        first = int(np.searchsorted(self.places, part.start))
        return self.times[first : first + part.stop - part.start]


def median_step(times: Times) -> float | None:
    """Return the median time between two frames in s, None if it is 0 or if there are fewer than two times."""
    steps = np.diff(times[np.isfinite(times)])
    step = float(np.median(steps)) if steps.size else 0.0
    return step if step > 0 else None


def named_times(name: str, has_unit: bool) -> bool:
    """Return True if an array of this name, beside the frames, has their times."""
    return name.casefold() in (TIME_NAMES if has_unit else _PLAIN_NAMES)
