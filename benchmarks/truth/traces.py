"""Random traces fed to the growth tracker, only to find exceptions and results that cannot be.

The traces are constants, NaN, spikes, huge numbers, bursts and growths; whether a number is right is not judged.
"""

from __future__ import annotations

import math
import time
import traceback
import warnings
from collections import Counter
from dataclasses import fields

import numpy as np

from atomstream.analysis.growth import GrowthTracker
from atomstream.analysis.illumination import CorrectedTrace
from atomstream.analysis.trace import IntensityTrace
from atomstream.results import Measurement
from benchmarks.truth.drawing import Random, between, chosen, flicker, log_between, stamps
from benchmarks.truth.growth import F64, intensity, steady
from benchmarks.truth.kinds_pulsed import pulse_train

SHAPES = ("growth", "sine", "pulses", "noise", "walk", "constant", "square", "ramp", "step", "zero", "stop")
FLAWS = (
    "none",
    "none",
    "none",
    "nan",
    "all nan",
    "spikes",
    "clipped",
    "quantised",
    "tiny",
    "huge",
    "negative",
    "inf",
)
CLOCKS = ("even", "even", "even", "jitter", "bursts", "gaps", "repeated", "late start")


def random_trace(seed: int) -> tuple[str, float, F64, F64, float]:
    """Return a description, the frame rate, times (s), values (both (N,)) and the rotation (Hz) of a random trace."""
    r = np.random.default_rng((seed, 20571))
    fps = chosen(r, 2.0, 10.0, 20.0, 20.0, 30.0, 30.0, 60.0)
    t = stamps(fps, max(2.0, log_between(r, 40, 600) / fps))
    shape, flaw, clock = chosen(r, *SHAPES), chosen(r, *FLAWS), chosen(r, *CLOCKS)
    y = _flawed(r, flaw, _shaped(r, shape, t))
    rotation = chosen(r, 0.0, 0.0, 0.0, 0.1, 0.25)
    return (
        f"{shape}, {flaw}, {clock}, {fps:g} fps, {60 * rotation:g} rpm",
        fps,
        _timed(r, clock, t),
        y,
        rotation,
    )


def _shaped(r: Random, shape: str, t: F64) -> F64:
    hz = log_between(r, 0.5 / t[-1], min(6.0, 0.45 / (t[1] - t[0])))
    noise = log_between(r, 1e-6, 0.1) * r.standard_normal(len(t))
    if shape == "growth":
        y = intensity(
            steady(hz).layers(np.minimum(t, 60 / hz)), log_between(r, 3, 90), damping=log_between(r, 1, 100)
        )
    elif shape == "sine":
        y = 1 + 0.3 * np.exp(-t * hz / log_between(r, 1, 100)) * np.cos(2 * np.pi * hz * t + between(r, 0, 6))
        y = y + chosen(r, 0.0, 0.1, 0.3) * np.cos(4 * np.pi * hz * t)
    elif shape == "pulses":
        y = (
            1
            - 0.1 * pulse_train(t, hz, between(r, 0.1, 0.7) / hz)
            + 0.2 * np.cos(2 * np.pi * hz * t / between(r, 5, 60))
        )
    elif shape == "walk":
        y = 1 + 0.1 * flicker(r, t, log_between(r, 0.1, 50))
    elif shape == "square":
        y = 1 + 0.2 * np.sign(np.sin(2 * np.pi * hz * t))
    elif shape == "ramp":
        y = 1 + between(r, -1, 1) * t / t[-1]
    elif shape == "step":
        y = np.where(t > between(r, 0, 1) * t[-1], 1.0, 0.2)
    elif shape == "stop":
        y = 1 + 0.3 * np.cos(2 * np.pi * hz * np.minimum(t, between(r, 0, 1) * t[-1]))
    else:
        level = 0.0 if shape == "zero" else 1.0
        return np.full(len(t), level) + (noise if shape == "noise" else 0.0)
    return np.asarray(y + chosen(r, 0.0, 1.0, 1.0) * noise)


def _flawed(r: Random, flaw: str, y: F64) -> F64:
    if flaw == "nan":
        return np.where(r.random(len(y)) < log_between(r, 0.01, 0.9), np.nan, y)
    if flaw == "all nan":
        return np.full(len(y), np.nan)
    if flaw in ("spikes", "inf"):
        high = np.inf if flaw == "inf" else 10 ** between(r, -1, 6)
        return np.where(r.random(len(y)) < log_between(r, 0.001, 0.1), high * chosen(r, -1, 1), y)
    if flaw == "clipped":
        return np.minimum(y, np.quantile(y, between(r, 0, 1)))
    if flaw == "quantised":
        return np.asarray(np.round(y * log_between(r, 1, 100)))
    return y * {"tiny": 1e-300, "huge": 1e150, "negative": -1.0}.get(flaw, 1000.0)


def _timed(r: Random, clock: str, t: F64) -> F64:
    dt = t[1] - t[0]
    if clock == "jitter":
        return np.sort(t + r.uniform(-0.4, 0.4, len(t)) * dt)
    if clock == "bursts":
        size = int(r.integers(2, 60))
        return np.asarray(t[np.minimum(np.arange(len(t)) // size * size + size - 1, len(t) - 1)])
    if clock == "gaps":
        return t + np.cumsum(np.where(r.random(len(t)) < 0.01, log_between(r, 0.1, 100), 0.0))
    if clock == "repeated":
        return np.asarray(np.maximum.accumulate(np.where(r.random(len(t)) < 0.3, np.roll(t, 1), t)))
    return t + (log_between(r, 1, 1e9) if clock == "late start" else 0.0)


def feed_trace(fps: float, t: F64, y: F64, rotation_hz: float, seed: int = 0) -> None:
    """Feed a trace to the growth tracker in pieces of half a second, with a new segment in the middle.

    What the tracker takes beside times and values (background, motion) is constant, noise or unknown, by ``seed``.
    """
    r = np.random.default_rng((seed, 77))
    beside = [f.name for f in fields(CorrectedTrace) if f.name not in ("t", "y")]
    other = {
        name: chosen(r, 0.0, 10.0, math.nan) + chosen(r, 0.0, 0.01, 3.0) * r.standard_normal(len(t))
        for name in beside
    }
    growth = GrowthTracker(IntensityTrace.for_frames(fps, t[: max(2, round(fps / 10))]))
    growth.start_segment(float(t[0]))
    piece, counted = max(1, round(fps / 2)), 0.0
    for a in range(0, len(t), piece):
        part = slice(a, a + piece)
        growth.feed(CorrectedTrace(t[part], y[part], **{name: of[part] for name, of in other.items()}))
        now = float(t[part][-1])
        rate = growth.update(now, rotation_hz).rate
        count = growth.oscillations_counted(now)
        for fault in (fault_of(rate, 0.5 * growth.trace.fps), fault_of(count, float(len(t)))):
            if fault:
                raise ImpossibleResultError(fault)
        if count.value is not None and count.value < counted - 1e-6:
            raise ImpossibleResultError("the count fell")
        counted = counted if count.value is None else count.value
        if a // piece == 3 * len(t) // (4 * piece):
            growth.start_segment(now)
            counted = 0.0


class ImpossibleResultError(ArithmeticError):
    """A result that no trace can have."""


def fault_of(result: Measurement, highest: float) -> str:
    """Return what is wrong with a result whatever the trace; "" if it may be right."""
    if result.value is None:
        return "" if result.why else "no number and no reason"
    if not (math.isfinite(result.value) and 0.0 <= result.value <= highest):
        return f"{result.unit} outside of 0 to the highest possible value"
    if result.sigma is None or not (math.isfinite(result.sigma) and result.sigma >= 0.0):
        return f"{result.unit} without a finite uncertainty"
    return ""


def run_traces(count: int, first: int = 0) -> int:
    """Feed ``count`` random traces, print each kind of exception once with its count, and return 1 if there was any."""
    found: Counter[str] = Counter()
    began = time.perf_counter()
    for seed in range(first, first + count):
        name, fps, t, y, rotation = random_trace(seed)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                feed_trace(fps, t, y, rotation, seed)
        except Exception as error:  # any error is a result of this benchmark
            place = traceback.extract_tb(error.__traceback__)[-1]
            key = f"{type(error).__name__} in {place.name}: {str(error)[:80]}"
            if not found[key]:
                print(f"seed {seed} ({name}): {key}\n{traceback.format_exc(limit=-3)}", flush=True)
            found[key] += 1
    print(f"{count} traces in {time.perf_counter() - began:.0f} s: {sum(found.values())} exceptions")
    for key, times in found.most_common():
        print(f"{times:6} {key}")
    return 1 if found else 0
