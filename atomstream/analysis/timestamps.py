"""Correction of frame timestamps that a stalled host wrote too late.

A camera exposes frames at even intervals. After a stall, the host stamps the waiting frames in a burst, so their
timestamps are late and then return to the regular interval. The running minimum of (timestamp - frame number x period)
over the next seconds therefore gives the true time. A real pause does not return to the old line: it stays a gap. Nor
do missing frames: the timestamps after them are never closer than the frame period.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from atomstream.results import F64, Bool

HORIZON_S = 5.0
"""Longest stall, in s, that is corrected; a longer one would have lost frames."""

SLACK_FACTORS = (0.8, 0.97)
"""The frame period is multiplied by these factors, one per pass, so that a camera that slows down is not called late.
The first period is rough; the frames on time give a better one for the second pass."""

LATE_PERIODS = 1.5
"""A timestamp later than this many frame periods is corrected; smaller jitter averages out."""

PAUSE_PERIODS = 3.0
"""A lasting step longer than this many frame periods is a pause, or frames were lost."""

SHORT_QUANTILE = 0.15
"""The frame period is first taken as this quantile of the intervals: those without a missing frame."""

MIN_PERIOD = 0.5
"""Least frame period, as a share of the mean interval: at most half of the frames are missing."""

MIN_INTERVAL, MAX_FAST_SHARE = 0.7, 0.03
"""If more than this share of the intervals is shorter than 0.7 frame periods, timestamps are late instead."""

MAX_FRACTION = 0.12
"""Largest median distance of the intervals from whole frame periods where frames are missing."""

MIN_MISSING_SHARE = 0.003
"""Smallest share of missing frames that is corrected."""

MAX_PAUSE_S = 2.0
"""A longer interval is a pause, not missing frames."""

MIN_SAMPLES = 8
"""Fewest samples that are corrected."""

MAX_CLOCK_DIFFERENCE = 0.03
"""Largest relative difference between nominal and measured frame rate that is the error of a clock. If they differ by
more, the nominal rate is wrong."""

MIN_CLOCK_DIFFERENCE = 0.001
"""Relative differences of the frame rates below this are ignored."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameClock:
    """Corrected times (N,) in s (NaN: unknown), frame period in s, and the shares (0-1) of late and missing frames.

    The period is > 0, or NaN if it is not known.
    """

    times: F64
    period_s: float
    late_share: float
    missing_share: float = 0.0


def corrected_times(t: F64, n: F64) -> FrameClock:
    """Correct the ascending timestamps ``t`` (N,) in s of frames with the numbers ``n`` (N,), without missing frames.

    Missing frames that show in the timestamps are counted first (:func:`numbers_with_missing`). Timestamps from a
    burst are interpolated in frame number between the frames on time. If the number of frames does not fit the time
    between these, unknown frames were lost in the stall, and the times are NaN. The frames of a burst that has not
    ended are NaN too.
    """
    if len(t) < MIN_SAMPLES or n[-1] <= n[0]:
        return FrameClock(t, math.nan, 0.0)
    seen, n = n, numbers_with_missing(t, n)
    missing = 1.0 - float(seen[-1] - seen[0]) / float(n[-1] - n[0])
    period, late = frame_period(t, n), np.zeros(len(t), dtype=bool)
    for slack in SLACK_FACTORS:
        if math.isnan(period):
            break
        late = _is_late(t, n, period, slack)
        period = frame_period(t[~late], n[~late])
    if math.isnan(period):
        return FrameClock(np.full(len(t), np.nan), math.nan, 1.0, missing)
    if not late.any() and not _catching_up(t, n, period):
        return FrameClock(t, period, 0.0, missing)
    times = _interpolated(t, n, late, period)
    times[_open_burst_start(t, n, period) :] = np.nan
    return FrameClock(times, period, float(late.mean()), missing)


def clock_uncertainty(clock: FrameClock, stated_fps: float) -> tuple[float, str]:
    """Return the relative uncertainty that the frame clock adds to a rate, and a note for the reader ("" for none).

    If the measured and the nominal frame rate differ by up to 3 %, one of the two clocks is wrong, and half of the
    difference is the uncertainty. If they differ by more, the nominal rate is wrong and adds nothing.
    """
    difference = abs(clock.period_s * stated_fps - 1.0) if math.isfinite(clock.period_s) else 0.0
    notes = []
    if clock.late_share > 0.005:
        notes.append(
            f"{100 * clock.late_share:.0f} % of the frames had late timestamps, which were corrected"
        )
    if clock.missing_share > 0.005:
        notes.append(f"{100 * clock.missing_share:.0f} % of the frames are missing, by the timestamps")
    if difference > MIN_CLOCK_DIFFERENCE:
        notes.append(
            f"by their timestamps, frames came at {1.0 / clock.period_s:.4g} per second, not {stated_fps:g}"
        )
    return (0.5 * difference if MIN_CLOCK_DIFFERENCE < difference < MAX_CLOCK_DIFFERENCE else 0.0), "; ".join(
        notes
    )


def numbers_with_missing(t: F64, n: F64) -> F64:
    """Return the frame numbers ``n`` (N,) plus the frames that are missing between them by the timestamps ``t`` (N,).

    Single frames are missing if all intervals are whole numbers of frame periods, some of them longer than by the
    numbers, and none much shorter: after a stall, in contrast, frames follow faster than the camera exposes them.
    Without such evidence the numbers are returned unchanged.
    """
    step, moved = np.diff(t), np.diff(n)
    used = moved > 0
    mean = float(step[used].sum() / moved[used].sum()) if used.any() else 0.0
    if len(step) < MIN_SAMPLES or not mean > 0:
        return n
    rate = step[used] / moved[used]
    period = float(np.quantile(rate, SHORT_QUANTILE))
    if not period > MIN_PERIOD * mean or float((rate < MIN_INTERVAL * period).mean()) > MAX_FAST_SHARE:
        return n
    short = step[used] < MAX_PAUSE_S
    for _ in range(3):
        counted = np.maximum(np.rint(step[used] / period), moved[used])
        period = float(step[used][short].sum() / counted[short].sum()) if short.any() else period
    off = step[used] / period - counted
    extra = counted - moved[used]
    if (
        float(np.median(np.abs(off[short]))) > MAX_FRACTION
        or extra[short].sum() < MIN_MISSING_SHARE * counted.sum()
    ):
        return n
    more = np.zeros(len(step))
    more[used] = np.where(short, extra, 0.0)
    return np.asarray(n + np.concatenate([[0.0], np.cumsum(more)]))


def _is_late(t: F64, n: F64, period: float, slack: float) -> Bool:
    """Return which timestamps are late compared with the earliest of the next seconds."""
    offset = t - slack * period * n
    step = float(n[-1] - n[0]) / (len(n) - 1) * period
    ahead = max(1, math.ceil(0.5 * HORIZON_S / step))
    lowest_ahead = ndimage.minimum_filter1d(offset, 2 * ahead + 1, origin=-ahead, mode="nearest")
    return np.asarray(offset - lowest_ahead > LATE_PERIODS * period)


def frame_period(t: F64, n: F64) -> float:
    """Return the frame period in s (> 0): the median slope over about five seconds, robust against stalls and pauses.

    NaN if it is not known, for example because most timestamps are equal.
    """
    if len(t) < 2 or t[-1] <= t[0] or n[-1] <= n[0]:
        return math.nan
    t = _without_pauses(t, n)
    lag = int(np.clip(HORIZON_S * (len(t) - 1) / float(t[-1] - t[0]), 1, len(t) // 2))
    moved = n[lag:] - n[:-lag]
    good = moved > 0
    period = float(np.median((t[lag:] - t[:-lag])[good] / moved[good])) if good.any() else 0.0
    return period if period > 0 else math.nan


def _without_pauses(t: F64, n: F64) -> F64:
    """Return ``t`` without pauses. A pause is a step that stays; the step of a stall vanishes within seconds."""
    step, moved = np.diff(t), np.diff(n)
    if not (moved > 0).any():
        return t
    median_step = float(np.median(step[moved > 0] / moved[moved > 0]))
    if not median_step > 0:
        return t
    offset = t - median_step * n
    ahead = max(1, math.ceil(HORIZON_S / (median_step * float(n[-1] - n[0]) / (len(n) - 1))))
    lowest_to_come = ndimage.minimum_filter1d(offset, 2 * ahead + 1, origin=-ahead, mode="nearest")
    stays = np.minimum(np.diff(offset), lowest_to_come[1:] - offset[:-1])
    pauses = np.where(stays > PAUSE_PERIODS * median_step, stays, 0.0)
    return np.asarray(t - np.concatenate([[0.0], np.cumsum(pauses)]))


def _interpolated(t: F64, n: F64, late: Bool, period: float) -> F64:
    good = np.flatnonzero(~late)
    times = np.interp(n, n[good], t[good])
    first = good[0]
    times[:first] = t[first] - (n[first] - n[:first]) * period
    before, after = good[:-1], good[1:]
    span = t[after] - t[before]
    lost = np.abs(span - (n[after] - n[before]) * period)
    unknown = (after > before + 1) & (lost > np.maximum(3.0 * period, 0.05 * span))
    for a, b in zip(before[unknown], after[unknown], strict=True):
        times[a + 1 : b] = np.nan
    return times


def _catching_up(t: F64, n: F64, period: float) -> bool:
    """Return True if the newest frames came faster than the camera exposes: the host still works off a stall."""
    pace = [float(t[-1] - t[-1 - k]) / max(float(n[-1] - n[-1 - k]), 1e-9) for k in (1, 5)]
    return pace[0] < 0.5 * period or pace[1] < 0.8 * period


def _open_burst_start(t: F64, n: F64, period: float) -> int:
    """Return the index of the first sample of a burst that has not ended; N if there is none."""
    if not _catching_up(t, n, period):
        return len(t)
    offset = t - period * n
    before = np.flatnonzero(offset < offset[-1] - LATE_PERIODS * period)
    return int(before[-1]) + 1 if len(before) else len(t)
